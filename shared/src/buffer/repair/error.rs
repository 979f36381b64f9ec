//! What a repair found and did, or why it was not made.

use std::io;
use std::path::PathBuf;

use serde::Serialize;
use thiserror::Error;

use super::recover::Recovered;
use crate::buffer::disk::open_error::OpenError;
use crate::buffer::error::BufferError;
use crate::buffer::format::layout::FORMAT;

/// Why the buffer file was not repaired.
#[derive(Debug, Error)]
pub enum RepairError {
    /// The operating system refused.
    #[error("the buffer file cannot be repaired: {0}")]
    Io(#[from] io::Error),
    /// Another process has held on to the file for too long.
    #[error("the buffer file cannot be repaired: another process holds on to it")]
    Held,
    /// It was written by another version of the program.
    #[error(
        "the buffer file cannot be repaired: it has format {found}, this program writes {FORMAT}"
    )]
    Format {
        /// The file's format.
        found: u64,
    },
    /// Nothing in it tells which tables it has.
    #[error("the buffer file cannot be repaired: nothing says what is in it")]
    Unknown,
    /// The file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new file could not be made.
    #[error("the buffer file cannot be repaired: {0}")]
    NewFile(Box<redb::Error>),
    /// Nobody carried it out.
    #[error("the buffer file cannot be repaired: {0}")]
    Buffer(#[from] BufferError),
}

impl From<redb::Error> for RepairError {
    fn from(error: redb::Error) -> Self {
        Self::NewFile(Box::new(error))
    }
}

/// What a repair found, and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Tables with pages that cannot be read, or do not match their checksums.
    pub damaged_tables: Vec<String>,
    /// Entries of indexes, and counters, that are not what the records make of them.
    pub wrong_entries: u64,
    /// Pending operations that are there, or would be, afterwards.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// Records in quarantine.
    pub quarantined: u64,
    /// Where the damaged file is now; none if nothing was changed.
    pub kept_as: Option<PathBuf>,
    /// Why the file could not be opened before.
    pub refused: Option<String>,
}

impl Repaired {
    /// Whether there was anything to repair.
    #[must_use]
    pub fn found_damage(&self) -> bool {
        !self.damaged_tables.is_empty() || self.wrong_entries > 0 || self.refused.is_some()
    }

    pub(in crate::buffer) fn of(recovered: Recovered) -> Self {
        let Recovered { damaged, wrong, pending, dead, quarantined, has_tables: _ } = recovered;
        let (damaged_tables, wrong_entries) = (damaged, wrong);
        let (kept_as, refused) = (None, None);
        Self { damaged_tables, wrong_entries, pending, dead, quarantined, kept_as, refused }
    }
}
