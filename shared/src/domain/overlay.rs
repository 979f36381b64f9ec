//! What a user sees of a task when pending operations are laid over what was read, so that they
//! read their own writes.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    Change, Description, Operation, Task, TaskPatch, TaskStatus, Title, Version, apply_to_task,
};

/// What is known of a task apart from pending operations.
#[derive(Clone, Debug)]
pub enum Base {
    /// PostgreSQL could not be asked.
    Unknown,
    /// PostgreSQL was asked; `None`: the task is not there.
    Read(Option<Task>),
}

/// A task as one user sees it.
#[derive(Clone, Debug)]
pub enum Seen {
    /// This node cannot tell.
    Unknown,
    /// Not there, deleted, or somebody else's: to this user that is all the same.
    Absent,
    /// All of it.
    Whole(Task),
    /// What pending operations say of a task that cannot be read.
    Part(TaskPart),
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
    /// The newest of the pending operations.
    pub version: Version,
    /// When that was accepted.
    pub updated_at: DateTime<Utc>,
}

/// Lays a task's pending operations, oldest first, over what is known of it, for `viewer`.
#[must_use]
pub fn see_task(base: Base, pending: &[Operation], viewer: Uuid) -> Seen {
    let (mut seen, is_missing) = match base {
        Base::Unknown => (Seen::Unknown, false),
        // What changes it may wait for a create that another host still holds.
        Base::Read(None) => (Seen::Unknown, true),
        Base::Read(Some(task)) => (Seen::Whole(task), false),
    };
    for operation in pending {
        seen = match seen {
            Seen::Unknown => first_word(operation, viewer),
            Seen::Part(part) if operation.actor.user_id == viewer => more(part, operation),
            Seen::Part(part) => Seen::Part(part),
            Seen::Absent => over(None, operation),
            Seen::Whole(task) => over(Some(task), operation),
        };
    }
    match seen {
        Seen::Whole(task) if task.user_id != viewer || task.deleted_at.is_some() => Seen::Absent,
        Seen::Unknown if is_missing => Seen::Absent,
        seen => seen,
    }
}

fn whole(task: Option<Task>) -> Seen {
    task.map_or(Seen::Absent, Seen::Whole)
}

fn over(task: Option<Task>, operation: &Operation) -> Seen {
    let mut task = task;
    apply_to_task(&mut task, operation);
    whole(task)
}

/// What the first pending operation tells of a task of which nothing else is known.
fn first_word(operation: &Operation, viewer: Uuid) -> Seen {
    match &operation.change {
        Change::TaskCreate { .. } => over(None, operation),
        Change::TaskReplace { task_id, .. }
        | Change::TaskPatch { task_id, .. }
        | Change::TaskDelete { task_id, .. }
            if operation.actor.user_id == viewer =>
        {
            let part = TaskPart {
                id: *task_id,
                title: None,
                description: None,
                status: None,
                version: operation.id,
                updated_at: operation.accepted_at,
            };
            more(part, operation)
        }
        Change::TaskReplace { .. }
        | Change::TaskPatch { .. }
        | Change::TaskDelete { .. }
        | Change::ProfilePut { .. }
        | Change::ProfilePatch { .. }
        | Change::UserSetStanding { .. }
        | Change::UserErase { .. }
        | Change::SessionRevoke { .. }
        | Change::CacheInvalidate => Seen::Unknown,
    }
}

fn more(part: TaskPart, operation: &Operation) -> Seen {
    let patch: TaskPatch = match &operation.change {
        Change::TaskReplace { fields, .. } => fields.clone().into(),
        Change::TaskPatch { patch, .. } => patch.clone(),
        Change::TaskDelete { .. } => return Seen::Absent,
        Change::TaskCreate { .. }
        | Change::ProfilePut { .. }
        | Change::ProfilePatch { .. }
        | Change::UserSetStanding { .. }
        | Change::UserErase { .. }
        | Change::SessionRevoke { .. }
        | Change::CacheInvalidate => TaskPatch::default(),
    };
    Seen::Part(TaskPart {
        id: part.id,
        title: patch.title.or(part.title),
        description: patch.description.or(part.description),
        status: patch.status.or(part.status),
        version: part.version.max(operation.id),
        updated_at: part.updated_at.max(operation.accepted_at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Actor, Clock, Role, TaskFields};

    const OWNER: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);
    const TASK: Uuid = Uuid::from_u128(3);

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
        Change::TaskCreate { task_id: TASK, fields }
    }

    fn rename(title: &str) -> Change {
        let patch =
            TaskPatch { title: Some(Title::stored(title.to_owned())), ..TaskPatch::default() };
        Change::TaskPatch { task_id: TASK, patch, if_match: None }
    }

    fn delete() -> Change {
        Change::TaskDelete { task_id: TASK, if_match: None }
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
