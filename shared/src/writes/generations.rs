//! The generation of each user's set of tasks: a number that grows when this process may have changed
//! how many tasks the user has.
//!
//! Whoever counts tasks notes the generation before, and keeps the result under it. A count that began
//! before a write and ended after it is then kept under a generation that nobody asks for any more.
//! Users share a fixed number of counters, by their ids, so that memory does not grow with users. Users
//! on one counter forget their counts together, which costs a count and is never wrong.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use crate::domain::{Change, Operation, TaskChange, UserChange};

/// Counters (a power of two; 128 KiB). With 30,000 creates a second each of them grows twice a second.
const COUNTERS: usize = 1 << 14;

/// The generations of all users' sets of tasks, as far as this process writes them.
#[derive(Debug)]
pub(super) struct Generations(Box<[AtomicU64]>);

impl Default for Generations {
    fn default() -> Self {
        Self((0..COUNTERS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Generations {
    /// The present generation of a user's tasks.
    pub(super) fn of(&self, user_id: Uuid) -> u64 {
        self.counter(user_id).map_or(0, |counter| counter.load(Ordering::Acquire))
    }

    /// Begins a new generation for the user whose number of tasks has perhaps changed
    /// ([`counted_user`]). To be called when the change is durable and before it is answered.
    pub(super) fn begin(&self, user_id: Option<Uuid>) {
        if let Some(counter) = user_id.and_then(|user_id| self.counter(user_id)) {
            counter.fetch_add(1, Ordering::Release);
        }
    }

    fn counter(&self, user_id: Uuid) -> Option<&AtomicU64> {
        // The last bytes are random in ids of every version that users have.
        let bits = user_id.as_u128() & (COUNTERS as u128 - 1);
        self.0.get(usize::try_from(bits).ok()?)
    }
}

/// Whose number of tasks an operation may change.
pub(super) fn counted_user(operation: &Operation) -> Option<Uuid> {
    match &operation.change {
        Change::Task(TaskChange::Create { .. } | TaskChange::Delete { .. }) => {
            Some(operation.actor.user_id)
        }
        Change::User(UserChange::Erase { user_id }) => Some(*user_id),
        Change::Task(TaskChange::Replace { .. } | TaskChange::Patch { .. })
        | Change::User(UserChange::SetStanding { .. })
        | Change::Profile(_)
        | Change::Session(_)
        | Change::Cache(_) => None,
    }
}
