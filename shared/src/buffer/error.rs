//! Why the buffer did not do what it was asked for, and which errors of redb tell of damage.

use std::io::ErrorKind;

use redb::StorageError;
use thiserror::Error;

use crate::guard;

/// Why the buffer did not do what it was asked for.
#[derive(Debug, Error)]
pub enum BufferError {
    /// It holds as many operations, or bytes, as it may.
    #[error("the buffer is full")]
    Full,
    /// The user has as many operations in it as one may.
    #[error("the user's share of the buffer is used up")]
    UserShare,
    /// The entity has as many operations in it as one may.
    #[error("too many changes of this entity are waiting")]
    LaneFull,
    /// The filesystem has too little room left.
    #[error("too little room is left for the buffer")]
    LowDisk,
    /// It was not this process's turn within `BUFFER_TIMEOUT_MS`; nothing was kept.
    #[error("the buffer did not answer in time")]
    Timeout,
    /// The file cannot be used; nothing was kept.
    #[error("the buffer cannot be used: {0}")]
    Unavailable(String),
    /// The disk failed while a commit was on its way there: it may have been kept, or not.
    #[error("a commit to the buffer may have been lost: {0}")]
    OutcomeUnknown(String),
    /// The file is damaged: it is repaired, at most once a minute.
    #[error("the buffer file is damaged: {0}")]
    Damaged(String),
    /// redb refused.
    #[error("the buffer file cannot be used: {0}")]
    Redb(Box<redb::Error>),
}

impl From<redb::Error> for BufferError {
    fn from(error: redb::Error) -> Self {
        if is_damage(&error) {
            return Self::Damaged(error.to_string());
        }
        Self::Redb(Box::new(error))
    }
}

/// What keeps the files from being used, and is no damage.
pub(super) fn unusable(problem: &str) -> redb::Error {
    redb::Error::Io(std::io::Error::other(problem))
}

/// Whether an error says that the file is damaged, rather than that the disk or another process keeps it
/// from being used.
pub(super) fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TypeDefinitionChanged { .. } => true,
        redb::Error::Io(io) => {
            matches!(io.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData)
        }
        // redb may have others in a later version.
        _ => false,
    }
}

/// Works with redb, which panics at some kinds of damage: those are errors as well.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    guard::guarded(work).unwrap_or_else(|place| {
        Err(redb::Error::Corrupted(format!("what was read cannot be there ({place})")))
    })
}

pub(super) fn is_full(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull)
}

/// An error with all its sources in one line.
pub(super) struct Chain<'a>(pub(super) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl From<StorageError> for BufferError {
    fn from(error: StorageError) -> Self {
        redb::Error::from(error).into()
    }
}
