//! Two nodes, each with a buffer file of its own and a clock of its own, and one PostgreSQL: in
//! whatever order their operations arrive there, the same row stands at the end, and it is the one
//! that a model of a few lines foretells.

use std::collections::BTreeMap;

use chrono::Utc;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use shared::domain::{
    Change, Description, Operation, Task, TaskChange, TaskFields, TaskPatch, TaskStatus, Title,
    Version,
};
use shared::store::Source;
use uuid::Uuid;

use crate::node::{Database, Node, fields, operation};

const TASKS: usize = 2;
const NODES: usize = 2;
/// Clocks that differ by up to an hour.
const SKEW_MS: i64 = 3_600_000;

/// What was asked for of a task.
#[derive(Clone, Debug)]
enum Ask {
    Replace { title: u8, description: Option<u8>, status: usize },
    Patch { title: Option<u8>, description: Option<Option<u8>>, status: Option<usize> },
    Delete,
}

/// A write that one of the nodes accepted.
#[derive(Clone, Debug)]
struct Write {
    node: usize,
    task: usize,
    ask: Ask,
}

/// Who replays next.
#[derive(Clone, Copy, Debug)]
enum Turn {
    One {
        node: usize,
        take: usize,
    },
    /// Both at the same time.
    Both {
        take: usize,
    },
}

#[derive(Clone, Debug)]
struct Story {
    skew: [i64; NODES],
    writes: Vec<Write>,
    interleavings: Vec<Vec<Turn>>,
}

fn ask() -> impl Strategy<Value = Ask> {
    let status = 0..TaskStatus::ALL.len();
    let patch = (
        prop::option::of(any::<u8>()),
        prop::option::of(prop::option::of(any::<u8>())),
        prop::option::of(status.clone()),
    )
        .prop_filter("a patch names a field", |(title, description, status)| {
            title.is_some() || description.is_some() || status.is_some()
        });
    prop_oneof![
        2 => (any::<u8>(), prop::option::of(any::<u8>()), status)
            .prop_map(|(title, description, status)| Ask::Replace { title, description, status }),
        6 => patch.prop_map(|(title, description, status)| {
            Ask::Patch { title, description, status }
        }),
        1 => Just(Ask::Delete),
    ]
}

fn story() -> impl Strategy<Value = Story> {
    let write = (0..NODES, 0..TASKS, ask()).prop_map(|(node, task, ask)| Write { node, task, ask });
    let turn = prop_oneof![
        3 => (0..NODES, 1..4_usize).prop_map(|(node, take)| Turn::One { node, take }),
        1 => (1..4_usize).prop_map(|take| Turn::Both { take }),
    ];
    (
        prop::array::uniform2(-SKEW_MS..SKEW_MS),
        prop::collection::vec(write, 2..16),
        prop::collection::vec(prop::collection::vec(turn, 0..16), 3),
    )
        .prop_map(|(skew, writes, interleavings)| Story { skew, writes, interleavings })
}

/// A version as a node's clock draws it: its time, and a tail that tells nodes and runs apart.
pub fn version(millis: i64) -> Version {
    let tail = Uuid::new_v4().as_u128() & ((1 << 48) - 1);
    let bits = u128::try_from(millis).unwrap() << 80 | 0x7 << 76 | 0b10 << 62 | tail;
    Version::from_uuid(Uuid::from_u128(bits))
}

fn text(number: u8) -> String {
    format!("text {number}")
}

impl Ask {
    fn change(&self, task_id: Uuid) -> Change {
        let title = |number: u8| Title::try_from(text(number)).unwrap();
        let description = |number: u8| Description::try_from(text(number)).unwrap();
        match self {
            Self::Replace { title: named, description: told, status } => {
                let fields = TaskFields {
                    title: title(*named),
                    description: told.map(description),
                    status: TaskStatus::ALL[*status],
                };
                Change::Task(TaskChange::Replace { task_id, fields, if_match: None })
            }
            Self::Patch { title: named, description: told, status } => {
                let patch = TaskPatch {
                    title: named.map(title),
                    description: told.map(|told| told.map(description)),
                    status: status.map(|status| TaskStatus::ALL[status]),
                };
                Change::Task(TaskChange::Patch { task_id, patch, if_match: None })
            }
            Self::Delete => Change::Task(TaskChange::Delete { task_id, if_match: None }),
        }
    }
}

/// A row as far as it must not depend on the order of arrival: its fields, or nothing of them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Row {
    Live { title: String, description: Option<String>, status: &'static str },
    Tombstone,
}

