//! The WAL and its file: what was acknowledged is there however a process ended and whoever removed or
//! replaced the file, and no WAL is taken for that of another buffer, or of another state of its own.

use std::path::PathBuf;

use futures::future::join_all;

use super::*;
use crate::buffer::wal::file::LENGTH;
use crate::buffer::wal::frame::PAGE;

pub(super) fn path_of_wal(buffer: &Buffer) -> PathBuf {
    sibling(&buffer.settings().buffer_path, "log")
}

/// Creates of tasks from `first` on, each in a commit of its own, in the WAL.
pub(super) async fn logged(
    buffer: &Buffer,
    clock: &Clock,
    first: u128,
    count: u128,
) -> Vec<Version> {
    let mut ids = Vec::new();
    for task in first..first + count {
        ids.push(buffer.append(operation(clock, 1, create(task)), None).await.unwrap());
    }
    assert!(audit::tail(buffer, |tail| tail.len() >= u64::try_from(count).unwrap()));
    ids
}

/// Has all that a future asks of a buffer done in one commit.
pub(super) async fn in_one_commit<F: Future>(buffer: &Buffer, asked: F) -> F::Output {
    let turn = BufferFile::open(&buffer.settings().buffer_path, 1 << 20).unwrap().1;
    let turn = turn.begin_write().unwrap();
    let mut asked = std::pin::pin!(asked);
    assert!(futures::poll!(&mut asked).is_pending());
    turn.abort().unwrap();
    asked.await
}

/// Several creates in one frame of several pages.
pub(super) async fn logged_at_once(buffer: &Buffer, clock: &Clock, count: u128) -> Vec<Version> {
    let appends =
        (0..count).map(|task| buffer.append(operation(clock, 1, create(1000 + task)), None));
    let appended = in_one_commit(buffer, join_all(appends)).await;
    appended.into_iter().map(Result::unwrap).collect()
}

pub(super) async fn pending(buffer: &Buffer) -> HashSet<Version> {
    let page = buffer.pending_page(PendingFilter::default(), None, 10_000).await.unwrap();
    page.items.into_iter().map(|entry| entry.operation.id).collect()
}

/// Opens the buffer anew, as it was left, with other bytes in the WAL.
pub(super) async fn reopened_with(
    folder: &Path,
    wal: &Path,
    change: impl FnOnce(&mut Vec<u8>),
) -> Buffer {
    let mut bytes = std::fs::read(wal).unwrap();
    change(&mut bytes);
    std::fs::write(wal, bytes).unwrap();
    open(folder)
}

#[tokio::test]
async fn i1_what_a_killed_process_has_left_in_the_log_is_there() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let mut ids = logged(&buffer, &clock, 1, 3).await;
    killed(buffer);
    let buffer = host.open();
    ids.extend(logged(&buffer, &clock, 4, 2).await);
    assert_eq!(audit::tail(&buffer, Tail::len), 5, "behind those that were there");
    assert_eq!(pending(&buffer).await, ids.iter().copied().collect());
    audit::check(&buffer).await;
    assert_eq!(ids_of_batch(&buffer).await, ids.into_iter().collect());
    audit::check(&buffer).await;
}

#[tokio::test]
async fn after_an_orderly_end_everything_is_in_the_buffer_file_alone() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let ids = logged(&buffer, &clock, 1, 3).await;
    let wal = path_of_wal(&buffer);
    drop(buffer);
    std::fs::remove_file(wal).unwrap();
    let buffer = host.open();
    assert_eq!(pending(&buffer).await, ids.into_iter().collect());
}

#[tokio::test]
async fn a_full_log_is_emptied_into_the_tables() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let frames = u128::from(LENGTH / PAGE) - 1;
    logged(&buffer, &clock, 0, frames).await;
    buffer.append(operation(&clock, 1, create(frames)), None).await.unwrap();
    assert_eq!(audit::tail(&buffer, Tail::len), 0);
    logged(&buffer, &clock, frames + 1, 1).await;
    assert_eq!(u128::from(buffer.stats().await.unwrap().pending), frames + 2);
    assert_eq!(std::fs::metadata(path_of_wal(&buffer)).unwrap().len(), LENGTH);
    audit::check(&buffer).await;
}

#[tokio::test]
async fn several_processes_share_a_log() {
    let host = Host::new();
    let clock = Clock::default();
    let one = host.open();
    let other = host.open();
    let mut ids = logged(&one, &clock, 1, 1).await;
    assert_eq!(batch(&one).await.len(), 1);
    for task in 1..4 {
        let by = if task % 2 == 0 { &one } else { &other };
        ids.push(by.append(operation(&clock, 1, create(1 + task)), None).await.unwrap());
        assert_eq!(u128::from(audit::tail(by, Tail::len)), task);
    }
    for buffer in [&one, &other] {
        assert_eq!(pending(buffer).await, ids.iter().copied().collect());
    }
    audit::check(&one).await;
}

/// The WALs that were put aside.
fn put_aside(buffer: &Buffer) -> Vec<PathBuf> {
    let wal = path_of_wal(buffer);
    let files = std::fs::read_dir(wal.parent().unwrap()).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let prefix = format!("{}.", wal.display());
    paths.filter(|path| path.display().to_string().starts_with(&prefix)).collect()
}

#[tokio::test]
async fn the_log_of_another_file_is_put_aside_and_none_of_it_applied() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let path = buffer.settings().buffer_path.clone();
    logged(&buffer, &clock, 1, 2).await;
    killed(buffer);
    let logged_before = std::fs::read(sibling(&path, "log")).unwrap();
    std::fs::rename(&path, host.path().join("away")).unwrap();
    let buffer = host.open();
    assert_eq!(buffer.stats().await.unwrap(), Stats::default());
    let [aside] = &put_aside(&buffer)[..] else { panic!("one is put aside") };
    assert_eq!(std::fs::read(aside).unwrap(), logged_before);
    logged(&buffer, &clock, 3, 1).await;
}

