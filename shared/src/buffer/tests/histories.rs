//! Any history of appends and settlements, with the file opened anew in between, leaves tables that
//! agree and lanes in the order of acceptance.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append { user: u128, task: u128, kind: u8 },
    Settle { count: usize, verdicts: u64 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..4_u128, 1..5_u128, 0..3_u8)
            .prop_map(|(user, task, kind)| Step::Append { user, task, kind }),
        3 => (1..6_usize, any::<u64>())
            .prop_map(|(count, verdicts)| Step::Settle { count, verdicts }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_history_leaves_tables_that_agree(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}

async fn play(steps: Vec<Step>) {
    let host = Host::new();
    let clock = Arc::new(Clock::default());
    let mut buffer = host.open();
    let mut expected: Vec<(Lane, Version)> = Vec::new();
    let far = unix_millis() + 1_000_000;
    for step in steps {
        match step {
            Step::Append { user, task, kind } => {
                let change = match kind {
                    0 => create(task),
                    1 => delete(task),
                    _ => prefer(),
                };
                let appended = operation(&clock, user, change);
                let lane = appended.lane();
                let id = buffer.append(appended, Some(Arc::clone(&clock))).await.unwrap();
                expected.push((lane, id));
            }
            Step::Settle { count, verdicts } => {
                let limits = BatchLimits { operations: count, ..LIMITS };
                let due = buffer.next_batch(far, limits, HashSet::new()).await.unwrap();
                let mut settlements = Vec::new();
                for (position, entry) in due.entries.iter().enumerate() {
                    let verdict = match verdicts >> (2 * position) & 3 {
                        0 => {
                            Verdict::Retry { tries: Tries::default().failed(), not_before: far - 1 }
                        }
                        1 => Verdict::Dead {
                            tries: Tries::default().failed(),
                            reason: "no".to_owned(),
                        },
                        _ => Verdict::Done,
                    };
                    if !matches!(verdict, Verdict::Retry { .. }) {
                        expected.retain(|(_, id)| *id != entry.operation.id);
                    }
                    settlements.push(Settlement { place: entry.place, verdict });
                }
                buffer.settle(settlements).await.unwrap();
            }
            Step::Reopen => {
                drop(buffer);
                buffer = host.open();
            }
        }
        audit::check(&buffer).await;
    }
    let lanes: HashSet<Lane> = expected.iter().map(|(lane, _)| *lane).collect();
    assert_eq!(
        buffer.before_writing(lanes.iter().copied().collect()).await.unwrap().pending,
        lanes
    );
    for lane in lanes {
        let order: Vec<Version> =
            buffer.lane(lane).await.unwrap().iter().map(|operation| operation.id).collect();
        let accepted: Vec<Version> =
            expected.iter().filter(|(of, _)| *of == lane).map(|(_, id)| *id).collect();
        assert_eq!(order, accepted);
    }
}
