//! Rows as they are written and read back: every field, and every version of a field, has a value of its
//! own, so that two columns which were swapped on the way would be seen.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use shared::domain::{
    Actor, Change, Description, Operation, Outcome, Profile, ProfileChange, Role, Standing, Task,
    TaskChange, TaskFields, TaskPatch, TaskStatus, Title, UserChange, apply_to_profile,
    apply_to_task,
};
use shared::store::{ListOrder, PageStart, Source, Store, TaskFilter, TaskQuery};
use uuid::Uuid;

use crate::conflicts::version;
use crate::node::{Database, operation, preferences};

/// A write of one entity: what is asked for, and whether it begins a batch of its own.
#[derive(Clone, Debug)]
struct Write<T> {
    ask: T,
    is_apart: bool,
}

#[derive(Clone, Copy, Debug)]
enum OfTask {
    Title,
    Describe,
    Undescribe,
    Status(TaskStatus),
    Delete,
}

#[derive(Clone, Copy, Debug)]
enum OfProfile {
    Prefer,
    Role(Role),
    Standing(Standing),
    Erase,
}

#[derive(Clone, Debug)]
struct Story {
    /// Whether they are created with a description, and what becomes of them.
    tasks: Vec<(bool, Vec<Write<OfTask>>)>,
    profiles: Vec<Vec<Write<OfProfile>>>,
}

fn write<T: std::fmt::Debug>(ask: impl Strategy<Value = T>) -> impl Strategy<Value = Write<T>> {
    (ask, any::<bool>()).prop_map(|(ask, is_apart)| Write { ask, is_apart })
}

fn story() -> impl Strategy<Value = Story> {
    let of_task = prop_oneof![
        4 => Just(OfTask::Title),
        4 => Just(OfTask::Describe),
        1 => Just(OfTask::Undescribe),
        4 => prop::sample::select(TaskStatus::ALL.to_vec()).prop_map(OfTask::Status),
        1 => Just(OfTask::Delete),
    ];
    let of_profile = prop_oneof![
        4 => Just(OfProfile::Prefer),
        4 => prop::sample::select(Role::ALL.to_vec()).prop_map(OfProfile::Role),
        4 => prop::sample::select(Standing::ALL.to_vec()).prop_map(OfProfile::Standing),
        1 => Just(OfProfile::Erase),
    ];
    let writes = prop::collection::vec(write(of_task), 0..8);
    let of_profiles = prop::collection::vec(write(of_profile), 1..8);
    (prop::collection::vec((any::<bool>(), writes), 1..6), prop::collection::vec(of_profiles, 1..4))
        .prop_map(|(tasks, profiles)| Story { tasks, profiles })
}

/// Numbers of which each is drawn once, and the values that are made of them.
struct Draw {
    number: i64,
    begun: DateTime<Utc>,
}

impl Draw {
    fn operation(&mut self, actor: Actor, change: Change) -> Operation {
        self.number += 1;
        let id = version(self.begun.timestamp_millis() + self.number);
        let accepted_at = self.begun + TimeDelta::microseconds(1001 * self.number);
        Operation { actor, accepted_at, ..operation(id, actor.user_id, change) }
    }

    fn text(&self) -> String {
        format!("text {}", self.number)
    }
}

fn of(user_id: Uuid, role: Role) -> Actor {
    Actor { user_id, role, session_id: None }
}

impl OfTask {
    fn change(self, task_id: Uuid, text: &str) -> Change {
        let mut patch = TaskPatch::default();
        match self {
            Self::Title => patch.title = Some(Title::stored(text.to_owned())),
            Self::Describe => patch.description = Some(Some(Description::stored(text.to_owned()))),
            Self::Undescribe => patch.description = Some(None),
            Self::Status(status) => patch.status = Some(status),
            Self::Delete => return Change::Task(TaskChange::Delete { task_id, if_match: None }),
        }
        Change::Task(TaskChange::Patch { task_id, patch, if_match: None })
    }
}

impl OfProfile {
    fn operation(self, draw: &mut Draw, user_id: Uuid, admin: Actor) -> Operation {
        let set =
            |role, standing| Change::User(UserChange::SetStanding { user_id, role, standing });
        match self {
            Self::Prefer => {
                let change =
                    Change::Profile(ProfileChange::Put { preferences: preferences(&draw.text()) });
                draw.operation(of(user_id, Role::User), change)
            }
            Self::Role(role) => draw.operation(admin, set(Some(role), None)),
            Self::Standing(standing) => draw.operation(admin, set(None, Some(standing))),
            Self::Erase => draw.operation(admin, Change::User(UserChange::Erase { user_id })),
        }
    }
}

/// Applies batches, and tells the operations with their outcomes.
async fn apply(store: &Store, batches: Vec<Vec<Operation>>) -> Vec<(Operation, Outcome)> {
    let mut outcomes = Vec::new();
    for mut batch in batches.into_iter().filter(|batch| !batch.is_empty()) {
        let applied = store.apply(&mut batch, Source::Replay).await;
        assert_eq!(applied.error, None);
        let effects = applied.effects.into_iter().map(|effect| effect.outcome.unwrap());
        outcomes.extend(batch.into_iter().zip(effects));
    }
    outcomes
}

/// Puts an operation into the last of the batches, or into a new one.
fn add(batches: &mut Vec<Vec<Operation>>, batch: usize, operation: Operation) {
    batches.resize_with(batches.len().max(batch + 1), Vec::new);
    batches[batch].push(operation);
}