#[tokio::test]
async fn the_log_of_another_file_is_put_aside_however_often_either_was_emptied() {
    for (emptied, other_emptied) in [(0, 3), (3, 0)] {
        let (host, other_host) = (Host::new(), Host::new());
        let clock = Clock::default();
        let buffer = host.open();
        let other = other_host.open();
        for (buffer, emptied) in [(&buffer, emptied), (&other, other_emptied)] {
            for task in 0..emptied {
                logged(buffer, &clock, task, 1).await;
                batch(buffer).await;
            }
        }
        logged(&other, &clock, 10, 1).await;
        let of_other = std::fs::read(path_of_wal(&other)).unwrap();
        let (wal, before) = (path_of_wal(&buffer), pending(&buffer).await);
        killed(buffer);
        let buffer = reopened_with(host.path(), &wal, |bytes| *bytes = of_other).await;
        assert_eq!(put_aside(&buffer).len(), 1);
        assert_eq!(pending(&buffer).await, before);
        logged(&buffer, &clock, 11, 1).await;
    }
}

#[tokio::test]
async fn i1_a_log_that_is_removed_during_a_commit_costs_nothing() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let mut ids = logged(&buffer, &clock, 1, 1).await;
    let wal = path_of_wal(&buffer);
    let remove = move |intake: &mut Intake<'_>, _: &Room| {
        let appended = operation(&Clock::default(), 1, create(7));
        let payload = record::encode_payload(&appended, &Keys::default())?;
        intake.append(&record::Header::of(&appended, 5), &payload);
        std::fs::remove_file(&wal).unwrap();
        Ok(appended.id)
    };
    ids.push(buffer.take_in(remove, OnFullDisk::Refuse).await.unwrap());
    ids.push(buffer.append(operation(&clock, 1, create(2)), None).await.unwrap());
    killed(buffer);
    let buffer = host.open();
    assert_eq!(pending(&buffer).await, ids.into_iter().collect());
}

/// The WAL is removed while one process is idle, and another starts.
#[tokio::test]
async fn i1_what_goes_into_a_new_log_stays_when_who_had_the_old_one_wakes_up() {
    let host = Host::new();
    let clock = Clock::default();
    let idle = host.open();
    logged(&idle, &clock, 1, 1).await;
    std::fs::remove_file(path_of_wal(&idle)).unwrap();
    let fresh = host.open();
    let mut ids = Vec::new();
    for (by, task) in [(&fresh, 2), (&fresh, 3), (&idle, 4), (&fresh, 5), (&idle, 6)] {
        ids.push(by.append(operation(&clock, 1, create(task)), None).await.unwrap());
    }
    for buffer in [&idle, &fresh] {
        assert!(pending(buffer).await.is_superset(&ids.iter().copied().collect()));
    }
    audit::check(&fresh).await;
}

#[tokio::test]
async fn i1_a_log_that_is_replaced_while_a_process_waits_for_its_turn_is_noticed() {
    let host = Host::new();
    let clock = Clock::default();
    let one = host.open();
    let other = host.open();
    let mut ids = logged(&one, &clock, 1, 2).await;
    let peer = BufferFile::open(&one.settings().buffer_path, 1 << 20).unwrap().1;
    let turn = peer.begin_write().unwrap();
    let mut waiting = Box::pin(other.append(operation(&clock, 1, create(3)), None));
    assert!(futures::poll!(&mut waiting).is_pending());
    std::fs::remove_file(path_of_wal(&one)).unwrap();
    turn.abort().unwrap();
    ids.push(waiting.await.unwrap());
    for (by, task) in [(&one, 4), (&other, 5), (&one, 6)] {
        ids.push(by.append(operation(&clock, 1, create(task)), None).await.unwrap());
    }
    killed(one);
    killed(other);
    let buffer = host.open();
    assert_eq!(pending(&buffer).await, ids.into_iter().collect());
    audit::check(&buffer).await;
}

#[tokio::test]
async fn the_log_of_a_later_state_of_the_file_is_put_aside() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let path = buffer.settings().buffer_path.clone();
    let old = buffer.append(operation(&clock, 1, create(1)), None).await.unwrap();
    assert_eq!(batch(&buffer).await.len(), 1);
    let copy = std::fs::read(&path).unwrap();
    logged(&buffer, &clock, 2, 1).await;
    assert_eq!(batch(&buffer).await.len(), 2);
    logged(&buffer, &clock, 3, 2).await;
    killed(buffer);
    std::fs::remove_file(&path).unwrap();
    drop(open_private(&path).unwrap());
    std::fs::write(&path, copy).unwrap();
    let buffer = host.open();
    assert_eq!(pending(&buffer).await, HashSet::from([old]));
    assert_eq!(put_aside(&buffer).len(), 1);
    logged(&buffer, &clock, 5, 1).await;
    audit::check(&buffer).await;
}

#[tokio::test]
async fn i1_a_log_that_was_taken_away_is_noticed_and_what_it_had_goes_into_the_tables() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let mut ids = logged(&buffer, &clock, 1, 2).await;
    std::fs::remove_file(path_of_wal(&buffer)).unwrap();
    ids.push(buffer.append(operation(&clock, 1, create(3)), None).await.unwrap());
    ids.push(buffer.append(operation(&clock, 1, create(4)), None).await.unwrap());
    killed(buffer);
    let buffer = host.open();
    assert_eq!(pending(&buffer).await, ids.into_iter().collect());
    audit::check(&buffer).await;
}
