//! The turn to write, by redb's lock for it and without redb, which may not be able to begin a transaction.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::thread;
use std::time::{Duration, Instant};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::error::RepairError;

/// The byte that redb locks for the write turn (docs/design.md of redb 4.6).
const TURN: u64 = 1 << 62;
/// How long the turn is waited for.
const WAIT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// The turn to write to a file. It ends when this and the file are dropped.
#[derive(Debug)]
pub(in crate::buffer) struct Turn {
    _backend: FileBackend,
}

impl Turn {
    pub(in crate::buffer) fn take(file: &File) -> Result<Self, RepairError> {
        let unusable = |error: redb::DatabaseError| RepairError::from(redb::Error::from(error));
        let started = Instant::now();
        let backend = FileBackend::new(file.try_clone()?).map_err(unusable)?;
        loop {
            let taken = backend.try_lock_range(Bound::Included(TURN), Bound::Included(TURN));
            if taken.map_err(|error| io::Error::other(error.to_string()))? {
                return Ok(Self { _backend: backend });
            }
            if started.elapsed() > WAIT {
                return Err(RepairError::Held);
            }
            thread::sleep(LOOK);
        }
    }
}
