//! The write path: to PostgreSQL if it takes the write, else durably to the buffer, and the answer
//! says which.
//!
//! Writes that come while one statement is on its way are gathered into the next (no timer holds a
//! write back: one that comes alone leaves at once). A write to an entity with pending operations
//! joins its lane in the buffer, whatever the link. When PostgreSQL fails, or it is not known
//! whether it did what it was sent, the operation goes to the buffer under the same id, and the
//! ledger keeps replay from applying it twice.

mod admission;
mod flusher;
mod generations;
mod known;

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::buffer::{Buffer, BufferError};
use crate::cache::EntityCache;
use crate::domain::{Operation, Outcome, Refusal, Version};
use crate::gather::Gatherer;
use crate::host_clock::HostClock;
use crate::online::OnlineNotes;
use crate::store::{Entity, Link, Store};
use admission::Admission;
use flusher::{Flusher, Ticket};
use generations::Generations;
pub use known::KnownTasks;

/// Statements on their way at once; each serves the lanes that hash to it, so that operations of
/// one entity never race each other. More of them make for smaller batches, and what PostgreSQL does
/// for a batch of any size costs as much as ten rows.
const FLUSHERS: usize = 2;

/// An accepted write.
#[derive(Clone, Debug)]
pub enum Written {
    /// PostgreSQL has committed it.
    Committed {
        /// The operation's final id.
        operation_id: Version,
        /// What it came to.
        outcome: Outcome,
        /// The entity just after it.
        entity: Option<Entity>,
    },
    /// The buffer holds it, synced to the disk.
    Buffered {
        /// The operation's final id.
        operation_id: Version,
    },
}

/// Why a write was not accepted; nothing of it was kept, unless it says that this is not known.
#[derive(Debug, Error)]
pub enum WriteError {
    /// PostgreSQL has it that this cannot be done.
    #[error("refused: {}", .0.reason())]
    Refused(Refusal),
    /// Neither PostgreSQL nor the buffer takes it.
    #[error(transparent)]
    Buffer(#[from] BufferError),
    /// PostgreSQL may or may not have done it, and the buffer does not take it.
    #[error("the outcome is unknown, and the buffer failed: {0}")]
    Unknown(#[source] BufferError),
    /// More writes are waiting than this process takes on, or it is shutting down.
    #[error("too many writes are waiting")]
    Overloaded,
}

/// The write path of one process.
#[derive(Debug)]
pub struct Writes {
    admission: Arc<Admission>,
    tickets: Gatherer<Ticket>,
}

impl Writes {
    /// Starts the tasks that write.
    #[must_use]
    pub fn start(
        store: Arc<Store>,
        buffer: Arc<Buffer>,
        link: Arc<Link>,
        cache: Arc<EntityCache>,
        clock: Arc<HostClock>,
    ) -> Self {
        let notes = OnlineNotes::beside(&buffer.settings().buffer_path);
        let admission = Arc::new(Admission {
            store,
            buffer,
            link,
            known: KnownTasks::default(),
            generations: Generations::default(),
            clock: Arc::clone(clock.of_process()),
        });
        let flusher = Arc::new(Flusher { admission: Arc::clone(&admission), notes, cache, clock });
        let tickets = Gatherer::start("writes", FLUSHERS, move |batch| {
            let flusher = Arc::clone(&flusher);
            async move { flusher.flush(batch).await }
        });
        Self { admission, tickets }
    }

    /// Writes an operation, and returns once it is durable. A caller that goes away does not stop
    /// the write.
    ///
    /// # Errors
    /// If it is refused, or neither PostgreSQL nor the buffer takes it.
    pub async fn submit(&self, operation: Operation) -> Result<Written, WriteError> {
        // One that asserts a version comes after those of its lane whose outcome is not known yet.
        if !self.admission.link.is_up() && operation.if_match().is_none() {
            let operation_id = self.admission.append(operation).await?;
            return Ok(Written::Buffered { operation_id });
        }
        let (reply, written) = oneshot::channel();
        self.tickets
            .send(operation.lane().id, Ticket { operation, reply })
            .ok_or(WriteError::Overloaded)?;
        written.await.unwrap_or(Err(WriteError::Overloaded))
    }

    /// Puts an operation into the buffer whatever the link, for a place that only replay writes to.
    ///
    /// # Errors
    /// If the buffer does not take it.
    pub async fn keep(&self, operation: Operation) -> Result<Version, WriteError> {
        let clock = Some(Arc::clone(&self.admission.clock));
        Ok(self.admission.put(operation, clock).await?)
    }

    /// The generation of a user's set of tasks: another one whenever a write through this process, which
    /// may have changed how many there are, is about to be answered. A count is good for as long as the
    /// generation is the one from before it began.
    #[must_use]
    pub fn generation(&self, user_id: Uuid) -> u64 {
        self.admission.generations.of(user_id)
    }

    /// Tasks as this process last committed them.
    #[must_use]
    pub fn known(&self) -> &KnownTasks {
        &self.admission.known
    }

    /// Takes no more writes, finishes those that were accepted, and ends the tasks.
    pub async fn close(&self) {
        self.tickets.close().await;
    }
}
