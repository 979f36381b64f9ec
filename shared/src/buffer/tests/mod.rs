//! Tests of the buffer on a real file: order, urgency, limits, retries, dead letters, damage, handles as
//! several processes have them, and whether all tables agree after any history.

mod at_rest;
mod audit;
mod damage;
mod disk;
mod failure;
mod file_id;
mod fuzz;
mod golden;
mod histories;
mod limits;
mod old_copy;
mod power;
mod readers;
mod repair;
mod tail;
mod verify;
mod versions;
mod wal;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use uuid::Uuid;

use super::commit::job::{OnFullDisk, Room};
use super::commit::open::{IfDamaged, open_file};
use super::commit::snapshot::Snapshot;
use super::disk::file::BufferFile;
use super::format::keys::Keys;
use super::format::{layout, record};
use super::repair::anew::Mode;
use super::tables::Tables;
use super::tables::intake::Intake;
use super::wal::tail::Tail;
use super::*;
use crate::domain::{
    Actor, Change, Clock, Description, EntityKind, Lane, Operation, Preferences, ProfileChange,
    Role, TaskChange, TaskFields, TaskStatus, Title, Tries, Version,
};
use crate::settings::BufferSettings;

const LIMITS: BatchLimits = BatchLimits {
    operations: 100,
    bytes: 1 << 20,
    aging: Duration::from_secs(60),
    longest_wait: Duration::from_secs(3600),
};

/// A folder with a buffer, which the processes of one host open.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn settings(&self) -> BufferSettings {
        settings(self.path())
    }

    /// Opens the buffer as one more process, or as the first.
    fn open(&self) -> Buffer {
        open(self.path())
    }
}

fn open(folder: &Path) -> Buffer {
    Buffer::open(&settings(folder)).unwrap()
}

fn settings(folder: &Path) -> BufferSettings {
    BufferSettings {
        buffer_path: folder.join("data/buffer.redb"),
        buffer_min_free_bytes: 0,
        buffer_cache_bytes: 1 << 20,
        ..BufferSettings::default()
    }
}

fn operation(clock: &Clock, user: u128, change: Change) -> Operation {
    Operation {
        id: clock.next(),
        actor: Actor { user_id: Uuid::from_u128(user), role: Role::User, session_id: None },
        change,
        accepted_at: chrono::Utc::now(),
        request_id: Uuid::from_u128(9),
        traceparent: None,
    }
}

fn create(task: u128) -> Change {
    let fields = TaskFields {
        title: Title::stored("title".to_owned()),
        description: Some(Description::stored("description".to_owned())),
        status: TaskStatus::Pending,
    };
    Change::Task(TaskChange::Create { task_id: Uuid::from_u128(task), fields })
}

fn delete(task: u128) -> Change {
    Change::Task(TaskChange::Delete { task_id: Uuid::from_u128(task), if_match: None })
}

fn prefer() -> Change {
    Change::Profile(ProfileChange::Put { preferences: Preferences::default() })
}

/// Leaves a buffer as a killed process does: nothing more is written.
fn killed(buffer: Buffer) {
    std::mem::forget(buffer);
}

async fn batch(buffer: &Buffer) -> Vec<Entry> {
    buffer.next_batch(unix_millis(), LIMITS, HashSet::new()).await.unwrap().entries
}

async fn settle(buffer: &Buffer, place: u64, verdict: Verdict) {
    buffer.settle(vec![Settlement { place, verdict }]).await.unwrap();
}

/// Sets aside what the next batch finds damaged; what was wrong with it.
async fn set_damaged_aside(buffer: &Buffer) -> Vec<Damage> {
    let batch = buffer.next_batch(unix_millis(), LIMITS, HashSet::new()).await.unwrap();
    for (place, damage) in &batch.damaged {
        settle(buffer, *place, Verdict::Damaged(*damage)).await;
    }
    batch.damaged.into_iter().map(|(_, damage)| damage).collect()
}

/// The ids of the next batch.
async fn ids_of_batch(buffer: &Buffer) -> HashSet<Version> {
    batch(buffer).await.iter().map(|entry| entry.operation.id).collect()
}

