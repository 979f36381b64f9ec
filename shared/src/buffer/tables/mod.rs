//! The tables of the buffer file in a write transaction, and the basic changes that all others are made
//! of.
//!
//! A write transaction has two views. [`Intake`](intake::Intake) appends operations, and knows the WAL
//! and its tail. [`Tables`] does everything else. It finds operations by the indexes, which do not cover
//! the tail. So only a checkpoint gives access to it, and the tail is empty then.
//!
//! Each method leaves all tables consistent with one another within its transaction. It costs O(log n)
//! in the number of pending operations.

pub(in crate::buffer) mod ahead;
pub(in crate::buffer) mod audit;
pub(in crate::buffer) mod checkpoint;
pub(in crate::buffer) mod dead;
pub(in crate::buffer) mod intake;
pub(in crate::buffer) mod lane_end;
pub(in crate::buffer) mod on_demand;
pub(in crate::buffer) mod prepare;
pub(in crate::buffer) mod quarantine;
pub(in crate::buffer) mod remove;
pub(in crate::buffer) mod sorted;
pub(in crate::buffer) mod totals;

use redb::{ReadableTable, StorageError, Table, WriteTransaction};

use self::on_demand::OnDemand;
use self::totals::Totals;
use crate::buffer::error::unusable;
use crate::buffer::format::layout::{
    AHEAD, AUDIT, BYTES, Bytes, DEAD, FORMAT, FORMAT_KEY, IDS, LANE_STATES, LANES, LaneKey,
    LaneState, PENDING, QUARANTINE, READY, RECORDS, REVOKED, REVOKED_UNTIL, SCRUB, STATUS, Slot,
    USERS, WAITING, Whereabouts,
};
use crate::buffer::format::record::{self, Header};
use crate::domain::{Tries, Version};

/// All tables, for writing in one transaction. Each needs `records` and the counters.
pub(in crate::buffer) struct Tables<'txn> {
    pub(in crate::buffer) records: Table<'txn, u64, Bytes>,
    pub(in crate::buffer) totals: Totals<'txn>,
    pub(in crate::buffer) lanes: OnDemand<'txn, (LaneKey, u64), ()>,
    pub(in crate::buffer) lane_states: OnDemand<'txn, LaneKey, &'static [u8; LaneState::BYTES]>,
    pub(in crate::buffer) ready: OnDemand<'txn, (u8, u64), &'static [u8; Slot::BYTES]>,
    waiting: OnDemand<'txn, (i64, u64), &'static [u8; Slot::BYTES]>,
    pub(in crate::buffer) ids: OnDemand<'txn, u128, (u8, u64)>,
    pub(in crate::buffer) users: OnDemand<'txn, (u128, u64), ()>,
    pub(in crate::buffer) dead: OnDemand<'txn, (i64, u128), Bytes>,
    pub(in crate::buffer) quarantine: OnDemand<'txn, u64, Bytes>,
    pub(in crate::buffer) audit: OnDemand<'txn, (i64, u128), Bytes>,
    pub(in crate::buffer) revoked: OnDemand<'txn, u128, i64>,
    pub(in crate::buffer) revoked_until: OnDemand<'txn, (i64, u128), ()>,
    pub(in crate::buffer) status: OnDemand<'txn, &'static str, Bytes>,
    pub(in crate::buffer) ahead: OnDemand<'txn, LaneKey, u128>,
    pub(in crate::buffer) scrub: OnDemand<'txn, u64, Bytes>,
}

