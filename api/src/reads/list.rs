//! A page of a user's tasks, pending ones in their places.
//!
//! Tasks with pending operations are left out of what is asked of PostgreSQL and put back as they
//! look with those laid over them. If `k` tasks are put back, the page that begins at `offset` can
//! begin no earlier than at entry `offset - k` of the rest, so that is where the window into the
//! rest begins; a page past a task begins there. Cost grows with the page and with `k`, not with the
//! number of tasks; only a page by a far offset is looked for, and the total is counted, from the
//! beginning. The total of a user who writes nothing is counted twice a second at the most
//! ([`Totals`]). With pending operations it is counted for each list: the worker brings them to
//! PostgreSQL at any moment, and no write through this process tells when.

use std::collections::HashMap;

use chrono::DateTime;
use shared::domain::{Base, EntityKind, Operation, Seen, Task, see_task};
use shared::host_clock::version_of_task;
use shared::store::{ListOrder, ListPosition, PageStart, StoreError, TaskFilter, TaskQuery};
use uuid::Uuid;

use super::error::ReadError;
use super::gather::last_known;
use crate::shapes::{Source, TaskView};
use crate::state::State;

/// A page of tasks.
#[derive(Debug)]
pub struct Listed {
    /// The tasks, in order.
    pub tasks: Vec<TaskView>,
    /// All tasks that match, on this page or not.
    pub total: u64,
    /// Where the last task of the page stands, if there are more past it.
    pub next: Option<ListPosition>,
    /// Where they come from.
    pub source: Source,
    /// True if PostgreSQL could not be asked: there may be more tasks than these.
    pub stale: bool,
}

/// A page of a user's tasks.
///
/// # Errors
/// If the buffer cannot be read.
pub async fn task_list(state: &State, query: &TaskQuery) -> Result<Listed, ReadError> {
    // Before the buffer is looked into: what leaves it from now on makes another generation.
    let generation = state.writes.generation(query.user_id);
    let mut pending: HashMap<Uuid, Vec<Operation>> = HashMap::new();
    for operation in state.buffer.of_user(query.user_id).await? {
        let lane = operation.lane();
        if lane.kind == EntityKind::Task {
            pending.entry(lane.id).or_default().push(operation);
        }
    }
    let source = if pending.is_empty() { Source::Database } else { Source::Overlay };
    let ids: Vec<Uuid> = pending.keys().copied().collect();
    let window = Window::of(query, ids.len());
    let asked = Asked { query, generation, window: &window, ids };
    let stored = if state.link.is_up() { stored(state, asked).await } else { None };
    let stale = stored.is_none();
    let stored = stored.unwrap_or_default();
    let seen = pending.iter().filter_map(|(id, operations)| {
        let base = if stale {
            last_known(state.writes.known(), *id)
        } else {
            Base::Read(stored.bases.get(id).cloned())
        };
        Entry::seen(see_task(base, operations, query.user_id))
    });
    let mut entries: Vec<Entry> =
        seen.filter(|entry| matches(&entry.view, &query.filter)).collect();
    let total = stored.total + unsigned(entries.len());
    if let PageStart::After((at, id)) = query.start {
        let past = (at.timestamp_micros(), id);
        entries.retain(|entry| match query.order {
            ListOrder::Descending => entry.order < past,
            ListOrder::Ascending => entry.order > past,
        });
    }
    entries.extend(stored.rest.into_iter().map(Entry::stored));
    entries.sort_unstable_by(|one, other| match query.order {
        ListOrder::Descending => other.order.cmp(&one.order),
        ListOrder::Ascending => one.order.cmp(&other.order),
    });
    let mut page: Vec<Entry> = entries.into_iter().skip(window.skip).collect();
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| more).map(Entry::position);
    let tasks = page.into_iter().map(|entry| entry.view).collect();
    Ok(Listed { tasks, total, next, source, stale })
}

/// What is asked of PostgreSQL for a page.
struct Window {
    start: PageStart,
    length: u64,
    /// Entries before the page among those that were merged.
    skip: usize,
}

