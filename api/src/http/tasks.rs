//! Tasks: create, read, list, replace, change, delete.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Serialize;
use shared::domain::{self, Change, EntityKind, Operation, Refusal, Version};
use shared::store::Entity;
use uuid::Uuid;

use super::auth::Authenticated;
use super::body::JsonBody;
use super::code::Code;
use super::envelope::{ListMeta, ReadMeta, WriteMeta};
use super::error::ApiError;
use super::list_query;
use super::ready::Ready;
use super::shell::{RequestId, Traceparent};
use super::task_input::{NewTask, TaskChange, WholeTask};
use super::written::{Accepted, Buffered, operation, submit};
use crate::permission::Permission;
use crate::reads;
use crate::shapes::TaskView;
use crate::state::State;

/// Characters of an idempotency key at the most.
const MAX_KEY: usize = 255;

/// A task after a write.
#[derive(Serialize, Object)]
pub struct TaskWritten {
    /// The task.
    data: TaskView,
    /// About the answer.
    meta: WriteMeta,
}

/// The id of a deleted task.
#[derive(Serialize, Object)]
pub struct DeletedTask {
    /// The task's id.
    id: Uuid,
}

/// A delete that waits in the buffer.
#[derive(Serialize, Object)]
pub struct TaskDeleted {
    /// The task that is being deleted.
    data: DeletedTask,
    /// About the answer.
    meta: WriteMeta,
}

/// A task, as it was read.
#[derive(Serialize, Object)]
pub struct TaskRead {
    /// The task.
    data: TaskView,
    /// About the answer.
    meta: ReadMeta,
}

/// A page of tasks.
#[derive(Serialize, Object)]
pub struct TaskList {
    /// The tasks, in order.
    data: Vec<TaskView>,
    /// About the page.
    meta: ListMeta,
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

/// The routes of tasks.
pub struct TasksApi;

#[OpenApi(prefix_path = "/api/v1")]
impl TasksApi {
    /// Create a task.
    ///
    /// With an `Idempotency-Key` it can be repeated after any failure, and makes one task.
    #[oai(path = "/tasks", method = "post", operation_id = "createTask")]
    async fn create(
        &self,
        #[oai(scope = "Permission::TaskWrite")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        trace: Traceparent,
        /// A text of the client's own, 1 to 255 visible ASCII characters. A create that repeats the key
        /// makes no second task, and is answered with the first.
        #[oai(name = "Idempotency-Key")]
        key: Header<Option<String>>,
        body: JsonBody<NewTask>,
    ) -> Result<Created, ApiError> {
        let key = key.0.as_deref().map(check_key).transpose()?;
        let fields = body.0.parse()?;
        let task_id = match key {
            Some(key) => Uuid::new_v5(&user.0.user_id, key.as_bytes()),
            None => state.clock.of_process().next().as_uuid(),
        };
        if key.is_some()
            && let Some((operation, view)) =
                reads::pending_create(&state, user.0.user_id, task_id).await?
        {
            let etag = etag(&view);
            let Buffered { location, meta, .. } = Buffered::new(request.0, operation);
            let body = TaskWritten { data: view, meta }.into();
            return Ok(Created::Buffered(body, location, Some("true".to_owned()), etag));
        }
        if !state.link.is_up() && state.writes.known().is_deleted(task_id) {
            return Err(Code::TaskDeleted.into());
        }
        let change = Change::Task(domain::TaskChange::Create { task_id, fields });
        let operation = operation(&state, user.0, change, request, trace);
        let (accepted, data) = write(&state, operation).await?;
        let etag = etag(&data);
        Ok(match accepted {
            Accepted::Committed { meta, .. } => {
                let location = format!("/api/v1/tasks/{task_id}");
                Created::Committed(TaskWritten { data, meta }.into(), location, etag)
            }
            Accepted::Repeated { meta, .. } => {
                Created::Replayed(TaskWritten { data, meta }.into(), "true".to_owned(), etag)
            }
            Accepted::Buffered(Buffered { location, meta, .. }) => {
                Created::Buffered(TaskWritten { data, meta }.into(), location, None, etag)
            }
        })
    }

