//! A write transaction into which operations come: it knows the WAL, and the tail that no table tells of yet.
//!
//! What it can do by itself needs no table to be up to date: putting an operation at the end of its lane, and
//! asking for what is counted or found in tables and tail together. Everything else is done to [`Tables`],
//! which only a checkpoint gives: while they are borrowed, the tail is empty.

use std::io;
use std::sync::Arc;

use redb::WriteTransaction;

use super::Tables;
use super::lane_end::LaneEnd;
use crate::buffer::error::unusable;
use crate::buffer::format::generation::next_generation;
use crate::buffer::format::layout::{
    BYTES, CHECKPOINT, PENDING, WAL_GENERATION, WAL_LAID, Whereabouts,
};
use crate::buffer::format::record::{self, Header, Payload};
use crate::buffer::wal::file::{Logged, Wal};
use crate::buffer::wal::salvage::{State, look_through};
use crate::buffer::wal::tail::{Mark, Tail};
use crate::domain::Version;

/// A write transaction, with the tail.
pub(in crate::buffer) struct Intake<'txn> {
    tables: Tables<'txn>,
    tail: Tail,
    wal: &'txn Wal,
    /// What the WAL had when the transaction began.
    logged: Logged,
    /// Whether tables were given out, so that the transaction has to be committed.
    has_checkpoint: bool,
}

impl<'txn> Intake<'txn> {
    /// Opens the tables, and brings `tail`, which is what is known of it from before, up to the WAL.
    ///
    /// # Errors
    /// If the tables are of another format, or the WAL is another file's.
    pub(in crate::buffer) fn open(
        transaction: &'txn WriteTransaction,
        wal: &'txn Wal,
        mut tail: Tail,
    ) -> Result<Self, redb::Error> {
        let tables = Tables::open(transaction)?;
        let generation = tables.totals.counter(WAL_GENERATION)?;
        let mark = Mark { generation, from: tables.totals.counter(CHECKPOINT)? };
        if tail.mark() != mark || !tail.is_in(wal) || !tail.catch_up(wal, mark) {
            let state;
            (state, tail) = look_through(wal, mark);
            if state == State::Foreign {
                // It is put aside when the files are opened anew.
                return Err(unusable("the write-ahead log is another file's"));
            }
        }
        let logged = Logged { generation, end: tail.end(), next: tail.next() };
        Ok(Self { tables, tail, wal, logged, has_checkpoint: false })
    }

