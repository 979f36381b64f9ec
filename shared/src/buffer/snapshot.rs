//! A state of the file as a reader sees it: one of redb's read transactions, and the tail in it.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, StorageError};
use uuid::Uuid;

use super::layout::{COUNTERS, INDEXED, LANE_STATES, LANES, RECORDS, USERS};
use super::record::lane_bytes;
use super::tail::{Group, Tail};
use crate::domain::Lane;

/// The open database, and what this process's readers know of its tail.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) database: Database,
    tail: Mutex<Tail>,
}

impl Opened {
    pub(super) fn new(database: Database) -> Arc<Self> {
        Arc::new(Self { database, tail: Mutex::default() })
    }
}

/// A state of the file.
pub(super) struct Snapshot {
    transaction: ReadTransaction,
    opened: Arc<Opened>,
}

impl Snapshot {
    /// The last state that was committed.
    pub(super) fn take(opened: Arc<Opened>) -> Result<Self, redb::Error> {
        Ok(Self { transaction: opened.database.begin_read()?, opened })
    }

    /// Some counters; 0 for one that was never set.
    pub(super) fn counters<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<[u64; N], redb::Error> {
        let (counters, mut values) = (self.transaction.open_table(COUNTERS)?, [0; N]);
        for (value, name) in values.iter_mut().zip(names) {
            *value = counters.get(name)?.map_or(0, |counter| counter.value());
        }
        Ok(values)
    }

    /// The places of the operations of each of these lanes, in order.
    pub(super) fn places_of_lanes(&self, lanes: &[Lane]) -> Result<Vec<Vec<u64>>, redb::Error> {
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
        self.tail(|tail| {
            for (places, lane) in places.iter_mut().zip(lanes) {
                places.extend(places_from(tail.lane(&lane_bytes(*lane)), 0));
            }
        })?;
        Ok(places)
    }

    /// The places of a user's operations from `first` on, in order.
    pub(super) fn places_of_user(
        &self,
        user: Uuid,
        first: u64,
    ) -> Result<impl Iterator<Item = Result<u64, StorageError>> + use<>, redb::Error> {
        let key = user.as_u128();
        let users = self.transaction.open_table(USERS)?;
        let indexed = users.range_owned((key, first)..=(key, u64::MAX))?;
        let indexed = indexed.map(|entry| entry.map(|(key, _)| key.value().1));
        let in_tail = self.tail(|tail| places_from(tail.user(key), first))?;
        Ok(indexed.chain(in_tail.into_iter().map(Ok)))
    }

    /// Whether there are records that no index tells of.
    pub(super) fn has_tail(&self) -> Result<bool, redb::Error> {
        let [from] = self.counters([INDEXED])?;
        let records = self.transaction.open_table(RECORDS)?;
        let last = records.last()?;
        Ok(last.is_some_and(|(last, _)| last.value() >= from))
    }

    /// The tail of this state and of no later one, read anew: for counts.
    pub(super) fn own_tail(&self) -> Result<Tail, redb::Error> {
        let [from] = self.counters([INDEXED])?;
        let mut tail = Tail::default();
        tail.catch_up(&self.transaction.open_table(RECORDS)?, from)?;
        Ok(tail)
    }

    /// Asks something of the tail. It may tell of operations that came after this state: there are no
    /// records of them here.
    pub(super) fn tail<T>(&self, ask: impl FnOnce(&Tail) -> T) -> Result<T, redb::Error> {
        let [from] = self.counters([INDEXED])?;
        let records = self.transaction.open_table(RECORDS)?;
        let mut shared = self.opened.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.from() <= from {
            shared.catch_up(&records, from)?;
            return Ok(ask(&shared));
        }
        // A reader of a later state was here before: the tail of this one is in no memory any more.
        drop(shared);
        Ok(ask(&self.own_tail()?))
    }
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