impl Row {
    fn of(task: &Task) -> Self {
        if task.deleted_at.is_some() {
            assert_eq!((&task.title, &task.description), (&None, &None), "a tombstone has content");
            return Self::Tombstone;
        }
        Self::Live {
            title: task.title.as_ref().unwrap().as_str().to_owned(),
            description: task.description.as_ref().map(|told| told.as_str().to_owned()),
            status: task.status.as_str(),
        }
    }
}

/// Each field has the value of its greatest version, and that of the create is older than any; a delete
/// is final.
fn model(writes: &[(Version, Ask)]) -> Row {
    let mut title = BTreeMap::from([(Version::NONE, "created".to_owned())]);
    let mut description = BTreeMap::from([(Version::NONE, None)]);
    let mut status = BTreeMap::from([(Version::NONE, TaskStatus::Pending.as_str())]);
    let name = |status: usize| TaskStatus::ALL[status].as_str();
    for (version, ask) in writes {
        match ask {
            Ask::Delete => return Row::Tombstone,
            Ask::Replace { title: named, description: told, status: stands } => {
                title.insert(*version, text(*named));
                description.insert(*version, told.map(text));
                status.insert(*version, name(*stands));
            }
            Ask::Patch { title: named, description: told, status: stands } => {
                named.map(|named| title.insert(*version, text(named)));
                told.map(|told| description.insert(*version, told.map(text)));
                stands.map(|stands| status.insert(*version, name(stands)));
            }
        }
    }
    Row::Live {
        title: title.pop_last().unwrap().1,
        description: description.pop_last().unwrap().1,
        status: status.pop_last().unwrap().1,
    }
}

/// Two nodes that accept the writes of a story for tasks of their own.
struct Run<'a> {
    database: &'a Database,
    nodes: [Node; NODES],
    tasks: [Uuid; TASKS],
    /// Per task what was accepted, with its version.
    accepted: [Vec<(Version, Ask)>; TASKS],
}

impl<'a> Run<'a> {
    /// The tasks stand in PostgreSQL, and each node has accepted its part of the writes.
    async fn prepare(database: &'a Database, story: &Story) -> Self {
        let (user, now) = (Uuid::new_v4(), Utc::now().timestamp_millis());
        let tasks = std::array::from_fn(|_| Uuid::now_v7());
        let mut creates: Vec<Operation> = tasks
            .iter()
            .map(|task_id| {
                let change = Change::Task(TaskChange::Create {
                    task_id: *task_id,
                    fields: fields("created"),
                });
                operation(version(now), user, change)
            })
            .collect();
        assert_eq!(database.store.apply(&mut creates, Source::Replay).await.error, None);
        let nodes = [Node::new(), Node::new()];
        let mut accepted: [Vec<(Version, Ask)>; TASKS] = Default::default();
        for (number, Write { node, task, ask }) in (1_i64..).zip(&story.writes) {
            let id = version(now + story.skew[*node] + number);
            let operation = operation(id, user, ask.change(tasks[*task]));
            nodes[*node].buffer().append(operation, None).await.unwrap();
            accepted[*task].push((id, ask.clone()));
        }
        Self { database, nodes, tasks, accepted }
    }

    async fn replay(&self, turns: &[Turn]) {
        let store = &self.database.store;
        for turn in turns {
            match *turn {
                Turn::One { node, take } => drop(self.nodes[node].replay(store, take).await),
                Turn::Both { take } => {
                    let [one, other] = &self.nodes;
                    tokio::join!(one.replay(store, take), other.replay(store, take));
                }
            }
        }
        for node in &self.nodes {
            while node.replay(store, 4).await {}
        }
    }

    async fn check(&self) -> Vec<Row> {
        let ledger = self.database.ledger(&self.tasks).await;
        let accepted = TASKS + self.accepted.iter().map(Vec::len).sum::<usize>();
        assert_eq!(ledger.len(), accepted, "each write is in the ledger once: {ledger:?}");
        let mut rows = Vec::new();
        for (id, accepted) in self.tasks.iter().zip(&self.accepted) {
            let task = self.database.store.task(*id).await.unwrap().unwrap();
            let row = Row::of(&task);
            assert_eq!(row, model(accepted), "of {accepted:?}");
            rows.push(row);
        }
        rows
    }
}

#[test]
fn i5_i6_two_nodes_come_to_the_same_row_in_whatever_order_their_writes_arrive() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let database = runtime.block_on(Database::start());
    let config = ProptestConfig {
        cases: 24,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&story(), |story| {
            let rows = runtime.block_on(async {
                let mut rows = Vec::new();
                for turns in &story.interleavings {
                    let run = Run::prepare(&database, &story).await;
                    run.replay(turns).await;
                    rows.push(run.check().await);
                }
                rows
            });
            prop_assert!(rows.windows(2).all(|pair| pair[0] == pair[1]), "{rows:?}");
            Ok(())
        })
        .unwrap();
}
