//! Lanes under any history: whatever is accepted, in whatever order replay is cut short and begun
//! again, each lane reaches the ledger in the order of acceptance and each operation exactly once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use shared::buffer::{Batch, Found};
use shared::domain::{Change, Clock, Lane, ProfileChange, TaskChange, TaskPatch, Title, Version};
use uuid::Uuid;

use crate::node::{Database, Node, fields, operation, preferences};

const USERS: usize = 2;
const TASKS: usize = 3;

/// What a client may ask for; the title or text of it is the number of the operation.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Create,
    Replace,
    Patch,
    Delete,
    Prefer,
}

/// How a round of replay ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// All is settled.
    Settled,
    /// The process dies while the batch is on its way: nobody knows whether it was applied.
    DiesApplying { micros: u64 },
    /// The process dies after the batch was applied.
    DiesBeforeSettling,
    /// The process dies after the first few were settled.
    DiesSettling { settled: usize },
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Accept { user: usize, task: usize, ask: Ask },
    Replay { take: usize, end: End },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let ask = prop_oneof![
        3 => Just(Ask::Create),
        2 => Just(Ask::Replace),
        3 => Just(Ask::Patch),
        1 => Just(Ask::Delete),
        2 => Just(Ask::Prefer),
    ];
    // Mostly the owner: the other user's operations are refused, which is a story of its own.
    let user = prop_oneof![4 => Just(0_usize), 1 => Just(1_usize)];
    let end = prop_oneof![
        2 => Just(End::Settled),
        2 => (0..4000_u64).prop_map(|micros| End::DiesApplying { micros }),
        1 => Just(End::DiesBeforeSettling),
        1 => (0..4_usize).prop_map(|settled| End::DiesSettling { settled }),
    ];
    prop_oneof![
        7 => (user, 0..TASKS, ask).prop_map(|(user, task, ask)| Step::Accept { user, task, ask }),
        4 => (1..6_usize, end).prop_map(|(take, end)| Step::Replay { take, end }),
        1 => Just(Step::Reopen),
    ]
}

/// What became, or must become, of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Ledger(String),
    Dead(String),
}

/// An accepted operation.
struct Accepted {
    lane: Lane,
    id: Version,
    user: Uuid,
    ask: Ask,
}

/// How often replay was cut short: a fault that did not fire proves nothing.
#[derive(Default)]
struct Fired {
    while_applying: AtomicUsize,
    with_applied_left: AtomicUsize,
}

/// One history on fresh users and tasks.
struct History<'a> {
    database: &'a Database,
    fired: &'a Fired,
    node: Node,
    clock: Arc<Clock>,
    users: [Uuid; USERS],
    tasks: [Uuid; TASKS],
    accepted: Vec<Accepted>,
}

impl<'a> History<'a> {
    fn new(database: &'a Database, fired: &'a Fired) -> Self {
        Self {
            database,
            fired,
            node: Node::new(),
            clock: Arc::new(Clock::default()),
            users: std::array::from_fn(|_| Uuid::new_v4()),
            tasks: std::array::from_fn(|_| Uuid::now_v7()),
            accepted: Vec::new(),
        }
    }

