//! A state of the file as a reader sees it: one of redb's read transactions, and the tail in it.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};

use super::layout::{COUNTERS, INDEXED, NEXT_PLACE, RECORDS};
use super::tail::Tail;

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

    /// Where the tail begins, and where it ends.
    pub(super) fn tail_range(&self) -> Result<(u64, u64), redb::Error> {
        let counters = self.transaction.open_table(COUNTERS)?;
        let counter = |name| Ok::<_, redb::Error>(counters.get(name)?.map_or(0, |at| at.value()));
        Ok((counter(INDEXED)?, counter(NEXT_PLACE)?))
    }

    /// Asks something of the tail. It may tell of operations that came after this state: there are no
    /// records of them here.
    pub(super) fn tail<T>(&self, ask: impl FnOnce(&Tail) -> T) -> Result<T, redb::Error> {
        let (from, next) = self.tail_range()?;
        if from == next {
            return Ok(ask(&Tail::default()));
        }
        let records = self.transaction.open_table(RECORDS)?;
        let mut shared = self.opened.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.from() <= from {
            shared.catch_up(&records, from, next)?;
            return Ok(ask(&shared));
        }
        // A reader of a later state was here before: the tail of this one is in no memory any more.
        drop(shared);
        let mut own = Tail::default();
        own.catch_up(&records, from, next)?;
        Ok(ask(&own))
    }
}

impl Deref for Snapshot {
    type Target = ReadTransaction;

    fn deref(&self) -> &ReadTransaction {
        &self.transaction
    }
}