impl Window {
    /// With one entry past the page, which tells whether there is another.
    fn of(query: &TaskQuery, put_back: usize) -> Self {
        match query.start {
            PageStart::After(_) => Self { start: query.start, length: query.limit + 1, skip: 0 },
            PageStart::Offset(offset) => {
                let start = offset.saturating_sub(unsigned(put_back));
                let before = offset - start;
                let skip = usize::try_from(before).unwrap_or(usize::MAX);
                Self { start: PageStart::Offset(start), length: query.limit + before + 1, skip }
            }
        }
    }
}

/// What PostgreSQL has.
#[derive(Default)]
struct Stored {
    /// The tasks with pending operations.
    bases: HashMap<Uuid, Task>,
    /// The window into the rest.
    rest: Vec<Task>,
    /// How many of the rest match.
    total: u64,
}

/// What PostgreSQL is asked for.
struct Asked<'a> {
    query: &'a TaskQuery,
    /// Of the user's set of tasks, from before the buffer was looked into.
    generation: u64,
    window: &'a Window,
    /// The tasks with pending operations.
    ids: Vec<Uuid>,
}

async fn stored(state: &State, asked: Asked<'_>) -> Option<Stored> {
    let Asked { query, generation, window, ids } = asked;
    let bases = async {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let found = state.store.tasks(ids.clone()).await?.into_iter();
        found.map(|(id, task)| Ok((id, task?))).collect::<Result<HashMap<Uuid, Task>, StoreError>>()
    };
    let asked = TaskQuery { start: window.start, limit: window.length, ..query.clone() };
    // The semaphore is never closed; if it were, there would be no limit, and no harm.
    let _turn = state.listing.acquire().await;
    let rest = state.store.task_page(&asked, ids.clone());
    let total = total(state, query, generation, ids.clone());
    match tokio::try_join!(bases, rest, total) {
        Ok((bases, rest, total)) => {
            let versions: Vec<_> = bases.values().chain(&rest).map(version_of_task).collect();
            state.clock.saw(versions).await;
            Some(Stored { bases, rest, total })
        }
        // A list of very many tasks may take too long by itself: whether it did, a probe tells.
        Err(StoreError::TimedOut) => {
            let _ = state.link.probe(&state.store).await;
            None
        }
        Err(error) => {
            state.link.report(error);
            None
        }
    }
}

/// How many tasks match in PostgreSQL, those with pending operations (`ids`) left out.
async fn total(
    state: &State,
    query: &TaskQuery,
    generation: u64,
    ids: Vec<Uuid>,
) -> Result<u64, StoreError> {
    let may_be_kept = query.filter.is_empty() && ids.is_empty();
    let count = state.store.task_count(query.user_id, &query.filter, ids);
    if may_be_kept { state.totals.get(query.user_id, generation, count).await } else { count.await }
}

/// Whether a task is one that is asked for, as far as is known.
fn matches(view: &TaskView, filter: &TaskFilter) -> bool {
    let status =
        filter.status.is_none_or(|status| view.status.0.is_none_or(|is| is == status.into()));
    let title = filter.title.as_ref().is_none_or(|text| {
        let within = |title: &String| title.to_lowercase().contains(&text.to_lowercase());
        view.title.0.as_ref().is_none_or(within)
    });
    status && title
}

/// A task and its place in the list.
struct Entry {
    order: (i64, Uuid),
    view: TaskView,
}

impl Entry {
    fn stored(task: Task) -> Self {
        Self { order: (task.created_at.timestamp_micros(), task.id), view: TaskView::of(task) }
    }

    /// A task with pending operations; `None` if the user does not see it. One whose beginnings are
    /// not known counts as the oldest.
    fn seen(seen: Seen) -> Option<Self> {
        match seen {
            Seen::Whole(task) => Some(Self::stored(task)),
            Seen::Part(part) => {
                let begun = part.created_at.map_or(0, |at| at.timestamp_micros());
                Some(Self { order: (begun, part.id), view: TaskView::part(part) })
            }
            Seen::Absent | Seen::Unknown => None,
        }
    }

    fn position(&self) -> ListPosition {
        (DateTime::from_timestamp_micros(self.order.0).unwrap_or_default(), self.order.1)
    }
}

fn unsigned(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