    /// The tables, brought up to the end of the tail. A new generation of the WAL begins if there was one.
    pub(in crate::buffer) fn checkpoint(&mut self) -> Result<&mut Tables<'txn>, redb::Error> {
        self.checkpoint_some(u64::MAX)?;
        Ok(&mut self.tables)
    }

    /// Brings the tables up over so many operations of the tail at the most, which begins there then.
    pub(in crate::buffer) fn checkpoint_some(&mut self, most: u64) -> Result<(), redb::Error> {
        self.has_checkpoint = true;
        let (from, next) = (self.tail.mark().from, self.tail.next());
        let to = next.min(from.saturating_add(most));
        if from == to {
            return Ok(());
        }
        self.tables.take_in((from..to).zip(self.tail.records_from(from).to_vec()))?;
        self.tables.totals.set(CHECKPOINT, to);
        self.tail.advance(to);
        if to == next {
            self.begin_wal();
        }
        Ok(())
    }

    /// Begins a generation of the WAL, which has nothing that counts any more.
    pub(super) fn begin_wal(&mut self) {
        let Mark { generation, from } = self.tail.mark();
        let generation = next_generation(generation);
        self.tables.totals.set(WAL_GENERATION, generation);
        self.tables.totals.set(WAL_LAID, u64::from(self.wal.is_laid().unwrap_or(false)));
        self.tail = Tail::new(Mark { generation, from });
    }

    /// Brings the tables up to the WAL and notes that nothing is in it, so that nobody misses it if it is
    /// not taken along.
    pub(in crate::buffer) fn leave_wal(&mut self) -> Result<(), redb::Error> {
        self.checkpoint()?.totals.set(WAL_LAID, 0);
        Ok(())
    }

    /// Whether tables were given out: then the transaction has to be committed, or all is lost that it did.
    pub(in crate::buffer) fn has_checkpoint(&self) -> bool {
        self.has_checkpoint
    }

    /// Where an operation is.
    pub(in crate::buffer) fn find(
        &mut self,
        id: Version,
    ) -> Result<Option<Whereabouts>, redb::Error> {
        match self.tail.place(id.as_uuid().as_u128()) {
            Some(place) => Ok(Some(Whereabouts::Pending(place))),
            None => self.tables.find(id),
        }
    }

    /// How far a lane goes.
    pub(in crate::buffer) fn lane_end(&mut self, lane: &[u8; 17]) -> Result<LaneEnd, redb::Error> {
        let in_tables = self.tables.lane_state(lane)?;
        Ok(LaneEnd::of(in_tables.as_ref(), self.tail.lane(lane)))
    }

    /// The version from far ahead that an entity is known to have, if it is.
    pub(in crate::buffer) fn ahead(
        &mut self,
        lane: &[u8; 17],
    ) -> Result<Option<Version>, redb::Error> {
        self.tables.ahead(lane)
    }

    /// A user's pending operations, and their bytes.
    pub(in crate::buffer) fn of_user(&mut self, user: u128) -> Result<(u64, u64), redb::Error> {
        let (count, bytes) = self.tables.totals.of_user(user)?;
        Ok(match self.tail.user(user) {
            Some(tail) => (count + tail.count(), bytes + tail.bytes),
            None => (count, bytes),
        })
    }

    /// All pending operations, and their bytes.
    pub(in crate::buffer) fn of_all(&self) -> Result<(u64, u64), redb::Error> {
        let totals = &self.tables.totals;
        let (count, bytes) = (totals.counter(PENDING)?, totals.counter(BYTES)?);
        Ok((count + self.tail.len(), bytes + self.tail.bytes()))
    }

    /// Puts an operation at the end of its lane. It is in the tail.
    pub(in crate::buffer) fn append(&mut self, header: &Header, payload: &Payload) {
        let record = record::encode(self.tail.next(), header, payload);
        self.tail.note(header, record.into());
    }

    fn appended(&self) -> &[Arc<[u8]>] {
        self.tail.records_from(self.logged.next)
    }

    /// Whether this generation of the WAL can be written to.
    pub(in crate::buffer) fn has_wal(&self) -> Result<bool, redb::Error> {
        Ok(self.tables.totals.counter(WAL_LAID)? > 0)
    }

    /// Gives the WAL its whole length if so many bytes may be used, so that the next generation can use it.
    pub(in crate::buffer) fn lay_wal(&self, spare: u64) {
        self.wal.lay(spare);
    }

    /// Whether what was appended may stay out of the tables: it fits the WAL, the tail is short, and the WAL
    /// can be relied on. After a write that failed (`has_wal_failed`) a sync says nothing about it.
    pub(in crate::buffer) fn fits_wal(&self, has_wal_failed: bool) -> bool {
        let appended = self.appended();
        let is_sure = !appended.is_empty() || !has_wal_failed;
        let fits = appended.is_empty() || Wal::fits(self.logged.end, appended);
        fits && is_sure && !self.tail.is_long()
    }

    /// Has what was appended in the WAL, and all of it on the disk.
    ///
    /// # Errors
    /// If the disk does not take it. What was written may be there all the same.
    pub(in crate::buffer) fn log(&mut self) -> io::Result<()> {
        let appended = self.appended();
        let end = if appended.is_empty() {
            // What was there before may still be on its way to the disk.
            self.wal.sync().map(|()| self.logged.end)?
        } else {
            self.wal.append(self.logged, appended)?
        };
        self.tail.logged(end);
        Ok(())
    }

    /// Overwrites what earlier generations have left in the WAL, behind what there was of this one when the
    /// transaction began.
    pub(in crate::buffer) fn wipe_wal(&self) -> io::Result<()> {
        self.wal.wipe(self.logged)
    }

    /// How many operations the tail has.
    pub(in crate::buffer) fn tail_len(&self) -> u64 {
        self.tail.len()
    }

    /// What the WAL had when the transaction began.
    pub(in crate::buffer) fn logged(&self) -> Logged {
        self.logged
    }

    /// Writes what is kept in memory until the end of the transaction. Returns what is known of the
    /// tail, which is true once the transaction is committed.
    pub(in crate::buffer) fn close(self) -> Result<Tail, redb::Error> {
        self.tables.close()?;
        Ok(self.tail)
    }

    /// What is known of the tail if the transaction is not committed: nothing if there was a checkpoint of
    /// some of it, and it is read anew.
    pub(in crate::buffer) fn abandon(self) -> Tail {
        if self.tail.mark().generation == self.logged.generation {
            self.tail
        } else {
            Tail::default()
        }
    }
}
