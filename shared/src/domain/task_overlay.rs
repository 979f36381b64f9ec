//! A task as one user sees it, with its pending operations.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::overlay::Overlay;
use super::{
    Base, Description, Operation, Seen, Task, TaskChange, TaskPatch, TaskStatus, TaskVersions,
    Title, Version, apply_to_task,
};

const TASKS: Overlay<Task, TaskPart> = Overlay {
    apply: apply_to_task,
    add: TaskPart::after,
    is_seen_by: |task, viewer| task.user_id == viewer && task.deleted_at.is_none(),
};

/// Lays a task's pending operations, oldest first, over what is known of it, for `viewer`.
#[must_use]
pub fn see_task(base: Base, pending: &[Operation], viewer: Uuid) -> Seen {
    TASKS.see(base, pending, viewer)
}

/// The fields that pending operations set of a task that cannot be read.
#[derive(Clone, Debug)]
pub struct TaskPart {
    /// The task's id.
    pub id: Uuid,
    /// The title, if set.
    pub title: Option<Title>,
    /// The description, if set; `Some(None)` if cleared.
    pub description: Option<Option<Description>>,
    /// The status, if set.
    pub status: Option<TaskStatus>,
    /// When the create was accepted, if one is pending. An earlier one may have made the task.
    pub created_at: Option<DateTime<Utc>>,
    /// When the newest pending operation was accepted.
    pub updated_at: DateTime<Utc>,
    /// The operations that set the fields; [`Version::NONE`] where none did.
    versions: TaskVersions,
}

impl TaskPart {
    /// The newest of what is pending.
    #[must_use]
    pub fn version(&self) -> Version {
        self.versions.newest()
    }

    /// Whether the task may have the version that a client asserts with `If-Match`. Where edits are
    /// pending, the newest is its version as far as this client can know. Where there is a create
    /// alone, that may be a repeated one, of a task that was changed since.
    #[must_use]
    pub fn may_have(&self, asserted: Version) -> bool {
        let newest = self.version();
        asserted == newest || newest == Version::of_create(self.id)
    }

    /// What is known of a task after an operation on it; `None` if that deletes it.
    fn after(part: Option<Self>, operation: &Operation) -> Option<Self> {
        let part = part.unwrap_or_else(|| Self::of_nothing(operation));
        let Some(change) = operation.change.on_task() else { return Some(part) };
        match change {
            TaskChange::Create { task_id, fields } => {
                let created_at = part.created_at.or(Some(operation.accepted_at));
                let version = Version::of_create(*task_id);
                let part = part.set(fields.clone().into(), version, operation);
                Some(Self { created_at, ..part })
            }
            TaskChange::Replace { fields, .. } => {
                Some(part.set(fields.clone().into(), operation.id, operation))
            }
            TaskChange::Patch { patch, .. } => {
                Some(part.set(patch.clone(), operation.id, operation))
            }
            TaskChange::Delete { .. } => None,
        }
    }

    fn of_nothing(operation: &Operation) -> Self {
        Self {
            id: operation.lane().id,
            title: None,
            description: None,
            status: None,
            created_at: None,
            updated_at: operation.accepted_at,
            versions: TaskVersions::all(Version::NONE),
        }
    }

    fn set(mut self, patch: TaskPatch, version: Version, operation: &Operation) -> Self {
        let versions = &mut self.versions;
        if patch.title.is_some() && version > versions.title {
            (self.title, versions.title) = (patch.title, version);
        }
        if patch.description.is_some() && version > versions.description {
            (self.description, versions.description) = (patch.description, version);
        }
        if patch.status.is_some() && version > versions.status {
            (self.status, versions.status) = (patch.status, version);
        }
        self.updated_at = self.updated_at.max(operation.accepted_at);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Change;
    use crate::domain::{Actor, Clock, Role, TaskFields};

    const OWNER: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);
    /// One that was drawn, and one that comes from an idempotency key.
    const TASK: Uuid = Uuid::from_u128(0x7 << 76 | 0b10 << 62 | 3);
    const KEYED: Uuid = Uuid::from_u128(0x5 << 76 | 0b10 << 62 | 3);

    fn operation(clock: &Clock, user_id: Uuid, change: Change) -> Operation {
        Operation {
            id: clock.next(),
            actor: Actor { user_id, role: Role::User, session_id: None },
            change,
            accepted_at: Utc::now(),
            request_id: Uuid::nil(),
            traceparent: None,
        }
    }

    fn create() -> Change {
        let title = Title::stored("first".to_owned());
        let fields = TaskFields { title, description: None, status: TaskStatus::Pending };
        Change::Task(TaskChange::Create { task_id: TASK, fields })
    }

