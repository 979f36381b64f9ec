//! Why a read has no answer.

use std::sync::Arc;

use shared::buffer::BufferError;
use shared::domain::EntityKind;
use thiserror::Error;

/// Why a read has no answer.
#[derive(Clone, Debug, Error)]
pub enum ReadError {
    /// An entity of this kind is not there, deleted, or somebody else's.
    #[error("the {} is not there", .0.as_str())]
    NotFound(EntityKind),
    /// The task of a repeated create has been deleted since.
    #[error("the task has been deleted")]
    Deleted,
    /// PostgreSQL cannot be asked, and neither the cache nor the buffer can tell.
    #[error("the database cannot be asked, and nothing else can tell")]
    Unknown,
    /// More reads are waiting than this process takes on, or it is shutting down.
    #[error("too many reads are waiting")]
    Overloaded,
    /// The buffer cannot be read, so what is pending is not known.
    #[error("the buffer cannot be read")]
    Buffer(#[source] Arc<BufferError>),
}

impl From<BufferError> for ReadError {
    fn from(error: BufferError) -> Self {
        Self::Buffer(Arc::new(error))
    }
}
