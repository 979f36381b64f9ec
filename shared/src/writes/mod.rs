//! The write path: a write goes to PostgreSQL if PostgreSQL takes it, else durably to the buffer. The
//! answer says which.
//!
//! - Writes that come while one statement is on its way are gathered into the next. No timer delays a
//!   write: one that comes alone leaves at once.
//! - A write to an entity with pending operations joins its lane in the buffer, whether the link is up
//!   or down.
//! - If PostgreSQL fails, or it is not known whether it did what it was sent, the operation goes to the
//!   buffer under the same id. The ledger keeps replay from applying it twice.
//!
//! # Example
//!
//! A write while nothing is known of PostgreSQL: the buffer takes it, and it is there when [`Writes::submit`]
//! returns.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use shared::buffer::{Buffer, Found};
//! use shared::cache::EntityCache;
//! use shared::domain::{
//!     Actor, Change, Operation, Role, TaskChange, TaskFields, TaskStatus, Title,
//! };
//! use shared::host_clock::HostClock;
//! use shared::settings::{BufferSettings, RedisSettings, StoreSettings};
//! use shared::store::{Link, Store, Usage};
//! use shared::writes::{Writes, Written};
//! use uuid::Uuid;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let buffer_path = folder.path().join("buffer.redb");
//! let buffer = Arc::new(Buffer::open(&BufferSettings { buffer_path, ..Default::default() })?);
//! let usage = Usage {
//!     application_name: "example",
//!     write_timeout: Duration::from_secs(1),
//!     lock_timeout: Duration::from_millis(50),
//! };
//! // Neither PostgreSQL nor Redis has to be there.
//! let store = Arc::new(Store::new(&StoreSettings::default(), usage).await?);
//! let cache = Arc::new(EntityCache::new(&RedisSettings::default(), &store)?);
//! let clock = Arc::new(HostClock::open(Arc::clone(&buffer))?);
//! let link = Arc::new(Link::default());
//! let writes = Writes::start(store, Arc::clone(&buffer), link, cache, Arc::clone(&clock));
//!
//! let (title, status) = (Title::try_from("Buy milk".to_owned())?, TaskStatus::Pending);
//! let fields = TaskFields { title, description: None, status };
//! let operation = Operation {
//!     id: clock.next(),
//!     actor: Actor { user_id: Uuid::new_v4(), role: Role::User, session_id: None },
//!     change: Change::Task(TaskChange::Create { task_id: Uuid::now_v7(), fields }),
//!     accepted_at: chrono::Utc::now(),
//!     request_id: Uuid::new_v4(),
//!     traceparent: None,
//! };
//! let Written::Buffered { operation_id } = writes.submit(operation).await? else {
//!     panic!("PostgreSQL was never asked");
//! };
//! assert!(matches!(buffer.find(operation_id).await?, Some(Found::Pending { .. })));
//! writes.close().await;
//! # Ok(())
//! # }
//! ```

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
use flusher::Ticket;
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

/// The write path of one process: what takes writes in, and the tasks that bring them to their place.
#[derive(Debug)]
pub struct Writes {
    path: Arc<WritePath>,
    tickets: Gatherer<Ticket>,
}

/// Where a write may go, and who has to know of it. What is done with it there is in `flusher.rs` (a batch
/// for PostgreSQL) and `admission.rs` (the way into the buffer).
#[derive(Debug)]
struct WritePath {
    store: Arc<Store>,
    buffer: Arc<Buffer>,
    link: Arc<Link>,
    cache: Arc<EntityCache>,
    clock: Arc<HostClock>,
    /// Tells replay how long online writes take.
    notes: OnlineNotes,
    known: KnownTasks,
    generations: Generations,
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
        let (known, generations) = (KnownTasks::default(), Generations::default());
        let path =
            Arc::new(WritePath { store, buffer, link, cache, clock, notes, known, generations });
        let of_tasks = Arc::clone(&path);
        let tickets = Gatherer::start("writes", FLUSHERS, move |batch| {
            let path = Arc::clone(&of_tasks);
            async move { path.flush(batch).await }
        });
        Self { path, tickets }
    }

    /// Writes an operation, and returns once it is durable. A caller that goes away does not stop
    /// the write.
    ///
    /// # Errors
    /// If it is refused, or neither PostgreSQL nor the buffer takes it.
    pub async fn submit(&self, operation: Operation) -> Result<Written, WriteError> {
        // One that asserts a version comes after those of its lane whose outcome is not known yet.
        if !self.path.link.is_up() && operation.if_match().is_none() {
            let operation_id = self.path.append(operation).await?;
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
        Ok(self.path.put(operation, Some(self.path.process_clock())).await?)
    }

    /// The generation of a user's set of tasks: another one whenever a write through this process, which
    /// may have changed how many there are, is about to be answered. A count is good for as long as the
    /// generation is the one from before it began.
    #[must_use]
    pub fn generation(&self, user_id: Uuid) -> u64 {
        self.path.generations.of(user_id)
    }

    /// Tasks as this process last committed them.
    #[must_use]
    pub fn known(&self) -> &KnownTasks {
        &self.path.known
    }

    /// Takes no more writes, finishes those that were accepted, and ends the tasks.
    pub async fn close(&self) {
        self.tickets.close().await;
    }
}
