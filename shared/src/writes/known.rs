//! Tasks with an id from an idempotency key, as this process last committed them.
//!
//! Their creates may be repeated in an outage, when PostgreSQL cannot tell that the task was changed or
//! deleted since. What this process has done itself it need not ask for.

use moka::sync::Cache;
use uuid::Uuid;

use crate::domain::Task;

/// Bytes of all of them at the most.
const BYTES: u64 = 8 << 20;
/// Bytes of a task besides its texts, at the most, with what keeping it takes.
const FIXED: usize = 512;

/// Tasks as this process last committed them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct KnownTasks {
    tasks: Cache<Uuid, Task>,
}

impl Default for KnownTasks {
    fn default() -> Self {
        let tasks = Cache::builder()
            .max_capacity(BYTES)
            .weigher(|_, task| weight(task))
            .support_invalidation_closures()
            .build();
        Self { tasks }
    }
}

impl KnownTasks {
    /// Takes note of a task just after a commit of this process.
    pub fn note(&self, task: &Task) {
        if is_repeatable(task.id) {
            self.tasks.insert(task.id, task.clone());
        }
    }

    /// A task, a deleted one included, as this process last committed it. Others may have changed it
    /// since.
    #[must_use]
    pub fn get(&self, id: Uuid) -> Option<Task> {
        if is_repeatable(id) { self.tasks.get(&id) } else { None }
    }

    /// Whether this process knows that a task was deleted: that is final.
    #[must_use]
    pub fn is_deleted(&self, id: Uuid) -> bool {
        self.get(id).is_some_and(|task| task.deleted_at.is_some())
    }

    /// Forgets the tasks of a user who is being erased.
    pub fn forget_user(&self, user_id: Uuid) {
        // Refused only where closures are not supported.
        let _ = self.tasks.invalidate_entries_if(move |_, task| task.user_id == user_id);
    }
}

/// Whether a task's id comes from an idempotency key.
fn is_repeatable(id: Uuid) -> bool {
    id.get_version_num() != 7
}

fn weight(task: &Task) -> u32 {
    let title = task.title.as_ref().map_or(0, |title| title.as_str().len());
    let description = task.description.as_ref().map_or(0, |text| text.as_str().len());
    u32::try_from(FIXED + title + description).unwrap_or(u32::MAX)
}
