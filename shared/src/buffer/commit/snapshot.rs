//! A state of the buffer as a reader sees it: one of redb's read transactions, and the tail that belongs
//! to it.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, StorageError};
use uuid::Uuid;

use crate::buffer::disk::file::BufferFile;
use crate::buffer::error::unusable;
use crate::buffer::format::layout::{
    Bytes, CHECKPOINT, COUNTERS, LANE_STATES, LANES, LaneState, RECORDS, USERS, WAL_GENERATION,
};
use crate::buffer::format::record::lane_bytes;
use crate::buffer::tables::lane_end::LaneEnd;
use crate::buffer::wal::file::Wal;
use crate::buffer::wal::tail::{Group, Mark, Tail};
use crate::domain::Lane;

/// How often a state is taken before it is given up: one is of no use if the WAL was emptied, and
/// something else written there, before it was read.
const TRIES: usize = 100;

/// The open files, and the newest tail that a reader of this process knows.
#[derive(Debug)]
pub(in crate::buffer) struct Opened {
    pub(in crate::buffer) file: BufferFile,
    pub(in crate::buffer) database: Database,
    pub(in crate::buffer) wal: Wal,
    tail: Mutex<Arc<Mutex<Tail>>>,
}

impl Opened {
    pub(in crate::buffer) fn new(file: BufferFile, database: Database, wal: Wal) -> Arc<Self> {
        Arc::new(Self { file, database, wal, tail: Mutex::default() })
    }

    /// True if the paths still lead to these files: if not, nothing written to them would be found again.
    pub(in crate::buffer) fn is_in_place(&self) -> bool {
        self.file.is_in_place() && self.wal.is_in_place()
    }

    /// The generation of the WAL that the tables name.
    pub(in crate::buffer) fn generation(&self) -> Result<u64, redb::Error> {
        Ok(Mark::of(&self.database.begin_read()?)?.generation)
    }

    /// The tail with a mark; none if a reader of a later state was here before. One that others hold is
    /// only ever added to.
    pub(in crate::buffer) fn tail(&self, mark: Mark) -> Option<Arc<Mutex<Tail>>> {
        let mut newest = locked(&self.tail);
        let (known, is_in_wal) = {
            let tail = locked(&newest);
            (tail.mark(), tail.is_in(&self.wal))
        };
        if (known.generation, known.from) > (mark.generation, mark.from) {
            return None;
        }
        if known != mark || !is_in_wal {
            *newest = Arc::new(Mutex::new(Tail::new(mark)));
        }
        Some(Arc::clone(&newest))
    }
}

/// A place, and the record there.
type Placed = (u64, Arc<[u8]>);

/// A state of the buffer.
pub(in crate::buffer) struct Snapshot {
    transaction: ReadTransaction,
    tail: Arc<Mutex<Tail>>,
}

impl Snapshot {
    /// A state with everything that was acknowledged before this is called.
    pub(in crate::buffer) fn take(opened: &Opened) -> Result<Self, redb::Error> {
        for _ in 0..TRIES {
            if let Some(state) = Self::of(opened, opened.database.begin_read()?)? {
                return Ok(state);
            }
        }
        Err(unusable("the write-ahead log is always ahead of the file"))
    }

    /// The state of a transaction, with its tail; none if the WAL may have been emptied since, and
    /// something else written there.
    pub(in crate::buffer) fn of(
        opened: &Opened,
        transaction: ReadTransaction,
    ) -> Result<Option<Self>, redb::Error> {
        let mark = Mark::of(&transaction)?;
        let Some(tail) = opened.tail(mark) else { return Ok(None) };
        let begun = locked(&tail).follow(&opened.wal);
        let is_whole = match begun {
            Some(generation) => generation <= mark.generation,
            // There is none, or one that is just being written.
            None => mark == Mark::of(&opened.database.begin_read()?)?,
        };
        Ok(is_whole.then_some(Self { transaction, tail }))
    }

    /// Some counters; 0 for one that was never set.
    pub(in crate::buffer) fn counters<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<[u64; N], redb::Error> {
        counters(&self.transaction, names)
    }

