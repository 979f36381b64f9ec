//! Three nodes, one task whose create is repeated with its key on any of them, edits and deletes of it on
//! any of them, replay of the nodes in any order and in any steps: it all ends as if the create had been
//! made once, first.

use std::collections::HashSet;

use chrono::Utc;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use shared::buffer::Verdict;
use shared::domain::{Change, TaskChange, TaskPatch, Title, Version};
use uuid::Uuid;

use crate::conflicts::version;
use crate::node::{Database, Node, fields, operation};

const NODES: usize = 3;
const CASES: u32 = 48;
/// Clocks that differ by up to an hour.
const SKEW_MS: i64 = 3_600_000;
/// Turns after which everything has to be replayed, once nothing comes any more.
const TURNS: usize = 60;

#[derive(Clone, Debug)]
enum Step {
    Create { node: usize },
    Rename { node: usize, title: u8 },
    Delete { node: usize },
    Replay { node: usize, take: usize },
}

#[derive(Clone, Debug)]
struct History {
    skew: [i64; NODES],
    steps: Vec<Step>,
}

fn history() -> impl Strategy<Value = History> {
    let node = 0..NODES;
    let step = prop_oneof![
        4 => node.clone().prop_map(|node| Step::Create { node }),
        6 => (node.clone(), any::<u8>()).prop_map(|(node, title)| Step::Rename { node, title }),
        1 => node.clone().prop_map(|node| Step::Delete { node }),
        6 => (node, 1..4_usize).prop_map(|(node, take)| Step::Replay { node, take }),
    ];
    let steps = prop::collection::vec(step, 3..24).prop_filter("it is created", |steps| {
        steps.iter().any(|step| matches!(step, Step::Create { .. }))
    });
    (prop::array::uniform3(-SKEW_MS..SKEW_MS), steps)
        .prop_map(|(skew, steps)| History { skew, steps })
}

fn text(number: u8) -> String {
    format!("title {number}")
}

/// One step of a node's replay. False if there was nothing to do.
async fn replay(node: &Node, database: &Database, take: usize) -> bool {
    let batch = node.claim(take, &HashSet::new()).await;
    let some = !batch.entries.is_empty();
    let settlements = node.apply(&database.store, batch).await;
    let gives_up =
        settlements.iter().any(|settled| matches!(settled.verdict, Verdict::Dead { .. }));
    assert!(!gives_up, "{settlements:?}");
    node.buffer().settle(settlements).await.unwrap();
    some
}

async fn play(database: &Database, history: &History) {
    let (user, now) = (Uuid::new_v4(), Utc::now().timestamp_millis());
    let task_id = Uuid::new_v5(&user, b"the key");
    let nodes = [Node::patient(), Node::patient(), Node::patient()];
    let (mut number, mut newest, mut deleted) = (0, None::<(Version, u8)>, false);
    let mut accepted = 0;
    for step in &history.steps {
        number += 1;
        let id = |node: usize| version(now + history.skew[node] + number);
        let (node, id, change) = match *step {
            Step::Create { node } => (
                node,
                id(node),
                Change::Task(TaskChange::Create { task_id, fields: fields("of the create") }),
            ),
            Step::Rename { node, title } => {
                let renamed = Title::try_from(text(title)).unwrap();
                let patch = TaskPatch { title: Some(renamed), ..TaskPatch::default() };
                let id = id(node);
                newest = newest.filter(|(known, _)| *known > id).or(Some((id, title)));
                (node, id, Change::Task(TaskChange::Patch { task_id, patch, if_match: None }))
            }
            Step::Delete { node } => {
                deleted = true;
                (node, id(node), Change::Task(TaskChange::Delete { task_id, if_match: None }))
            }
            Step::Replay { node, take } => {
                replay(&nodes[node], database, take).await;
                continue;
            }
        };
        nodes[node].buffer().append(operation(id, user, change), None).await.unwrap();
        accepted += 1;
    }
    for _ in 0..TURNS {
        for node in &nodes {
            replay(node, database, 100).await;
        }
    }
    for node in &nodes {
        assert_eq!(node.buffer().stats().await.unwrap().pending, 0, "{history:?}");
    }
    let task = database.store.task(task_id).await.unwrap().unwrap();
    assert_eq!(task.deleted_at.is_some(), deleted, "{history:?}");
    if !deleted {
        let title = newest.map_or("of the create".to_owned(), |(_, title)| text(title));
        assert_eq!(task.title.unwrap().as_str(), title, "{history:?}");
    }
    let ledger = database.ledger(&[task_id]).await;
    assert_eq!(ledger.len(), accepted, "each is in the ledger once: {history:?}");
}

#[test]
fn i2_i5_i6_any_interleaving_of_repeated_creates_ends_as_if_there_had_been_one_which_came_first() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let database = runtime.block_on(Database::start());
    let config = ProptestConfig {
        cases: CASES,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&history(), |history| {
            runtime.block_on(play(&database, &history));
            Ok(())
        })
        .unwrap();
}