    fn rename(title: &str) -> Change {
        let patch =
            TaskPatch { title: Some(Title::stored(title.to_owned())), ..TaskPatch::default() };
        Change::Task(TaskChange::Patch { task_id: TASK, patch, if_match: None })
    }

    fn delete() -> Change {
        Change::Task(TaskChange::Delete { task_id: TASK, if_match: None })
    }

    #[test]
    fn a_pending_create_and_its_changes_are_seen_whole_by_its_owner_alone() {
        let clock = Clock::default();
        let mut pending =
            vec![operation(&clock, OWNER, create()), operation(&clock, OTHER, rename("stolen"))];
        pending.push(operation(&clock, OWNER, rename("second")));
        match see_task(Base::Unknown, &pending, OWNER) {
            Seen::Whole(task) => assert_eq!(task.title.unwrap().as_str(), "second"),
            seen => panic!("{seen:?}"),
        }
        assert!(matches!(see_task(Base::Unknown, &pending, OTHER), Seen::Absent));
        pending.push(operation(&clock, OWNER, delete()));
        assert!(matches!(see_task(Base::Unknown, &pending, OWNER), Seen::Absent));
    }

    fn edit(clock: &Clock, title: &str) -> Operation {
        let patch =
            TaskPatch { title: Some(Title::stored(title.to_owned())), ..TaskPatch::default() };
        operation(
            clock,
            OWNER,
            Change::Task(TaskChange::Patch { task_id: KEYED, patch, if_match: None }),
        )
    }

    fn keyed_create(clock: &Clock) -> Operation {
        let title = Title::stored("of the create".to_owned());
        let fields = TaskFields { title, description: None, status: TaskStatus::Pending };
        operation(clock, OWNER, Change::Task(TaskChange::Create { task_id: KEYED, fields }))
    }

    fn part(base: Base, pending: &[Operation]) -> TaskPart {
        match see_task(base, pending, OWNER) {
            Seen::Part(part) => part,
            seen => panic!("{seen:?}"),
        }
    }

    #[test]
    fn a_repeated_create_hides_nothing_and_judges_no_version() {
        let clock = Clock::default();
        let (before, create, after) =
            (edit(&clock, "before"), keyed_create(&clock), edit(&clock, "after"));
        let alone = part(Base::Unknown, std::slice::from_ref(&create));
        assert_eq!(alone.title.as_ref().unwrap().as_str(), "of the create");
        assert!(alone.may_have(clock.next()) && alone.may_have(Version::of_create(KEYED)));
        let behind = part(Base::Unknown, &[before.clone(), create.clone()]);
        assert_eq!(behind.title.as_ref().unwrap().as_str(), "before");
        assert_eq!(behind.status, Some(TaskStatus::Pending));
        assert!(behind.may_have(before.id) && !behind.may_have(clock.next()));
        let edited = part(Base::Unknown, &[create.clone(), after]);
        assert_eq!(edited.title.as_ref().unwrap().as_str(), "after");
        let mut stored = None;
        apply_to_task(&mut stored, &create);
        apply_to_task(&mut stored, &before);
        match see_task(Base::Read(stored), &[create], OWNER) {
            Seen::Whole(task) => assert_eq!(task.title.unwrap().as_str(), "before"),
            seen => panic!("{seen:?}"),
        }
    }

    #[test]
    fn the_newest_write_counts_whatever_the_order_in_the_lane() {
        let clock = Clock::default();
        let (older, newer) = (edit(&clock, "older"), edit(&clock, "newer"));
        let pending = [newer.clone(), older];
        let seen = part(Base::Unknown, &pending);
        assert_eq!((seen.title.as_ref().unwrap().as_str(), seen.version()), ("newer", newer.id));
        assert_eq!(part(Base::Read(None), &pending).version(), newer.id, "its create may come yet");
    }

    #[test]
    fn changes_of_a_task_that_cannot_be_read_are_seen_in_part_by_who_made_them() {
        let clock = Clock::default();
        let mut pending = vec![operation(&clock, OWNER, rename("mine"))];
        match see_task(Base::Unknown, &pending, OWNER) {
            Seen::Part(part) => {
                assert_eq!(part.title.unwrap().as_str(), "mine");
                assert_eq!((part.description, part.status), (None, None));
            }
            seen => panic!("{seen:?}"),
        }
        assert!(matches!(see_task(Base::Unknown, &pending, OTHER), Seen::Unknown));
        pending.push(operation(&clock, OWNER, delete()));
        assert!(matches!(see_task(Base::Unknown, &pending, OWNER), Seen::Absent));
        assert!(matches!(see_task(Base::Read(None), &pending, OWNER), Seen::Absent));
    }
}