    /// The records of all pending operations.
    pub(in crate::buffer) fn records(&self) -> Result<Records<'_>, redb::Error> {
        Ok(Records { table: self.transaction.open_table(RECORDS)?, tail: &self.tail })
    }

    /// How far a lane goes: at least as far as when this state was taken.
    pub(in crate::buffer) fn lane_end(&self, lane: Lane) -> Result<LaneEnd, redb::Error> {
        let key = lane_bytes(lane);
        let states = self.transaction.open_table(LANE_STATES)?;
        let state = states.get(&key)?.map(|state| LaneState::decode(state.value()));
        Ok(LaneEnd::of(state.as_ref(), self.tail().lane(&key)))
    }

    /// The places of the operations of each of these lanes, in order.
    pub(in crate::buffer) fn places_of_lanes(
        &self,
        lanes: &[Lane],
    ) -> Result<Vec<Vec<u64>>, redb::Error> {
        let states = self.transaction.open_table(LANE_STATES)?;
        let table = self.transaction.open_table(LANES)?;
        let mut places = vec![Vec::new(); lanes.len()];
        for (places, lane) in places.iter_mut().zip(lanes) {
            let key = lane_bytes(*lane);
            if states.get(&key)?.is_none() {
                continue;
            }
            for entry in table.range((&key, 0)..=(&key, u64::MAX))? {
                places.push(entry?.0.value().1);
            }
        }
        let tail = self.tail();
        for (places, lane) in places.iter_mut().zip(lanes) {
            places.extend(places_from(tail.lane(&lane_bytes(*lane)), 0));
        }
        Ok(places)
    }

    /// The places of a user's operations from `first` on, in order.
    pub(in crate::buffer) fn places_of_user(
        &self,
        user: Uuid,
        first: u64,
    ) -> Result<impl Iterator<Item = Result<u64, StorageError>> + use<>, redb::Error> {
        let key = user.as_u128();
        let users = self.transaction.open_table(USERS)?;
        let indexed = users.range_owned((key, first)..=(key, u64::MAX))?;
        let indexed = indexed.map(|entry| entry.map(|(key, _)| key.value().1));
        let in_tail = places_from(self.tail().user(key), first);
        Ok(indexed.chain(in_tail.into_iter().map(Ok)))
    }

    /// The tail. Besides what was in it when this state was taken, it may have what came since.
    pub(in crate::buffer) fn tail(&self) -> MutexGuard<'_, Tail> {
        locked(&self.tail)
    }
}

/// The records of a state, those of the tail included.
pub(in crate::buffer) struct Records<'a> {
    table: ReadOnlyTable<u64, Bytes>,
    tail: &'a Mutex<Tail>,
}

impl Records<'_> {
    /// The record at a place.
    pub(in crate::buffer) fn get(&self, place: u64) -> Result<Option<Arc<[u8]>>, StorageError> {
        match self.table.get(place)? {
            Some(record) => Ok(Some(record.value().into())),
            None => Ok(locked(self.tail).record(place).cloned()),
        }
    }

    /// The records from a place on, in order.
    pub(in crate::buffer) fn from(
        &self,
        place: u64,
    ) -> Result<impl Iterator<Item = Result<Placed, StorageError>>, StorageError> {
        let in_table = self.table.range(place..)?.map(|entry| {
            let (place, record) = entry?;
            Ok((place.value(), record.value().into()))
        });
        let in_tail = {
            let tail = locked(self.tail);
            let first = place.max(tail.mark().from);
            (first..).zip(tail.records_from(first).to_vec())
        };
        Ok(in_table.chain(in_tail.map(Ok)))
    }
}

impl Mark {
    /// That of a state.
    fn of(transaction: &ReadTransaction) -> Result<Self, redb::Error> {
        let [generation, from] = counters(transaction, [WAL_GENERATION, CHECKPOINT])?;
        Ok(Self { generation, from })
    }
}

fn counters<const N: usize>(
    transaction: &ReadTransaction,
    names: [&str; N],
) -> Result<[u64; N], redb::Error> {
    let (counters, mut values) = (transaction.open_table(COUNTERS)?, [0; N]);
    for (value, name) in values.iter_mut().zip(names) {
        *value = counters.get(name)?.map_or(0, |counter| counter.value());
    }
    Ok(values)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn places_from(group: Option<&Group>, first: u64) -> Vec<u64> {
    let places = group.into_iter().flat_map(|group| &group.places);
    places.copied().filter(|place| *place >= first).collect()
}

impl Deref for Snapshot {
    type Target = ReadTransaction;

    fn deref(&self) -> &ReadTransaction {
        &self.transaction
    }
}
