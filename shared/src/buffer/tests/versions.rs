//! The versions that operations get when they come in, and appends that depend on where a lane ends.

use super::*;
use crate::domain::{HybridTime, TaskPatch};

/// A version as a clock draws it that is ahead by so many milliseconds.
fn ahead(millis: u64) -> Version {
    let bits = u128::from(HybridTime::now().millis + millis) << 80 | 0x7 << 76 | 0b10 << 62;
    Version::from_uuid(Uuid::from_u128(bits))
}

fn rename(task: u128, if_match: Option<Version>) -> Change {
    let patch = TaskPatch { title: Some(Title::stored("new".to_owned())), ..Default::default() };
    Change::Task(TaskChange::Patch { task_id: Uuid::from_u128(task), patch, if_match })
}

fn lane(task: u128) -> Lane {
    Lane { kind: EntityKind::Task, id: Uuid::from_u128(task) }
}

#[tokio::test]
async fn an_edit_is_past_what_its_client_asserts_and_what_the_host_knows_of_its_entity_alone() {
    let host = Host::new();
    let clock = Arc::new(Clock::default());
    let buffer = host.open();
    let append = async |buffer: &Buffer, change| {
        buffer.append(operation(&clock, 1, change), Some(Arc::clone(&clock))).await.unwrap()
    };
    let (asserted, served) = (ahead(40_000), ahead(300_000));
    assert!(append(&buffer, rename(1, Some(asserted))).await > asserted);
    buffer.remember_ahead(vec![(lane(2), served), (lane(2), ahead(200_000))]).await.unwrap();
    drop(buffer);
    let buffer = host.open();
    let past = append(&buffer, rename(2, None)).await;
    assert!(past > served);
    assert!(append(&buffer, rename(2, None)).await > past, "the next of its lane");
    assert!(append(&buffer, rename(3, None)).await < asserted, "another entity");
    assert!(clock.next() < asserted, "the clock was moved");
    audit::check(&buffer).await;
}

#[tokio::test]
async fn what_was_applied_with_a_version_from_ahead_is_exceeded_when_its_lane_is_gone() {
    let host = Host::new();
    let clock = Arc::new(Clock::default());
    let buffer = host.open();
    let usual = buffer.append(operation(&clock, 1, rename(2, None)), None).await.unwrap();
    let asserted = ahead(90_000);
    let edit = operation(&clock, 1, rename(1, Some(asserted)));
    let applied = buffer.append(edit, Some(Arc::clone(&clock))).await.unwrap();
    for entry in batch(&buffer).await {
        settle(&buffer, entry.place, Verdict::Done).await;
    }
    assert_eq!(buffer.stats().await.unwrap().pending, 0);
    let later = operation(&clock, 1, rename(1, None));
    assert!(buffer.append(later, Some(Arc::clone(&clock))).await.unwrap() > applied);
    let later = operation(&clock, 1, rename(2, None));
    let later = buffer.append(later, Some(Arc::clone(&clock))).await.unwrap();
    assert!(usual < later && later < asserted);
    buffer.forget_overtaken().await.unwrap();
    assert_eq!(buffer.read(|at| at.counters([layout::AHEAD_COUNT])).await.unwrap(), [1]);
    audit::check(&buffer).await;
}

#[tokio::test]
async fn an_append_that_saw_its_lane_end_elsewhere_keeps_nothing() {
    let host = Host::new();
    let clock = Arc::new(Clock::default());
    let buffer = host.open();
    let WholeLane { operations, end, .. } = buffer.lane_to_its_end(lane(1)).await.unwrap();
    assert!(operations.is_empty());
    let edits = (0..16).map(|_| {
        let edit = operation(&clock, 1, rename(1, None));
        buffer.append_at(edit, Arc::clone(&clock), end)
    });
    let appended = futures::future::join_all(edits).await;
    assert_eq!(appended.into_iter().filter_map(Result::unwrap).count(), 1);
    let WholeLane { operations, end, .. } = buffer.lane_to_its_end(lane(1)).await.unwrap();
    assert_eq!(operations.len(), 1);
    // Emptied in between, it ends where it did when nothing had come in.
    settle(&buffer, batch(&buffer).await[0].place, Verdict::Done).await;
    let edit = operation(&clock, 1, rename(1, None));
    assert_eq!(buffer.append_at(edit, Arc::clone(&clock), end).await.unwrap(), None);
    audit::check(&buffer).await;
}