    async fn play(mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Accept { user, task, ask } => self.accept(user, task, ask).await,
                Step::Replay { take, end } => self.replay(take, end).await,
                Step::Reopen => self.node.reopen(),
            }
        }
        self.node.reopen();
        while self.node.replay(&self.database.store, 4).await {}
        assert_eq!(self.node.buffer().stats().await.unwrap().pending, 0);
        self.check().await;
    }

    async fn accept(&mut self, user: usize, task: usize, ask: Ask) {
        let (user, task_id) = (self.users[user], self.tasks[task]);
        let text = self.accepted.len().to_string();
        let change = match ask {
            Ask::Create => Change::Task(TaskChange::Create { task_id, fields: fields(&text) }),
            Ask::Replace => {
                Change::Task(TaskChange::Replace { task_id, fields: fields(&text), if_match: None })
            }
            Ask::Patch => {
                let title = Some(Title::try_from(text).unwrap());
                let patch = TaskPatch { title, ..TaskPatch::default() };
                Change::Task(TaskChange::Patch { task_id, patch, if_match: None })
            }
            Ask::Delete => Change::Task(TaskChange::Delete { task_id, if_match: None }),
            Ask::Prefer => Change::Profile(ProfileChange::Put { preferences: preferences(&text) }),
        };
        let operation = operation(self.clock.next(), user, change);
        let lane = operation.lane();
        let clock = Some(Arc::clone(&self.clock));
        let id = self.node.buffer().append(operation, clock).await.unwrap();
        self.accepted.push(Accepted { lane, id, user, ask });
    }

    /// Two disjoint batches on their way at once, as replay has them.
    async fn replay(&mut self, take: usize, end: End) {
        let store = &self.database.store;
        let first = self.node.claim(take, &HashSet::new()).await;
        let second = self.node.claim(take, &lanes(&first)).await;
        assert!(lanes(&first).is_disjoint(&lanes(&second)), "a lane is in two batches");
        let both =
            async { tokio::join!(self.node.apply(store, first), self.node.apply(store, second)) };
        let limit = match end {
            End::DiesApplying { micros } => Duration::from_micros(micros),
            End::Settled | End::DiesBeforeSettling | End::DiesSettling { .. } => Duration::MAX,
        };
        let Ok((mut first, mut second)) = tokio::time::timeout(limit, both).await else {
            self.fired.while_applying.fetch_add(1, Ordering::Relaxed);
            return self.node.reopen();
        };
        let settled = match end {
            End::Settled => usize::MAX,
            End::DiesSettling { settled } => settled,
            End::DiesApplying { .. } | End::DiesBeforeSettling => 0,
        };
        if first.len() > settled {
            self.fired.with_applied_left.fetch_add(1, Ordering::Relaxed);
        }
        first.truncate(settled);
        second.truncate(settled);
        self.node.buffer().settle(second).await.unwrap();
        self.node.buffer().settle(first).await.unwrap();
        if settled < usize::MAX {
            self.node.reopen();
        }
    }

    async fn check(&self) {
        let entities: Vec<Uuid> = self.users.iter().chain(&self.tasks).copied().collect();
        let ledger = self.database.ledger(&entities).await;
        let mut fates: HashMap<Version, Vec<Fate>> = HashMap::new();
        for (_, id, outcome) in &ledger {
            fates.entry(*id).or_default().push(Fate::Ledger(outcome.clone()));
        }
        for Accepted { id, .. } in &self.accepted {
            if let Some(Found::Dead(letter)) = self.node.buffer().find(*id).await.unwrap() {
                fates.entry(*id).or_default().push(Fate::Dead(letter.reason));
            }
        }
        assert!(fates.len() <= self.accepted.len(), "operations that nobody accepted: {fates:?}");
        for entity in entities {
            let of_lane: Vec<&Accepted> =
                self.accepted.iter().filter(|accepted| accepted.lane.id == entity).collect();
            let (expected, content) = model(&of_lane, &self.accepted);
            for (accepted, expected) in of_lane.iter().zip(&expected) {
                assert_eq!(fates.get(&accepted.id), Some(&vec![expected.clone()]));
            }
            let order: Vec<Version> =
                ledger.iter().filter(|(of, ..)| *of == entity).map(|(_, id, _)| *id).collect();
            let acceptance = of_lane.iter().map(|accepted| accepted.id);
            let acceptance: Vec<Version> = acceptance.filter(|id| order.contains(id)).collect();
            assert_eq!(order, acceptance, "the ledger's order is another than that of acceptance");
            assert_eq!(self.content(entity).await, content);
        }
    }

    /// What PostgreSQL has of a task or profile: its text.
    async fn content(&self, entity: Uuid) -> Option<String> {
        let store = &self.database.store;
        if let Some(task) = store.task(entity).await.unwrap() {
            return task.title.map(|title| title.as_str().to_owned());
        }
        let profile = store.profile(entity).await.unwrap()?;
        Some(profile.preferences.to_value().get("text")?.as_str()?.to_owned())
    }
}

fn lanes(batch: &Batch) -> HashSet<Lane> {
    batch.entries.iter().map(|entry| entry.operation.lane()).collect()
}

/// What must become of a lane's operations if they are applied one after another, and the entity's
/// text at the end.
fn model(lane: &[&Accepted], all: &[Accepted]) -> (Vec<Fate>, Option<String>) {
    let (mut owner, mut text) = (None, None);
    let mut fates = Vec::new();
    for accepted in lane {
        let number = all.iter().position(|other| other.id == accepted.id).unwrap().to_string();
        let fate = match (accepted.ask, owner, &text) {
            (Ask::Prefer, _, _) | (Ask::Create, None, _) => {
                (owner, text) = (Some(accepted.user), Some(number));
                Fate::Ledger("applied".to_owned())
            }
            (_, None, _) => Fate::Dead("not_found".to_owned()),
            (_, Some(owner), _) if owner != accepted.user => Fate::Dead("forbidden".to_owned()),
            (_, Some(_), None) => Fate::Ledger("superseded".to_owned()),
            (Ask::Create, _, Some(_)) => Fate::Ledger("duplicate".to_owned()),
            (Ask::Replace | Ask::Patch, _, Some(_)) => {
                text = Some(number);
                Fate::Ledger("applied".to_owned())
            }
            (Ask::Delete, _, Some(_)) => {
                text = None;
                Fate::Ledger("applied".to_owned())
            }
        };
        fates.push(fate);
    }
    (fates, text)
}

#[test]
fn i2_i3_i8_any_history_with_any_crashes_reaches_the_ledger_in_order_and_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let database = runtime.block_on(Database::start());
    let config = ProptestConfig {
        cases: 16,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let fired = Fired::default();
    TestRunner::new(config)
        .run(&prop::collection::vec(step(), 10..50), |steps| {
            runtime.block_on(History::new(&database, &fired).play(steps));
            Ok(())
        })
        .unwrap();
    assert!(fired.while_applying.into_inner() > 0, "no round was cut while it was applied");
    assert!(fired.with_applied_left.into_inner() > 0, "no round was applied and not settled");
}