#[tokio::test]
async fn i1_what_was_appended_is_there_for_the_next_process() {
    let host = Host::new();
    let clock = Arc::new(Clock::default());
    let buffer = host.open();
    let one = operation(&clock, 1, create(1));
    buffer.append(one.clone(), Some(Arc::clone(&clock))).await.unwrap();
    let peer = host.open();
    assert_eq!(batch(&peer).await[0].operation, one);
    drop(buffer);
    drop(peer);
    let again = host.open();
    assert_eq!(batch(&again).await[0].operation, one);
    audit::check(&again).await;
}

#[tokio::test]
async fn i3_a_lane_keeps_its_order_and_lanes_go_by_urgency_then_age() {
    let host = Host::new();
    let clock = Arc::new(Clock::default());
    let buffer = host.open();
    let history = [(1, prefer()), (2, create(1)), (2, create(2)), (2, delete(1)), (2, create(3))];
    let mut ids = Vec::new();
    for (user, change) in history {
        let appended = operation(&clock, user, change);
        ids.push(buffer.append(appended, Some(Arc::clone(&clock))).await.unwrap());
    }
    let order: Vec<Version> = batch(&buffer).await.iter().map(|e| e.operation.id).collect();
    // The delete lifts its whole lane, with the create before it; the profile comes last.
    assert_eq!(order, [ids[1], ids[3], ids[2], ids[4], ids[0]]);
    audit::check(&buffer).await;
}

#[tokio::test]
async fn waiting_lifts_a_lane_above_more_urgent_newer_ones() {
    let host = Host::new();
    let clock = Arc::new(Clock::default());
    let buffer = host.open();
    let old = buffer.append(operation(&clock, 1, prefer()), None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    buffer.append(operation(&clock, 2, create(1)), None).await.unwrap();
    let limits = BatchLimits { aging: Duration::from_millis(10), ..LIMITS };
    let aged = buffer.next_batch(unix_millis(), limits, HashSet::new()).await.unwrap();
    assert_eq!(aged.entries[0].operation.id, old);
    let fresh = batch(&buffer).await;
    assert_eq!(fresh[1].operation.id, old);
}

#[tokio::test]
async fn two_processes_appending_to_one_lane_leave_versions_in_order_of_acceptance() {
    let host = Host::new();
    let (ahead, behind) = (Arc::new(Clock::default()), Arc::new(Clock::default()));
    let one = host.open();
    let other = host.open();
    let late = operation(&behind, 1, delete(1));
    ahead.observe(late.id);
    let first = operation(&ahead, 1, create(1));
    let first = one.append(first, Some(Arc::clone(&ahead))).await.unwrap();
    let second = other.append(late.clone(), Some(Arc::clone(&behind))).await.unwrap();
    assert!(second > first && second != late.id);
    assert!(behind.next() > second);
    let sent = operation(&Clock::default(), 1, delete(1));
    let kept = Operation { id: late.id, ..sent };
    assert_eq!(other.append(kept, None).await.unwrap(), late.id, "a known id stays");
}

#[tokio::test]
async fn a_retried_operation_holds_its_own_lane_only_and_for_its_time_only() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    for change in [delete(1), delete(1), delete(2)] {
        buffer.append(operation(&clock, 1, change), None).await.unwrap();
    }
    let first = batch(&buffer).await[0].clone();
    let not_before = unix_millis() + 60_000;
    settle(
        &buffer,
        first.place,
        Verdict::Retry { tries: Tries { attempts: 1, waits: 3 }, not_before },
    )
    .await;
    audit::check(&buffer).await;
    let left = batch(&buffer).await;
    assert_eq!(left.len(), 1);
    assert_ne!(left[0].operation.lane(), first.operation.lane());
    drop(buffer);
    let buffer = host.open();
    let due = buffer.next_batch(not_before, LIMITS, HashSet::new()).await.unwrap().entries;
    assert_eq!(due.len(), 3);
    let again = due.iter().find(|e| e.place == first.place).unwrap();
    assert_eq!(again.tries, Tries { attempts: 1, waits: 3 });
    settle(&buffer, first.place, Verdict::Done).await;
    assert_eq!(batch(&buffer).await.len(), 2, "the lane goes on at once");
    audit::check(&buffer).await;
}

