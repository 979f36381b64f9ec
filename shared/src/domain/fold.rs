//! How one operation changes one entity: the rules of conflict, as pure functions.
//!
//! Each field carries the version that set it and an operation changes just the fields for which
//! it is newer, so the outcome does not depend on the order in which operations of different nodes
//! arrive. The fields of a create are older than every edit. A delete is final. The store folds a lane
//! with these functions before it writes, and the api lays pending operations over what it reads with the
//! same ones.

use uuid::Uuid;

use super::change::OnProfile;
use super::{
    EntityKind, Operation, Outcome, Preferences, Profile, ProfileChange, Refusal, Role, Standing,
    Task, TaskChange, TaskPatch, TaskVersions, UserChange, Version,
};

/// Applies an operation on a task to the task (`None`: there is none yet). Operations on anything
/// else are not found.
pub fn apply_to_task(task: &mut Option<Task>, operation: &Operation) -> Outcome {
    let kind = EntityKind::Task;
    let Some(change) = operation.change.on_task() else {
        return Outcome::Refused(Refusal::NotFound(operation.lane().kind));
    };
    if let TaskChange::Create { task_id, fields } = change {
        return create(task, *task_id, fields.clone().into(), operation);
    }
    let Some(task) = task else { return Outcome::Refused(Refusal::NotFound(kind)) };
    if task.user_id != operation.actor.user_id {
        return Outcome::Refused(Refusal::NotOwner(kind));
    }
    if task.deleted_at.is_some() {
        return Outcome::Gone;
    }
    if let Some(asserted) = change.if_match() {
        let newest = task.versions.newest();
        if asserted > newest {
            return Outcome::Refused(Refusal::VersionNotFound(kind));
        }
        if asserted < newest {
            return Outcome::Refused(Refusal::PreconditionFailed(kind));
        }
    }
    match change {
        TaskChange::Create { .. } => Outcome::Duplicate,
        TaskChange::Replace { fields, .. } => set(task, fields.clone().into(), operation),
        TaskChange::Patch { patch, .. } => set(task, patch.clone(), operation),
        TaskChange::Delete { .. } => {
            bury(task, operation);
            Outcome::Applied
        }
    }
}

fn create(
    task: &mut Option<Task>,
    task_id: Uuid,
    fields: TaskPatch,
    operation: &Operation,
) -> Outcome {
    match task {
        Some(present) if present.user_id != operation.actor.user_id => {
            Outcome::Refused(Refusal::NotOwner(EntityKind::Task))
        }
        Some(present) if present.deleted_at.is_some() => Outcome::Gone,
        Some(_) => Outcome::Duplicate,
        None => {
            *task = Some(Task {
                id: task_id,
                user_id: operation.actor.user_id,
                title: fields.title,
                description: fields.description.flatten(),
                status: fields.status.unwrap_or_default(),
                versions: TaskVersions::all(Version::of_create(task_id)),
                deleted_at: None,
                created_at: operation.accepted_at,
                updated_at: operation.accepted_at,
            });
            Outcome::Applied
        }
    }
}

fn set(task: &mut Task, patch: TaskPatch, operation: &Operation) -> Outcome {
    let mut tally = Tally::default();
    let versions = &mut task.versions;
    if let Some(title) = patch.title
        && tally.wins(&mut versions.title, operation.id)
    {
        task.title = Some(title);
    }
    if let Some(description) = patch.description
        && tally.wins(&mut versions.description, operation.id)
    {
        task.description = description;
    }
    if let Some(status) = patch.status
        && tally.wins(&mut versions.status, operation.id)
    {
        task.status = status;
    }
    let outcome = tally.outcome();
    if outcome.changed() {
        task.updated_at = task.updated_at.max(operation.accepted_at);
    }
    outcome
}

fn bury(task: &mut Task, operation: &Operation) {
    task.title = None;
    task.description = None;
    task.deleted_at = Some(operation.accepted_at);
    task.updated_at = task.updated_at.max(operation.accepted_at);
}

/// Applies an operation on a profile to the profile. Operations on anything else are not found.
pub fn apply_to_profile(profile: &mut Profile, operation: &Operation) -> Outcome {
    match operation.change.on_profile() {
        Some(OnProfile::Own(change)) => apply_own(profile, change, operation),
        Some(OnProfile::ByAdmin(change)) => apply_by_admin(profile, change, operation),
        None => Outcome::Refused(Refusal::NotFound(operation.lane().kind)),
    }
}