impl<'txn> Tables<'txn> {
    /// Opens the tables as they are. Where there may be a tail, `Intake` does it.
    ///
    /// # Errors
    /// If they are of another format.
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        let (records, totals) = (transaction.open_table(RECORDS)?, Totals::open(transaction)?);
        if totals.counter(FORMAT_KEY)? != FORMAT {
            // Another program has taken the file over while this one had it open.
            return Err(unusable("the tables are of another format"));
        }
        Ok(Self {
            records,
            totals,
            lanes: OnDemand::new(transaction, LANES),
            lane_states: OnDemand::new(transaction, LANE_STATES),
            ready: OnDemand::new(transaction, READY),
            waiting: OnDemand::new(transaction, WAITING),
            ids: OnDemand::new(transaction, IDS),
            users: OnDemand::new(transaction, USERS),
            dead: OnDemand::new(transaction, DEAD),
            quarantine: OnDemand::new(transaction, QUARANTINE),
            audit: OnDemand::new(transaction, AUDIT),
            revoked: OnDemand::new(transaction, REVOKED),
            revoked_until: OnDemand::new(transaction, REVOKED_UNTIL),
            status: OnDemand::new(transaction, STATUS),
            ahead: OnDemand::new(transaction, AHEAD),
            scrub: OnDemand::new(transaction, SCRUB),
        })
    }

    /// Opens the tables of a file that is being made, and that has no WAL yet.
    pub(in crate::buffer) fn of_new_file(
        transaction: &'txn WriteTransaction,
    ) -> Result<Self, redb::Error> {
        Self::open(transaction)
    }

    /// Makes the tables that are missing: readers expect all of them.
    pub(in crate::buffer) fn make(&mut self) -> Result<(), redb::Error> {
        self.totals.make()?;
        self.lanes.open()?;
        self.lane_states.open()?;
        self.ready.open()?;
        self.waiting.open()?;
        self.ids.open()?;
        self.users.open()?;
        self.dead.open()?;
        self.quarantine.open()?;
        self.audit.open()?;
        self.revoked.open()?;
        self.revoked_until.open()?;
        self.status.open()?;
        self.ahead.open()?;
        self.scrub.open()?;
        Ok(())
    }

    /// Writes what is kept in memory until the end of the transaction.
    pub(in crate::buffer) fn close(self) -> Result<(), redb::Error> {
        self.totals.close()
    }

    /// Takes a record that the indexes told of out of the counters.
    pub(in crate::buffer) fn uncount(&mut self, length: usize) -> Result<(), redb::Error> {
        self.totals.add(PENDING, -1)?;
        self.totals.add(BYTES, -signed(length))
    }

    /// Where an operation is.
    pub(in crate::buffer) fn find(
        &mut self,
        id: Version,
    ) -> Result<Option<Whereabouts>, redb::Error> {
        let found = self.ids.open()?.get(id.as_uuid().as_u128())?;
        Ok(found.and_then(|found| Whereabouts::decode(found.value())))
    }

    pub(in crate::buffer) fn lane_state(
        &mut self,
        lane: &[u8; 17],
    ) -> Result<Option<LaneState>, redb::Error> {
        Ok(self.lane_states.open()?.get(lane)?.map(|state| LaneState::decode(state.value())))
    }

    /// Puts another record of the same operation, in other bytes, in the place of a pending one.
    pub(in crate::buffer) fn replace(
        &mut self,
        place: u64,
        header: &Header,
        bytes: &[u8],
    ) -> Result<(), redb::Error> {
        let Some(before) = self.records.insert(place, bytes)?.map(|before| before.value().len())
        else {
            return Ok(());
        };
        let delta = signed(bytes.len()) - signed(before);
        self.totals.add_to_user(header.user_id.as_u128(), 0, delta)?;
        self.totals.add(BYTES, delta)
    }

    /// Keeps an operation and its whole lane waiting until `not_before` (Unix milliseconds).
    pub(in crate::buffer) fn retry(
        &mut self,
        place: u64,
        tries: Tries,
        not_before: i64,
    ) -> Result<(), redb::Error> {
        let Some(bytes) = self.record(place)? else { return Ok(()) };
        let Ok(header) = Header::decode(place, &bytes) else { return Ok(()) };
        let header = Header { tries, not_before, ..header };
        self.records.insert(place, header.replace_in(place, &bytes).as_slice())?;
        let lane = record::lane_bytes(header.lane);
        let Some(before) = self.lane_state(&lane)?.filter(|state| state.head == place) else {
            return Ok(());
        };
        self.reindex(&lane, Some(&before), Some(&LaneState { not_before, ..before }))
    }

    pub(in crate::buffer) fn publish(
        &mut self,
        name: &str,
        value: &[u8],
    ) -> Result<(), redb::Error> {
        self.status.open()?.insert(name, value)?;
        Ok(())
    }

    pub(in crate::buffer) fn record(&self, place: u64) -> Result<Option<Vec<u8>>, redb::Error> {
        Ok(self.records.get(place)?.map(|bytes| bytes.value().to_vec()))
    }

    /// Moves a lane to where its new state belongs.
    pub(in crate::buffer) fn reindex(
        &mut self,
        lane: &[u8; 17],
        before: Option<&LaneState>,
        after: Option<&LaneState>,
    ) -> Result<(), redb::Error> {
        let moved = match (before, after) {
            (Some(old), Some(new)) => {
                old.slot(lane) != new.slot(lane)
                    || (old.head, old.not_before) != (new.head, new.not_before)
            }
            (None, _) | (_, None) => true,
        };
        if let Some(old) = before.filter(|_| moved) {
            if old.not_before > 0 {
                self.waiting.open()?.remove((old.not_before, old.head))?;
            } else {
                self.ready.open()?.remove(old.rank())?;
            }
        }
        let Some(new) = after else {
            self.lane_states.open()?.remove(lane)?;
            return Ok(());
        };
        self.lane_states.open()?.insert(lane, &new.encode())?;
        if moved && new.not_before > 0 {
            self.waiting.open()?.insert((new.not_before, new.head), &new.slot(lane).encode())?;
        } else if moved {
            self.ready.open()?.insert(new.rank(), &new.slot(lane).encode())?;
        }
        Ok(())
    }
}

/// The header of a record; none if there is none that can be read.
pub(in crate::buffer) fn header_at(
    records: &impl ReadableTable<u64, Bytes>,
    place: u64,
) -> Result<Option<Header>, StorageError> {
    let bytes = records.get(place)?;
    Ok(bytes.and_then(|bytes| Header::decode(place, bytes.value()).ok()))
}

/// The keys of a table by time from before `cutoff` (Unix milliseconds), oldest first, `limit` at the
/// most.
pub(in crate::buffer) fn keys_before<V: redb::Value + 'static>(
    table: &impl ReadableTable<(i64, u128), V>,
    cutoff: i64,
    limit: usize,
) -> Result<Vec<(i64, u128)>, StorageError> {
    let before = table.range(..(cutoff, 0))?.take(limit);
    before.map(|entry| entry.map(|(key, _)| key.value())).collect()
}

pub(in crate::buffer) fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
