//! A page of a user's tasks, pending ones in their places.
//!
//! Tasks with pending operations are left out of what is asked of PostgreSQL and put back as they
//! look with those laid over them. If `k` tasks are put back, the page that begins at `offset` can
//! begin no earlier than at entry `offset - k` of the rest, so that is where the window into the
//! rest begins: cost grows with the page and with `k`, not with the number of tasks.

use std::cmp::Reverse;
use std::collections::HashMap;

use shared::domain::{Base, EntityKind, Operation, Seen, Task, see_task};
use shared::store::TaskPage;
use uuid::Uuid;

use super::view::TaskView;
use crate::http::{ApiError, Source};
use crate::state::State;

/// A page of tasks.
#[derive(Debug)]
pub struct Listed {
    /// The tasks, newest first.
    pub tasks: Vec<TaskView>,
    /// All tasks of the user, on this page or not.
    pub total: u64,
    /// Where they come from.
    pub source: Source,
    /// True if PostgreSQL could not be asked: there may be more tasks than these.
    pub stale: bool,
}

/// A page of a user's tasks, newest first.
///
/// # Errors
/// If the buffer cannot be read.
pub async fn task_list(
    state: &State,
    user_id: Uuid,
    offset: u64,
    limit: u64,
) -> Result<Listed, ApiError> {
    let mut pending: HashMap<Uuid, Vec<Operation>> = HashMap::new();
    for operation in state.buffer.of_user(user_id).await? {
        let lane = operation.lane();
        if lane.kind == EntityKind::Task {
            pending.entry(lane.id).or_default().push(operation);
        }
    }
    let source = if pending.is_empty() { Source::Database } else { Source::Overlay };
    let ids: Vec<Uuid> = pending.keys().copied().collect();
    let start = offset.saturating_sub(u64::try_from(ids.len()).unwrap_or(u64::MAX));
    let stored = stored(state, user_id, ids, start, offset + limit - start).await;
    let stale = stored.is_none();
    let (bases, page) = match stored {
        Some((bases, page)) => (Some(bases), page),
        None => (None, TaskPage::default()),
    };
    let mut laid_over: Vec<Entry> = pending
        .iter()
        .filter_map(|(id, operations)| {
            let base =
                bases.as_ref().map_or(Base::Unknown, |bases| Base::Read(bases.get(id).cloned()));
            Entry::seen(see_task(base, operations, user_id))
        })
        .collect();
    let total = page.total + u64::try_from(laid_over.len()).unwrap_or(0);
    laid_over.extend(page.tasks.iter().map(Entry::stored));
    laid_over.sort_by_key(|entry| Reverse(entry.order));
    // Everything before the window is accounted for by position: entries of the rest before
    // `start` come first, so the page begins `offset - start` entries into what was merged.
    let skip = usize::try_from(offset - start).unwrap_or(usize::MAX);
    let take = usize::try_from(limit).unwrap_or(usize::MAX);
    let tasks = laid_over.into_iter().skip(skip).take(take).map(|entry| entry.view).collect();
    Ok(Listed { tasks, total, source, stale })
}

/// What PostgreSQL has, if it can be asked: the tasks with pending operations, and the window into
/// the rest.
async fn stored(
    state: &State,
    user_id: Uuid,
    ids: Vec<Uuid>,
    start: u64,
    length: u64,
) -> Option<(HashMap<Uuid, Task>, TaskPage)> {
    if !state.link.is_up() {
        return None;
    }
    let bases = async {
        if ids.is_empty() { Ok(Vec::new()) } else { state.store.tasks(ids.clone()).await }
    };
    let page = state.store.task_page(user_id, ids.clone(), start, length);
    match tokio::try_join!(bases, page) {
        Ok((bases, page)) => Some((bases.into_iter().map(|task| (task.id, task)).collect(), page)),
        Err(error) => {
            state.link.report(error);
            None
        }
    }
}

/// A task and its place in the list.
struct Entry {
    order: (i64, Uuid),
    view: TaskView,
}

impl Entry {
    fn stored(task: &Task) -> Self {
        Self { order: (task.created_at.timestamp_micros(), task.id), view: TaskView::of(task) }
    }

    /// A task with pending operations; `None` if the user does not see it. One whose beginnings are
    /// not known stands at the end.
    fn seen(seen: Seen) -> Option<Self> {
        match seen {
            Seen::Whole(task) => Some(Self::stored(&task)),
            Seen::Part(part) => {
                Some(Self { order: (i64::MIN, part.id), view: TaskView::part(&part) })
            }
            Seen::Absent | Seen::Unknown => None,
        }
    }
}