fn apply_own(profile: &mut Profile, change: &ProfileChange, operation: &Operation) -> Outcome {
    if profile.user_id != operation.actor.user_id {
        return Outcome::Refused(Refusal::NotOwner(EntityKind::Profile));
    }
    if profile.erased_at.is_some() {
        return Outcome::Gone;
    }
    prefer(profile, change.preferences(), operation)
}

fn apply_by_admin(profile: &mut Profile, change: &UserChange, operation: &Operation) -> Outcome {
    if operation.actor.role != Role::Admin {
        return Outcome::Refused(Refusal::NotAllowed);
    }
    if profile.erased_at.is_some() {
        return Outcome::Gone;
    }
    match change {
        UserChange::SetStanding { role, standing, .. } => {
            set_standing(profile, *role, *standing, operation)
        }
        UserChange::Erase { .. } => {
            erase(profile, operation);
            Outcome::Applied
        }
    }
}

fn set_standing(
    profile: &mut Profile,
    role: Option<Role>,
    standing: Option<Standing>,
    operation: &Operation,
) -> Outcome {
    let mut tally = Tally::default();
    if let Some(role) = role
        && tally.wins(&mut profile.versions.role, operation.id)
    {
        profile.role = role;
    }
    if let Some(standing) = standing
        && tally.wins(&mut profile.versions.standing, operation.id)
    {
        profile.standing = standing;
    }
    let outcome = tally.outcome();
    if outcome.changed() {
        profile.updated_at = profile.updated_at.max(operation.accepted_at);
    }
    outcome
}

/// Erased users are suspended for good: what other nodes still hold of them is refused.
fn erase(profile: &mut Profile, operation: &Operation) {
    let versions = &mut profile.versions;
    for version in [&mut versions.role, &mut versions.standing, &mut versions.preferences] {
        *version = operation.id.max(*version);
    }
    profile.role = Role::default();
    profile.standing = Standing::Suspended;
    profile.preferences = Preferences::default();
    profile.erased_at = Some(operation.accepted_at);
    profile.updated_at = profile.updated_at.max(operation.accepted_at);
}

fn prefer(profile: &mut Profile, preferences: &Preferences, operation: &Operation) -> Outcome {
    let mut tally = Tally::default();
    if tally.wins(&mut profile.versions.preferences, operation.id) {
        profile.preferences = preferences.clone();
        profile.updated_at = profile.updated_at.max(operation.accepted_at);
    }
    tally.outcome()
}

/// Counts the fields an operation named and won.
#[derive(Default)]
pub(super) struct Tally {
    named: u32,
    won: u32,
}

impl Tally {
    pub(super) fn wins(&mut self, field: &mut Version, version: Version) -> bool {
        self.named += 1;
        let newer = version > *field;
        if newer {
            self.won += 1;
            *field = version;
        }
        newer
    }