    /// List your tasks, by the time of their create.
    ///
    /// With PostgreSQL away it lists the tasks with pending changes, and `meta.complete` is false.
    #[oai(path = "/tasks", method = "get", operation_id = "listTasks")]
    #[allow(clippy::too_many_arguments)]
    async fn list(
        &self,
        #[oai(scope = "Permission::TaskRead")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        /// The number of the page, from 1. For pages far back, `cursor` is faster.
        #[oai(validator(minimum(value = "1"), maximum(value = "1000000")))]
        page: Query<Option<u64>>,
        /// Tasks on a page, up to 100. The default is 20.
        #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
        limit: Query<Option<u64>>,
        /// `desc` for the newest first, which is the default, or `asc`.
        order: Query<Option<String>>,
        /// List tasks in this status only.
        status: Query<Option<String>>,
        /// List tasks with this text in their title only. Upper and lower case are the same.
        q: Query<Option<String>>,
        /// The `meta.next_cursor` of the page before. `page` is ignored then.
        cursor: Query<Option<String>>,
    ) -> Result<Listed, ApiError> {
        let query = list_query::parse(list_query::Parameters {
            user_id: user.0.user_id,
            page: page.0,
            limit: limit.0,
            order: order.0,
            status: status.0,
            q: q.0,
            cursor: cursor.0,
        })?;
        let found = reads::task_list(&state, &query).await?;
        let (source, limit) = (found.source, query.limit);
        let meta = ListMeta {
            request_id: request.0,
            timestamp: chrono::Utc::now(),
            source,
            stale: found.stale,
            complete: !found.stale,
            page: page.0.unwrap_or(1),
            limit,
            total: found.total,
            total_pages: found.total.div_ceil(limit),
            next_cursor: found.next.map(list_query::cursor).into(),
        };
        let body = TaskList { data: found.tasks, meta };
        Ok(Listed::Page(body.into(), source.as_str().to_owned()))
    }

    /// Read a task.
    #[oai(path = "/tasks/:id", method = "get", operation_id = "readTask")]
    async fn read(
        &self,
        #[oai(scope = "Permission::TaskRead")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        /// The task's id.
        id: Path<Uuid>,
    ) -> Result<Read, ApiError> {
        let found = reads::task(&state, user.0.user_id, id.0).await?;
        let (etag, source) = (etag(&found.view), found.source.as_str().to_owned());
        let meta = ReadMeta::now(request.0, found.source, found.stale);
        Ok(Read::Found(TaskRead { data: found.view, meta }.into(), etag, source))
    }

    /// Replace all fields of a task.
    #[oai(path = "/tasks/:id", method = "put", operation_id = "replaceTask")]
    #[allow(clippy::too_many_arguments)]
    async fn replace(
        &self,
        #[oai(scope = "Permission::TaskWrite")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        trace: Traceparent,
        /// The task's id.
        id: Path<Uuid>,
        /// The `ETag` of the task as the client knows it. If the task has another version by now, nothing is
        /// done. `*` accepts any version.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
        body: JsonBody<WholeTask>,
    ) -> Result<Changed, ApiError> {
        let if_match = asserted(if_match.0.as_deref())?;
        let change = Change::Task(domain::TaskChange::Replace {
            task_id: id.0,
            fields: body.0.parse()?,
            if_match,
        });
        let operation = operation(&state, user.0, change, request, trace);
        change_task(&state, operation).await
    }