/// Makes a lane wait whose head is old: it was refused, and is due again.
async fn refuse(buffer: &Buffer, lanes: usize) {
    let limits = BatchLimits { operations: lanes, ..LIMITS };
    let batch = buffer.next_batch(unix_millis(), limits, HashSet::new()).await.unwrap();
    let retry = Verdict::Retry { tries: Tries::default().failed(), not_before: unix_millis() };
    let refused = |entry: Entry| Settlement { place: entry.place, verdict: retry.clone() };
    buffer.settle(batch.entries.into_iter().map(refused).collect()).await.unwrap();
}

#[tokio::test]
async fn i8_lanes_that_are_tried_in_vain_leave_most_of_a_batch_to_others() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let append = async |user, change| buffer.append(operation(&clock, user, change), None).await;
    // One of them is a long lane.
    for task in (1..60).chain([59; 20]) {
        append(1, delete(task)).await.unwrap();
    }
    refuse(&buffer, 100).await;
    let urgent = async || {
        let limits = BatchLimits { operations: 20, aging: Duration::from_millis(1), ..LIMITS };
        let later = unix_millis() + 100;
        let batch = buffer.next_batch(later, limits, HashSet::new()).await.unwrap();
        let is_retry = |entry: &&Entry| entry.operation.actor.user_id == Uuid::from_u128(1);
        (batch.entries.iter().filter(is_retry).count(), batch.entries.len())
    };
    assert_eq!(urgent().await, (20, 20), "nobody else is there");
    for user in 2..=8 {
        append(user, prefer()).await.unwrap();
    }
    assert_eq!(urgent().await, (13, 20), "they fill what others leave");
    for user in 9..=60 {
        append(user, prefer()).await.unwrap();
    }
    assert_eq!(urgent().await, (5, 20), "a quarter");
    audit::check(&buffer).await;
}

#[tokio::test]
async fn a_repeated_create_is_reached_behind_more_changes_than_a_batch_holds() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    // The id of a task that an idempotency key was drawn for is no UUIDv7.
    for change in [delete(1), delete(1), delete(1), delete(1), create(1), delete(1), delete(2)] {
        buffer.append(operation(&clock, 1, change), None).await.unwrap();
    }
    let limits = BatchLimits { operations: 2, ..LIMITS };
    let due = async || {
        let batch = buffer.next_batch(unix_millis() + 1, limits, HashSet::new()).await.unwrap();
        batch.entries
    };
    let creates =
        |entries: &[Entry]| entries.iter().filter(|e| e.operation.is_repeatable_create()).count();
    assert_eq!(creates(&due().await), 0, "nothing is known to wait for it");
    let head = due().await[0].place;
    let not_before = unix_millis();
    settle(&buffer, head, Verdict::Retry { tries: Tries::default().waited(), not_before }).await;
    let batch = due().await;
    assert_eq!((batch[0].place, creates(&batch)), (head, 1));
    assert!(batch.len() <= 3, "what stands between waits");
    let create = batch.iter().find(|e| e.operation.is_repeatable_create()).unwrap();
    settle(&buffer, create.place, Verdict::Done).await;
    audit::check(&buffer).await;
    assert_eq!(creates(&due().await), 0);
}

#[tokio::test]
async fn i9_a_dead_letter_is_found_with_its_reason_until_its_retention_ends() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let id = buffer.append(operation(&clock, 1, delete(1)), None).await.unwrap();
    assert!(matches!(buffer.find(id).await.unwrap(), Some(Found::Pending { .. })));
    let place = batch(&buffer).await[0].place;
    settle(
        &buffer,
        place,
        Verdict::Dead { tries: Tries::default().failed(), reason: "not_found".to_owned() },
    )
    .await;
    match buffer.find(id).await.unwrap() {
        Some(Found::Dead(letter)) => assert_eq!(letter.reason, "not_found"),
        found => panic!("{found:?}"),
    }
    assert_eq!(buffer.stats().await.unwrap().dead, 1);
    assert_eq!(buffer.purge_dead(unix_millis() + 1).await.unwrap(), 1);
    assert!(buffer.find(id).await.unwrap().is_none());
    assert_eq!(buffer.stats().await.unwrap(), Stats::default());
    audit::check(&buffer).await;
}

