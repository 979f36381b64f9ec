//! One task, as one user sees it.

use shared::domain::{EntityKind, Lane, Operation, Seen, Version, see_task};
use uuid::Uuid;

use super::error::ReadError;
use super::gather::{Known, last_known};
use super::{Found, source};
use crate::shapes::TaskView;
use crate::state::State;

fn lane(id: Uuid) -> Lane {
    Lane { kind: EntityKind::Task, id }
}

/// A task.
///
/// # Errors
/// If it is not there, deleted or somebody else's; if neither PostgreSQL nor the buffer can tell.
pub async fn task(state: &State, viewer: Uuid, id: Uuid) -> Result<Found<TaskView>, ReadError> {
    let Known { pending, base, cached, stale } = state.reader.known(id).await?;
    let source = source(&pending, cached);
    let view = match see_task(base, &pending, viewer) {
        Seen::Whole(task) => TaskView::of(task),
        Seen::Part(part) => TaskView::part(part),
        Seen::Absent => return Err(ReadError::NotFound(EntityKind::Task)),
        Seen::Unknown => return Err(ReadError::Unknown),
    };
    Ok(Found { view, source, stale })
}

/// How a task looks after an operation that has just been buffered. Where it cannot be read any
/// more (another delete, replay meanwhile), what the operation itself says.
pub async fn after(state: &State, operation: &Operation) -> TaskView {
    if operation.opens_its_lane() {
        return TaskView::asked(operation);
    }
    let Ok(Known { mut pending, base, .. }) = state.reader.known(operation.lane().id).await else {
        return TaskView::asked(operation);
    };
    if pending.is_empty() {
        pending.push(operation.clone());
    }
    match see_task(base, &pending, operation.actor.user_id) {
        Seen::Whole(task) => TaskView::of(task),
        Seen::Part(part) => TaskView::part(part),
        Seen::Absent | Seen::Unknown => TaskView::asked(operation),
    }
}

/// The task that a pending create is going to make, with that operation's id, if there is one and
/// it is the viewer's.
///
/// # Errors
/// If the buffer cannot be read, or the task's delete is pending as well.
pub async fn pending_create(
    state: &State,
    viewer: Uuid,
    id: Uuid,
) -> Result<Option<(Version, TaskView)>, ReadError> {
    let pending = state.buffer.lane(lane(id)).await?;
    let create = pending
        .iter()
        .find(|operation| operation.creates().is_some() && operation.actor.user_id == viewer);
    let Some(create) = create else { return Ok(None) };
    let view = match see_task(last_known(state.writes.known(), id), &pending, viewer) {
        Seen::Whole(task) => TaskView::of(task),
        Seen::Part(part) => TaskView::part(part),
        Seen::Absent => return Err(ReadError::Deleted),
        Seen::Unknown => return Ok(None),
    };
    // What was read may be on its way to the disk only, and the answer says that it is there.
    Ok(state.buffer.is_kept(create.id).await?.then_some((create.id, view)))
}
