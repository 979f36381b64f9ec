//! The buffer: a redb file with a write-ahead log (WAL) beside it, in which operations wait for PostgreSQL.
//! The api and worker processes of one host share both. docs/buffer.md describes formats and failures.
//!
//! Guarantees:
//!
//! - [`Buffer::append`] returns after the operation is on the disk, in the WAL or in the tables.
//! - The order of acceptance within a lane never changes.
//! - Tables and counts change in one transaction. Operations that are in the WAL alone (the tail) are
//!   found and counted like all others.
//! - Everything costs O(log n) in the number of pending operations, except the handling of damage.
//!
//! Locking: redb's multi-writer mode lets any number of processes open the file. One transaction at a time
//! writes, to the tables or to the WAL. Each process writes from one thread, by group commit, and holds no
//! transaction across other I/O. Reads never wait for a writer. They see the last commit, and may see one to the
//! WAL that is still on its way to the disk.
//!
//! # Example
//!
//! An operation comes in, is given to replay, and leaves once PostgreSQL has it.
//!
//! ```
//! use std::collections::HashSet;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use shared::buffer::{BatchLimits, Buffer, Settlement, Verdict, unix_millis};
//! use shared::domain::{Actor, Change, Clock, Operation, Role, TaskChange};
//! use shared::settings::BufferSettings;
//! use uuid::Uuid;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let settings = BufferSettings {
//!     buffer_path: folder.path().join("data/buffer.redb"),
//!     buffer_min_free_bytes: 0,
//!     ..BufferSettings::default()
//! };
//! let buffer = Buffer::open(&settings)?;
//!
//! let clock = Arc::new(Clock::default());
//! let user_id = Uuid::new_v4();
//! let delete = Operation {
//!     id: clock.next(),
//!     actor: Actor { user_id, role: Role::User, session_id: None },
//!     change: Change::Task(TaskChange::Delete { task_id: Uuid::new_v4(), if_match: None }),
//!     accepted_at: chrono::Utc::now(),
//!     request_id: Uuid::new_v4(),
//!     traceparent: None,
//! };
//! // When this returns, the operation is on the disk.
//! let id = buffer.append(delete, Some(clock)).await?;
//!
//! let limits = BatchLimits {
//!     operations: 100,
//!     bytes: 1 << 20,
//!     aging: Duration::from_secs(60),
//!     longest_wait: Duration::from_secs(3600),
//! };
//! let batch = buffer.next_batch(unix_millis(), limits, HashSet::new()).await?;
//! assert_eq!(batch.entries[0].operation.id, id);
//!
//! // The operation has been applied to PostgreSQL.
//! let settled = Settlement { place: batch.entries[0].place, verdict: Verdict::Done };
//! buffer.settle(vec![settled]).await?;
//! assert_eq!(buffer.stats().await?.pending, 0);
//! # Ok(())
//! # }
//! ```

mod ahead;
mod append;
mod commit;
mod disk;
mod drain;
mod error;
mod file_id;
mod find;
mod format;
mod operator;
mod read;
mod repair;
mod retention;
mod revoked;
mod stats;
mod tables;
mod wal;

pub use commit::buffer::Buffer;
pub use commit::open::repair_refused;
pub use disk::marks::ClockSlot;
pub use disk::open_error::OpenError;
pub use disk::private::{open_private, open_private_existing, private_folder, sibling};
pub use drain::{Batch, BatchLimits, Settlement, Verdict};
pub use error::BufferError;
pub use file_id::FileId;
pub use find::{Found, Letter};
pub use format::damage::Damage;
pub use format::entry::Entry;
pub use format::keys::KeysError;
pub use format::record::unix_millis;
pub use operator::acts::{OperatorError, Paused};
pub use operator::agreement::Verification;
pub use operator::erase::Erased;
pub use operator::lists::{DeadEntry, DeadFilter, Page, PendingFilter};
pub use operator::rekey::{RekeyError, Rekeyed};
pub use read::{BeforeWriting, Waiting, WholeLane};
pub use repair::error::{RepairError, Repaired};
pub use repair::read_out::{Salvaged, salvage};
pub use stats::Stats;
pub use tables::audit::{Act, ActKind, ActedOn};
pub use tables::lane_end::LaneEnd;

#[cfg(test)]
mod tests;