#[tokio::test]
async fn old_operations_expire_but_not_those_on_their_way() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let spared = buffer.append(operation(&clock, 1, delete(1)), None).await.unwrap();
    let old = buffer.append(operation(&clock, 1, delete(2)), None).await.unwrap();
    let busy = HashSet::from([Lane { kind: EntityKind::Task, id: Uuid::from_u128(1) }]);
    assert_eq!(buffer.expire(0, HashSet::new()).await.unwrap(), 0);
    assert_eq!(buffer.expire(unix_millis() + 1, busy).await.unwrap(), 1);
    assert!(matches!(buffer.find(spared).await.unwrap(), Some(Found::Pending { .. })));
    match buffer.find(old).await.unwrap() {
        Some(Found::Dead(letter)) => {
            assert_eq!(letter.state, crate::domain::OperationState::Expired);
        }
        found => panic!("{found:?}"),
    }
    audit::check(&buffer).await;
}

#[tokio::test]
async fn a_damaged_record_is_set_aside_and_its_lane_goes_on() {
    for offset in [3_usize, 90] {
        let host = Host::new();
        let clock = Clock::default();
        let buffer = host.open();
        let mut ids = Vec::new();
        for change in [create(1), delete(1), delete(2)] {
            ids.push(buffer.append(operation(&clock, 1, change), None).await.unwrap());
        }
        audit::flip(&buffer, 0, offset).await;
        let wrong = buffer.verify(|_| ()).await.unwrap();
        assert!(wrong.problems[0].starts_with("record 0: "), "{wrong:?}");
        assert_eq!(set_damaged_aside(&buffer).await.len(), 1, "offset {offset}");
        assert_eq!(buffer.stats().await.unwrap().quarantined, 1);
        assert!(matches!(buffer.find(ids[0]).await.unwrap(), Some(Found::Quarantined { .. })));
        assert_eq!(ids_of_batch(&buffer).await, HashSet::from([ids[1], ids[2]]));
        audit::check(&buffer).await;
    }
}

#[tokio::test]
async fn i9_a_lane_of_which_no_record_can_be_read_is_set_aside_to_its_end() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    for change in [create(1), delete(1), delete(1)] {
        buffer.append(operation(&clock, 1, change), None).await.unwrap();
    }
    for place in 0..3 {
        audit::flip(&buffer, place, 3).await;
    }
    for expected in 1..=3 {
        let batch = buffer.next_batch(unix_millis(), LIMITS, HashSet::new()).await.unwrap();
        let (place, damage) = batch.damaged[0];
        settle(&buffer, place, Verdict::Damaged(damage)).await;
        assert_eq!(buffer.stats().await.unwrap().quarantined, expected);
    }
    assert_eq!(buffer.stats().await.unwrap().pending, 0);
    audit::check(&buffer).await;
}

#[tokio::test]
async fn a_lane_of_which_only_an_unreadable_record_is_left_is_still_found() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    for change in [create(1), delete(1), delete(1), delete(1)] {
        buffer.append(operation(&clock, 1, change), None).await.unwrap();
    }
    assert_eq!(batch(&buffer).await.len(), 4);
    for damaged in [0, 2] {
        audit::flip(&buffer, damaged, 3).await;
    }
    assert_eq!(set_damaged_aside(&buffer).await.len(), 1);
    let done = |place| Settlement { place, verdict: Verdict::Done };
    buffer.settle(vec![done(1), done(3)]).await.unwrap();
    assert_eq!(set_damaged_aside(&buffer).await.len(), 1);
    let stats = buffer.stats().await.unwrap();
    assert_eq!((stats.pending, stats.by_priority, stats.quarantined), (0, [0; 5], 2));
    audit::check(&buffer).await;
}