    pub(super) fn outcome(&self) -> Outcome {
        if self.won == self.named {
            Outcome::Applied
        } else if self.won == 0 {
            Outcome::Superseded
        } else {
            Outcome::Merged
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Change;
    use crate::domain::{Actor, Clock, Role, TaskFields, TaskStatus, Title};

    fn actor() -> Actor {
        Actor { user_id: Uuid::from_u128(7), role: Role::User, session_id: None }
    }

    fn operation(id: Version, change: Change, second: i64) -> Operation {
        Operation {
            id,
            actor: actor(),
            change,
            accepted_at: DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(second),
            request_id: Uuid::nil(),
            traceparent: None,
        }
    }

    fn title(text: &str) -> Title {
        Title::try_from(text.to_owned()).unwrap()
    }

    fn created(clock: &Clock) -> Option<Task> {
        let mut task = None;
        let fields =
            TaskFields { title: title("first"), description: None, status: TaskStatus::Pending };
        let create = Change::Task(TaskChange::Create { task_id: Uuid::from_u128(1), fields });
        assert_eq!(apply_to_task(&mut task, &operation(clock.next(), create, 0)), Outcome::Applied);
        task
    }

    fn patch() -> impl Strategy<Value = TaskPatch> {
        (
            prop::option::of("[a-z]{1,4}".prop_map(|text| title(&text))),
            prop::option::of(Just(None)),
            prop::option::of(prop::sample::select(TaskStatus::ALL.to_vec())),
        )
            .prop_map(|(title, description, status)| TaskPatch { title, description, status })
            .prop_filter("a patch names a field", |patch| !patch.is_empty())
    }

    proptest! {
        #[test]
        fn i5_newest_field_wins_in_any_order_of_arrival(
            patches in prop::collection::vec(patch(), 1..8),
            order in any::<prop::sample::Index>(),
        ) {
            let clock = Clock::default();
            let task = created(&clock);
            let operations: Vec<_> = patches
                .into_iter()
                .enumerate()
                .map(|(second, patch)| {
                    let change =
                        Change::Task(TaskChange::Patch { task_id: Uuid::from_u128(1), patch, if_match: None });
                    operation(clock.next(), change, second as i64)
                })
                .collect();
            let mut in_order = task.clone();
            for operation in &operations {
                prop_assert_eq!(apply_to_task(&mut in_order, operation), Outcome::Applied);
            }
            let mut rotated = task;
            let split = order.index(operations.len());
            for operation in operations[split..].iter().rev().chain(&operations[..split]) {
                apply_to_task(&mut rotated, operation);
            }
            prop_assert_eq!(rotated, in_order);
        }
    }

    #[test]
    fn i6_deletes_are_final_and_leave_no_content() {
        let clock = Clock::default();
        let mut task = created(&clock);
        let id = Uuid::from_u128(1);
        let late = Change::Task(TaskChange::Patch {
            task_id: id,
            patch: TaskPatch { title: Some(title("late")), ..TaskPatch::default() },
            if_match: None,
        });
        let early = clock.next();
        let delete = operation(
            clock.next(),
            Change::Task(TaskChange::Delete { task_id: id, if_match: None }),
            1,
        );
        assert_eq!(apply_to_task(&mut task, &delete), Outcome::Applied);
        let tombstone = task.clone();
        for version in [early, clock.next()] {
            assert_eq!(
                apply_to_task(&mut task, &operation(version, late.clone(), 2)),
                Outcome::Gone
            );
        }
        assert_eq!(apply_to_task(&mut task, &delete), Outcome::Gone);
        assert_eq!(task, tombstone);
        let tombstone = tombstone.unwrap();
        assert_eq!((tombstone.title, tombstone.description), (None, None));
    }

    #[test]
    fn a_merge_says_so() {
        let clock = Clock::default();
        let mut task = created(&clock);
        let (older, newer) = (clock.next(), clock.next());
        let id = Uuid::from_u128(1);
        let of_title = TaskPatch { title: Some(title("new")), ..TaskPatch::default() };
        let of_both = TaskPatch { status: Some(TaskStatus::Completed), ..of_title.clone() };
        let change = |patch| Change::Task(TaskChange::Patch { task_id: id, patch, if_match: None });
        apply_to_task(&mut task, &operation(newer, change(of_title.clone()), 1));
        let merged = apply_to_task(&mut task, &operation(older, change(of_both), 0));
        assert_eq!(merged, Outcome::Merged);
        let again = apply_to_task(&mut task, &operation(older, change(of_title), 0));
        assert_eq!(again, Outcome::Superseded);
    }

    #[test]
    fn refusals_change_nothing() {
        let clock = Clock::default();
        let mut task = created(&clock);
        let before = task.clone();
        let id = Uuid::from_u128(1);
        let delete = Change::Task(TaskChange::Delete { task_id: id, if_match: None });
        let asserting =
            |if_match| Change::Task(TaskChange::Delete { task_id: id, if_match: Some(if_match) });
        let (stale, early) = (asserting(Version::NONE), asserting(clock.next()));
        let mut foreign = operation(clock.next(), delete.clone(), 1);
        foreign.actor.user_id = Uuid::from_u128(8);
        assert_eq!(
            apply_to_task(&mut task, &foreign),
            Outcome::Refused(Refusal::NotOwner(EntityKind::Task))
        );
        assert_eq!(
            apply_to_task(&mut task, &operation(clock.next(), stale, 1)),
            Outcome::Refused(Refusal::PreconditionFailed(EntityKind::Task))
        );
        assert_eq!(
            apply_to_task(&mut task, &operation(clock.next(), early, 1)),
            Outcome::Refused(Refusal::VersionNotFound(EntityKind::Task)),
            "the write that made that version may come yet"
        );
        assert_eq!(task, before);
        assert_eq!(
            apply_to_task(&mut None, &operation(clock.next(), delete, 1)),
            Outcome::Refused(Refusal::NotFound(EntityKind::Task))
        );
    }
}
