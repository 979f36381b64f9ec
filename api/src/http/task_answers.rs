//! The answers to requests about tasks.

use poem_openapi::{ApiResponse, Object};
use serde::Serialize;
use uuid::Uuid;

use super::envelope::{ListMeta, ReadMeta, WriteMeta};
use super::ready::Ready;
use crate::shapes::TaskView;

/// A task after a write.
#[derive(Serialize, Object)]
pub struct TaskWritten {
    /// The task.
    pub(super) data: TaskView,
    /// About the answer.
    pub(super) meta: WriteMeta,
}

/// The id of a deleted task.
#[derive(Serialize, Object)]
pub struct DeletedTask {
    /// The task's id.
    pub(super) id: Uuid,
}

/// A delete that waits in the buffer.
#[derive(Serialize, Object)]
pub struct TaskDeleted {
    /// The task that is being deleted.
    pub(super) data: DeletedTask,
    /// About the answer.
    pub(super) meta: WriteMeta,
}

/// A task, as it was read.
#[derive(Serialize, Object)]
pub struct TaskRead {
    /// The task.
    pub(super) data: TaskView,
    /// About the answer.
    pub(super) meta: ReadMeta,
}

/// A page of tasks.
#[derive(Serialize, Object)]
pub struct TaskList {
    /// The tasks, in order.
    pub(super) data: Vec<TaskView>,
    /// About the page.
    pub(super) meta: ListMeta,
}

/// What a create is answered with.
#[derive(ApiResponse)]
pub enum Created {
    /// A create with this `Idempotency-Key` was made before. This is its task as PostgreSQL has it now.
    #[oai(status = 200)]
    Replayed(
        Ready<TaskWritten>,
        #[oai(header = "Idempotency-Replayed")] String,
        #[oai(header = "ETag")] String,
    ),
    /// PostgreSQL has committed the task.
    #[oai(status = 201)]
    Committed(
        Ready<TaskWritten>,
        #[oai(header = "Location")] String,
        #[oai(header = "ETag")] String,
    ),
    /// The buffer of this host holds the task, synced to its disk. Replay brings it to PostgreSQL.
    #[oai(status = 202)]
    Buffered(
        Ready<TaskWritten>,
        #[oai(header = "Location")] String,
        #[oai(header = "Idempotency-Replayed")] Option<String>,
        #[oai(header = "ETag")] String,
    ),
}

/// What a change is answered with.
#[derive(ApiResponse)]
pub enum Changed {
    /// PostgreSQL has committed the change.
    #[oai(status = 200)]
    Committed(Ready<TaskWritten>, #[oai(header = "ETag")] String),
    /// The buffer of this host holds the change, synced to its disk. Replay brings it to PostgreSQL.
    #[oai(status = 202)]
    Buffered(
        Ready<TaskWritten>,
        #[oai(header = "Location")] String,
        #[oai(header = "ETag")] String,
    ),
}

/// What a delete is answered with.
#[derive(ApiResponse)]
pub enum Deleted {
    /// PostgreSQL has committed the delete.
    #[oai(status = 204)]
    Committed,
    /// The buffer of this host holds the delete, synced to its disk. Replay brings it to PostgreSQL.
    #[oai(status = 202)]
    Buffered(Ready<TaskDeleted>, #[oai(header = "Location")] String),
}

/// What a read is answered with.
#[derive(ApiResponse)]
pub enum Read {
    /// The task.
    #[oai(status = 200)]
    Found(Ready<TaskRead>, #[oai(header = "ETag")] String, #[oai(header = "X-Data-Source")] String),
}

/// What a list is answered with.
#[derive(ApiResponse)]
pub enum Listed {
    /// A page of the user's tasks.
    #[oai(status = 200)]
    Page(Ready<TaskList>, #[oai(header = "X-Data-Source")] String),
}