/// The tasks of a story are written; what must be there of them.
async fn write_tasks(store: &Store, story: &Story, users: [Uuid; 2], draw: &mut Draw) -> Vec<Task> {
    let (mut batches, mut ids) = (vec![Vec::new()], Vec::new());
    for (number, (described, writes)) in story.tasks.iter().enumerate() {
        let (task_id, actor) = (Uuid::now_v7(), of(users[number % 2], Role::User));
        let fields = TaskFields {
            title: Title::stored(draw.text()),
            description: described.then(|| Description::stored(format!("of {}", draw.text()))),
            status: TaskStatus::Pending,
        };
        let create = draw.operation(actor, Change::Task(TaskChange::Create { task_id, fields }));
        let mut batch = 0;
        add(&mut batches, batch, create);
        for Write { ask, is_apart } in writes {
            batch += usize::from(*is_apart);
            let change = ask.change(task_id, &draw.text());
            add(&mut batches, batch, draw.operation(actor, change));
        }
        ids.push(task_id);
    }
    let outcomes = apply(store, batches).await;
    check_ledger(store, &outcomes, "task").await;
    let folded = |task_id: &Uuid| {
        let mut task = None;
        for (operation, _) in outcomes.iter().filter(|(of, _)| of.lane().id == *task_id) {
            apply_to_task(&mut task, operation);
        }
        task.unwrap()
    };
    ids.iter().map(folded).collect()
}

/// The ledger has each operation as it was, but for those that were refused.
async fn check_ledger(store: &Store, outcomes: &[(Operation, Outcome)], entity: &str) {
    for (operation, outcome) in outcomes {
        let row = store.ledger_entry(operation.id).await.unwrap();
        assert_eq!(row.as_ref().map(|row| row.state), outcome.ledger_state(), "{operation:?}");
        let Some(row) = row else { continue };
        assert_eq!((row.user_id, row.entity_id), (operation.actor.user_id, operation.lane().id));
        assert_eq!(
            (row.entity.as_str(), row.action.as_str()),
            (entity, operation.action().as_str())
        );
        assert_eq!((row.accepted_at, row.reason), (operation.accepted_at, None));
    }
}

async fn check_tasks(store: &Store, tasks: &[Task], users: [Uuid; 2]) {
    let read = store.tasks(tasks.iter().map(|task| task.id).collect()).await.unwrap();
    for task in tasks {
        assert_eq!(store.task(task.id).await.unwrap().as_ref(), Some(task));
        assert_eq!(read[&task.id].as_ref(), Ok(task));
    }
    for user_id in users {
        let query = TaskQuery {
            user_id,
            filter: TaskFilter::default(),
            order: ListOrder::Ascending,
            start: PageStart::Offset(0),
            limit: 100,
        };
        let page = store.task_page(&query, Vec::new()).await.unwrap();
        let is_listed = |task: &&Task| task.user_id == user_id && task.deleted_at.is_none();
        assert_eq!(page, tasks.iter().filter(is_listed).cloned().collect::<Vec<_>>());
    }
}

async fn play_profiles(store: &Store, story: &Story, draw: &mut Draw) {
    let admin = of(Uuid::now_v7(), Role::Admin);
    for writes in &story.profiles {
        let user_id = Uuid::now_v7();
        let mut batches = vec![Vec::new()];
        for Write { ask, is_apart } in writes {
            if *is_apart {
                batches.push(Vec::new());
            }
            let operation = ask.operation(draw, user_id, admin);
            let batch = batches.len() - 1;
            add(&mut batches, batch, operation);
        }
        let first_batch = batches.iter().find(|batch| !batch.is_empty()).map_or(0, Vec::len);
        let outcomes = apply(store, batches).await;
        check_ledger(store, &outcomes, "profile").await;
        let mut profile: Option<Profile> = None;
        for (number, (operation, outcome)) in outcomes.iter().enumerate() {
            let first_seen = || Profile::first_seen(user_id, operation.accepted_at);
            let profile = profile.get_or_insert_with(first_seen);
            if !matches!(outcome, Outcome::Refused(_)) {
                assert_eq!(apply_to_profile(profile, operation), *outcome);
            }
            if number + 1 == first_batch {
                profile.created_at = profile.updated_at;
            }
        }
        let expected = profile.unwrap();
        let just_before = Uuid::from_u128(user_id.as_u128() - 1);
        let listed = store.profiles(just_before, None, None, 1).await.unwrap();
        let listed = listed.into_iter().find(|profile| profile.user_id == user_id);
        assert_eq!(store.profile(user_id).await.unwrap().as_ref(), Some(&expected));
        assert_eq!(listed, Some(expected).filter(|profile| profile.erased_at.is_none()));
    }
}

#[test]
fn every_field_and_version_is_read_back_from_where_it_was_written_to() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let database = runtime.block_on(Database::start());
    let store = &database.store;
    let config = ProptestConfig {
        cases: 48,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&story(), |story| {
            runtime.block_on(async {
                let begun = DateTime::from_timestamp_millis(Utc::now().timestamp_millis()).unwrap();
                let mut draw = Draw { number: 0, begun };
                let users = [Uuid::now_v7(), Uuid::now_v7()];
                let tasks = write_tasks(store, &story, users, &mut draw).await;
                check_tasks(store, &tasks, users).await;
                play_profiles(store, &story, &mut draw).await;
            });
            Ok(())
        })
        .unwrap();
    let nodes = runtime.block_on(database.postgres.psql("SELECT DISTINCT node FROM operations"));
    assert_eq!(nodes, "in-process");
}