    /// Change some fields of a task.
    ///
    /// Fields that the body does not name stay as they are.
    #[oai(path = "/tasks/:id", method = "patch", operation_id = "changeTask")]
    #[allow(clippy::too_many_arguments)]
    async fn change(
        &self,
        #[oai(scope = "Permission::TaskWrite")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        trace: Traceparent,
        /// The task's id.
        id: Path<Uuid>,
        /// The `ETag` of the task as the client knows it. If the task has another version by now, nothing is
        /// done. `*` accepts any version.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
        body: JsonBody<TaskChange>,
    ) -> Result<Changed, ApiError> {
        let if_match = asserted(if_match.0.as_deref())?;
        let change = Change::Task(domain::TaskChange::Patch {
            task_id: id.0,
            patch: body.0.parse()?,
            if_match,
        });
        let operation = operation(&state, user.0, change, request, trace);
        change_task(&state, operation).await
    }

    /// Delete a task for good.
    #[oai(path = "/tasks/:id", method = "delete", operation_id = "deleteTask")]
    async fn delete(
        &self,
        #[oai(scope = "Permission::TaskWrite")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        trace: Traceparent,
        /// The task's id.
        id: Path<Uuid>,
        /// The `ETag` of the task as the client knows it. If the task has another version by now, nothing is
        /// done. `*` accepts any version.
        #[oai(name = "If-Match")]
        if_match: Header<Option<String>>,
    ) -> Result<Deleted, ApiError> {
        let if_match = asserted(if_match.0.as_deref())?;
        let change = Change::Task(domain::TaskChange::Delete { task_id: id.0, if_match });
        let operation = operation(&state, user.0, change, request, trace);
        Ok(match submit(&state, operation).await? {
            Accepted::Committed { .. } | Accepted::Repeated { .. } => Deleted::Committed,
            Accepted::Buffered(Buffered { location, meta, .. }) => {
                let body = TaskDeleted { data: DeletedTask { id: id.0 }, meta };
                Deleted::Buffered(body.into(), location)
            }
        })
    }
}

async fn change_task(state: &State, operation: Operation) -> Result<Changed, ApiError> {
    let (accepted, data) = write(state, operation).await?;
    let etag = etag(&data);
    Ok(match accepted {
        Accepted::Committed { meta, .. } | Accepted::Repeated { meta, .. } => {
            Changed::Committed(TaskWritten { data, meta }.into(), etag)
        }
        Accepted::Buffered(Buffered { location, meta, .. }) => {
            Changed::Buffered(TaskWritten { data, meta }.into(), location, etag)
        }
    })
}

/// Submits an operation on a task and tells how the task looks after it.
async fn write(state: &State, operation: Operation) -> Result<(Accepted, TaskView), ApiError> {
    let asked = operation.clone();
    let accepted = submit(state, operation).await?;
    let view = match &accepted {
        Accepted::Committed { entity, .. } | Accepted::Repeated { entity, .. } => {
            let task = entity.clone().and_then(Entity::into_task);
            task.map_or_else(|| TaskView::asked(&asked), TaskView::of)
        }
        Accepted::Buffered(Buffered { operation_id, .. }) => {
            reads::after(state, &Operation { id: *operation_id, ..asked }).await
        }
    };
    Ok((accepted, view))
}

fn etag(view: &TaskView) -> String {
    format!("\"{}\"", view.version)
}

/// The version in an `If-Match` header. `*` asks for no more than that the task is there, which a
/// change does anyway.
fn asserted(header: Option<&str>) -> Result<Option<Version>, ApiError> {
    let Some(text) = header.map(str::trim).filter(|text| *text != "*") else { return Ok(None) };
    if text.is_empty() {
        // A list without any ETag: no task has one of them.
        return Err(Refusal::PreconditionFailed(EntityKind::Task).into());
    }
    text.strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .and_then(|text| text.parse().ok())
        .map(Some)
        .ok_or_else(|| ApiError::parameter("If-Match", "must be one ETag of this task, or *"))
}

fn check_key(key: &str) -> Result<&str, ApiError> {
    let fits = (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    let message = "must have 1 to 255 visible ASCII characters";
    if fits { Ok(key) } else { Err(ApiError::parameter("Idempotency-Key", message)) }
}
