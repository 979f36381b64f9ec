//! The log: what was acknowledged is there however a process or the machine ended, damage is found, and
//! no log is taken for that of another file, or of another state of its own.

use std::path::PathBuf;

use futures::future::join_all;
use redb::ReadableDatabase;

use super::super::log::{LENGTH, PAGE};
use super::*;

fn path_of_log(buffer: &Buffer) -> PathBuf {
    sibling(&buffer.settings().buffer_path, "log")
}

/// Creates of tasks from `first` on, each in a commit of its own, in the log.
async fn logged(buffer: &Buffer, clock: &Clock, first: u128, count: u128) -> Vec<Version> {
    let mut ids = Vec::new();
    for task in first..first + count {
        ids.push(buffer.append(operation(clock, 1, create(task)), None).await.unwrap());
    }
    assert!(audit::tail(buffer, |tail| tail.len() >= u64::try_from(count).unwrap()));
    ids
}

/// Several creates in one frame of several pages.
async fn logged_at_once(buffer: &Buffer, clock: &Clock, count: u128) -> Vec<Version> {
    let turn = BufferFile::open(&buffer.settings().buffer_path, 1 << 20).unwrap().1;
    let turn = turn.begin_write().unwrap();
    let appends: Vec<_> = (0..count)
        .map(|task| buffer.append(operation(clock, 1, create(1000 + task)), None))
        .map(Box::pin)
        .collect();
    let mut appends = join_all(appends);
    assert!(futures::poll!(&mut appends).is_pending());
    turn.abort().unwrap();
    appends.await.into_iter().map(Result::unwrap).collect()
}

async fn pending(buffer: &Buffer) -> HashSet<Version> {
    let page = buffer.pending_page(PendingFilter::default(), None, 10_000).await.unwrap();
    page.items.into_iter().map(|entry| entry.operation.id).collect()
}

/// Opens the buffer anew, as it was left, with other bytes in the log.
async fn reopened_with(folder: &Path, log: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Buffer {
    let mut bytes = std::fs::read(log).unwrap();
    change(&mut bytes);
    std::fs::write(log, bytes).unwrap();
    Buffer::open(&settings(folder)).unwrap()
}

#[tokio::test]
async fn i1_what_a_killed_process_has_left_in_the_log_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    let mut ids = logged(&buffer, &clock, 1, 3).await;
    killed(buffer);
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    ids.extend(logged(&buffer, &clock, 4, 2).await);
    assert_eq!(audit::tail(&buffer, Tail::len), 5, "behind those that were there");
    assert_eq!(pending(&buffer).await, ids.iter().copied().collect());
    audit::check(&buffer).await;
    assert_eq!(ids_of_batch(&buffer).await, ids.into_iter().collect());
    audit::check(&buffer).await;
}

#[tokio::test]
async fn after_an_orderly_end_everything_is_in_the_buffer_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    let ids = logged(&buffer, &clock, 1, 3).await;
    let log = path_of_log(&buffer);
    drop(buffer);
    std::fs::remove_file(log).unwrap();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    assert_eq!(pending(&buffer).await, ids.into_iter().collect());
}

#[tokio::test]
async fn a_full_log_is_emptied_into_the_tables() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    let frames = u128::from(LENGTH / PAGE) - 1;
    logged(&buffer, &clock, 0, frames).await;
    buffer.append(operation(&clock, 1, create(frames)), None).await.unwrap();
    assert_eq!(audit::tail(&buffer, Tail::len), 0);
    logged(&buffer, &clock, frames + 1, 1).await;
    assert_eq!(u128::from(buffer.stats().await.unwrap().pending), frames + 2);
    assert_eq!(std::fs::metadata(path_of_log(&buffer)).unwrap().len(), LENGTH);
    audit::check(&buffer).await;
}

#[tokio::test]
async fn several_processes_share_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let one = Buffer::open(&settings(folder.path())).unwrap();
    let other = Buffer::open(&settings(folder.path())).unwrap();
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

/// Pages reach the disk in any order when power is lost in the middle of a write; of a killed process the
/// first comes last. What was acknowledged before stays as it was.
#[tokio::test]
async fn i1_a_torn_frame_takes_nothing_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    let before: HashSet<_> = logged(&buffer, &clock, 1, 2).await.into_iter().collect();
    let log = path_of_log(&buffer);
    let without = std::fs::read(&log).unwrap();
    let at = usize::try_from(audit::tail(&buffer, Tail::end)).unwrap();
    let torn: HashSet<_> = logged_at_once(&buffer, &clock, 30).await.into_iter().collect();
    let end = usize::try_from(audit::tail(&buffer, Tail::end)).unwrap();
    let (page, with) = (usize::try_from(PAGE).unwrap(), std::fs::read(&log).unwrap());
    let pages = (end - at) / page;
    assert!(pages >= 3, "{pages}");
    killed(buffer);
    let original = std::fs::read(&settings(folder.path()).buffer_path).unwrap();
    for written in 0..1_usize << pages {
        let folder = tempfile::tempdir().unwrap();
        let path = settings(folder.path()).buffer_path;
        private_folder(&path).unwrap();
        drop(open_private(&path).unwrap());
        drop(open_private(&sibling(&path, "log")).unwrap());
        std::fs::write(&path, &original).unwrap();
        let mut bytes = without.clone();
        for number in (0..pages).filter(|number| written >> number & 1 == 1) {
            let page = at + number * page..at + (number + 1) * page;
            bytes[page.clone()].copy_from_slice(&with[page]);
        }
        std::fs::write(sibling(&path, "log"), bytes).unwrap();
        let buffer = Buffer::open(&settings(folder.path())).unwrap();
        while !set_damaged_aside(&buffer).await.is_empty() {}
        let found = pending(&buffer).await;
        assert!(found.is_superset(&before), "{written:b}");
        let of_torn = found.difference(&before).copied().collect::<HashSet<_>>();
        assert!(of_torn.is_subset(&torn));
        let has_head = written & 1 == 1;
        let stats = buffer.stats().await.unwrap();
        let expected = if has_head { torn.len() } else { 0 };
        assert_eq!(stats.pending + stats.quarantined, 2 + expected as u64, "{written:b}");
        if !has_head {
            assert_eq!(stats.quarantined, 0, "{written:b}");
        }
        if written + 1 == 1 << pages {
            assert_eq!(of_torn, torn);
        }
        audit::check(&buffer).await;
        logged(&buffer, &clock, 5000, 1).await;
    }
}

#[tokio::test]
async fn damage_in_the_log_is_found_and_costs_only_what_it_hit() {
    let page = usize::try_from(PAGE).unwrap();
    // Frames of one record each begin at the second page; of a frame the head has 40 bytes, and before
    // the record comes its length.
    let flips = [
        ("the first frame, which has no records", 9, 0),
        ("a head", page + 9, 0),
        ("the check of a body, in the head", page + 33, 0),
        ("the head of the last frame", 3 * page + 9, 0),
        ("a length", page + 40, 1),
        ("a record's header", page + 44 + 3, 1),
        ("a record's payload", page + 44 + 90, 1),
        ("a record's end", page + 44 + 420, 1),
    ];
    for (what, at, hit) in flips {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::default();
        let buffer = Buffer::open(&settings(folder.path())).unwrap();
        let ids = logged(&buffer, &clock, 1, 3).await;
        let log = path_of_log(&buffer);
        killed(buffer);
        let buffer = reopened_with(folder.path(), &log, |bytes| bytes[at] ^= 4).await;
        while !set_damaged_aside(&buffer).await.is_empty() {}
        let stats = buffer.stats().await.unwrap();
        assert_eq!((stats.pending, stats.quarantined), (3 - hit, hit), "{what}");
        assert_eq!(stats.oldest_queued_at.is_some(), stats.pending > 0);
        let left = pending(&buffer).await;
        assert!(ids[1..].iter().all(|id| left.contains(id)), "{what}");
        audit::check(&buffer).await;
        logged(&buffer, &clock, 4, 1).await;
    }
}

#[tokio::test]
async fn a_page_of_zeros_in_the_log_costs_only_what_was_on_it() {
    let page = usize::try_from(PAGE).unwrap();
    for (number, hit) in [(0, 0), (1, 1), (2, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::default();
        let buffer = Buffer::open(&settings(folder.path())).unwrap();
        let ids = logged(&buffer, &clock, 1, 3).await;
        let log = path_of_log(&buffer);
        killed(buffer);
        let zeros = |bytes: &mut Vec<u8>| bytes[number * page..(number + 1) * page].fill(0);
        let buffer = reopened_with(folder.path(), &log, zeros).await;
        let stats = buffer.stats().await.unwrap();
        assert_eq!((stats.pending, stats.quarantined), (3 - hit, hit), "page {number}");
        assert!(pending(&buffer).await.contains(&ids[2]));
        audit::check(&buffer).await;
    }
}

#[tokio::test]
async fn garbage_in_the_place_of_a_log_blocks_nothing() {
    for garbage in [vec![], vec![7; 10], vec![0; 1 << 20], vec![0xff; 3 << 20]] {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::default();
        let buffer = Buffer::open(&settings(folder.path())).unwrap();
        let log = path_of_log(&buffer);
        let id = buffer.append(operation(&clock, 1, create(1)), None).await.unwrap();
        drop(buffer);
        let buffer = reopened_with(folder.path(), &log, |bytes| *bytes = garbage).await;
        assert_eq!(pending(&buffer).await, HashSet::from([id]));
        for task in 2..5 {
            buffer.append(operation(&clock, 1, create(task)), None).await.unwrap();
        }
        killed(buffer);
        let buffer = Buffer::open(&settings(folder.path())).unwrap();
        assert_eq!(pending(&buffer).await.len(), 4);
    }
}

/// The logs that were put aside.
fn put_aside(buffer: &Buffer) -> Vec<PathBuf> {
    let log = path_of_log(buffer);
    let files = std::fs::read_dir(log.parent().unwrap()).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let prefix = format!("{}.", log.display());
    paths.filter(|path| path.display().to_string().starts_with(&prefix)).collect()
}

#[tokio::test]
async fn the_log_of_another_file_is_put_aside_and_none_of_it_applied() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    let path = buffer.settings().buffer_path.clone();
    logged(&buffer, &clock, 1, 2).await;
    killed(buffer);
    let logged_before = std::fs::read(sibling(&path, "log")).unwrap();
    std::fs::rename(&path, folder.path().join("away")).unwrap();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    assert_eq!(buffer.stats().await.unwrap(), Stats::default());
    let [aside] = &put_aside(&buffer)[..] else { panic!("one is put aside") };
    assert_eq!(std::fs::read(aside).unwrap(), logged_before);
    logged(&buffer, &clock, 3, 1).await;
}

#[tokio::test]
async fn the_log_of_another_file_is_put_aside_however_often_either_was_emptied() {
    for (emptied, other_emptied) in [(0, 3), (3, 0)] {
        let (folder, other_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let clock = Clock::default();
        let buffer = Buffer::open(&settings(folder.path())).unwrap();
        let other = Buffer::open(&settings(other_folder.path())).unwrap();
        for (buffer, emptied) in [(&buffer, emptied), (&other, other_emptied)] {
            for task in 0..emptied {
                logged(buffer, &clock, task, 1).await;
                batch(buffer).await;
            }
        }
        logged(&other, &clock, 10, 1).await;
        let of_other = std::fs::read(path_of_log(&other)).unwrap();
        let (log, before) = (path_of_log(&buffer), pending(&buffer).await);
        killed(buffer);
        let buffer = reopened_with(folder.path(), &log, |bytes| *bytes = of_other).await;
        assert_eq!(put_aside(&buffer).len(), 1);
        assert_eq!(pending(&buffer).await, before);
        logged(&buffer, &clock, 11, 1).await;
    }
}

#[tokio::test]
async fn i1_a_log_that_is_removed_during_a_commit_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    let mut ids = logged(&buffer, &clock, 1, 1).await;
    let log = path_of_log(&buffer);
    let removed = buffer.append_work(move |tables, _| {
        let appended = operation(&Clock::default(), 1, create(7));
        let payload = record::encode_payload(&appended, &Keys::default())?;
        tables.append(&record::Header::of(&appended, 5), &payload);
        std::fs::remove_file(&log).unwrap();
        Ok(appended.id)
    });
    ids.push(removed.await.unwrap());
    ids.push(buffer.append(operation(&clock, 1, create(2)), None).await.unwrap());
    killed(buffer);
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    assert_eq!(pending(&buffer).await, ids.into_iter().collect());
}

/// The log is removed while one process is idle, and another starts.
#[tokio::test]
async fn i1_what_goes_into_a_new_log_stays_when_who_had_the_old_one_wakes_up() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let idle = Buffer::open(&settings(folder.path())).unwrap();
    logged(&idle, &clock, 1, 1).await;
    std::fs::remove_file(path_of_log(&idle)).unwrap();
    let fresh = Buffer::open(&settings(folder.path())).unwrap();
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
async fn a_reader_looks_into_the_log_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let reader = Buffer::open(&settings(folder.path())).unwrap();
    let writer = Buffer::open(&settings(folder.path())).unwrap();
    let mut ids = logged(&writer, &clock, 1, 1).await;
    assert_eq!(pending(&reader).await.len(), 1);
    std::fs::remove_file(path_of_log(&writer)).unwrap();
    for task in 2..5 {
        ids.push(writer.append(operation(&clock, 1, create(task)), None).await.unwrap());
    }
    assert!(audit::tail(&writer, Tail::len) > 0);
    assert_eq!(pending(&reader).await, ids.into_iter().collect());
}

#[tokio::test]
async fn i1_a_log_that_is_replaced_while_a_process_waits_for_its_turn_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let one = Buffer::open(&settings(folder.path())).unwrap();
    let other = Buffer::open(&settings(folder.path())).unwrap();
    let mut ids = logged(&one, &clock, 1, 2).await;
    let peer = BufferFile::open(&one.settings().buffer_path, 1 << 20).unwrap().1;
    let turn = peer.begin_write().unwrap();
    let mut waiting = Box::pin(other.append(operation(&clock, 1, create(3)), None));
    assert!(futures::poll!(&mut waiting).is_pending());
    std::fs::remove_file(path_of_log(&one)).unwrap();
    turn.abort().unwrap();
    ids.push(waiting.await.unwrap());
    for (by, task) in [(&one, 4), (&other, 5), (&one, 6)] {
        ids.push(by.append(operation(&clock, 1, create(task)), None).await.unwrap());
    }
    killed(one);
    killed(other);
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    assert_eq!(pending(&buffer).await, ids.into_iter().collect());
    audit::check(&buffer).await;
}

#[tokio::test]
async fn the_log_of_a_later_state_of_the_file_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
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
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    assert_eq!(pending(&buffer).await, HashSet::from([old]));
    assert_eq!(put_aside(&buffer).len(), 1);
    logged(&buffer, &clock, 5, 1).await;
    audit::check(&buffer).await;
}

#[tokio::test]
async fn i1_a_log_that_was_taken_away_is_noticed_and_what_it_had_goes_into_the_tables() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    let mut ids = logged(&buffer, &clock, 1, 2).await;
    std::fs::remove_file(path_of_log(&buffer)).unwrap();
    ids.push(buffer.append(operation(&clock, 1, create(3)), None).await.unwrap());
    ids.push(buffer.append(operation(&clock, 1, create(4)), None).await.unwrap());
    killed(buffer);
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    assert_eq!(pending(&buffer).await, ids.into_iter().collect());
    audit::check(&buffer).await;
}

/// Readers hold no lock: what they read may be emptied and written over meanwhile.
#[tokio::test]
async fn a_reader_knows_when_the_log_was_emptied_and_written_over_before_it_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    logged(&buffer, &clock, 1, 2).await;
    let opened = buffer.handle.read().unwrap().clone();
    let mark = audit::tail(&buffer, Tail::mark);
    let follow = || {
        let mut tail = Tail::new(mark);
        let begun = tail.follow(&opened.log).unwrap();
        (begun == mark.generation, begun > mark.generation, tail.len())
    };
    assert_eq!(follow(), (true, false, 2));
    assert_eq!(batch(&buffer).await.len(), 2);
    assert_eq!(follow(), (true, false, 2), "emptied, and still there");
    logged(&buffer, &clock, 3, 1).await;
    let (_, is_overtaken, _) = follow();
    assert!(is_overtaken);
    buffer.scrub().await.unwrap();
    let (_, is_overtaken, left) = follow();
    assert!(is_overtaken && left == 0, "overwritten");
}

/// Readers of one state share what they know of its tail.
#[tokio::test]
async fn i4_a_state_keeps_its_tail_when_another_reader_was_overtaken() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    let id = logged(&buffer, &clock, 1, 1).await[0];
    let opened = buffer.handle.read().unwrap().clone();
    let (old, same) = (Snapshot::take(&opened).unwrap(), Snapshot::take(&opened).unwrap());
    let mark = old.tail().mark();
    // Emptied and written to again, and no reader has been there since.
    buffer.write(|_, _| Ok(())).await.unwrap();
    buffer.append(operation(&clock, 1, create(2)), None).await.unwrap();
    // One that has begun before, and reads the log only now.
    let begun = opened.tail(mark).unwrap().lock().unwrap().follow(&opened.log).unwrap();
    assert!(begun > mark.generation);
    for state in [&old, &same] {
        assert!(state.tail().place(id.as_uuid().as_u128()).is_some());
        assert!(state.records().unwrap().get(0).unwrap().is_some());
    }
}

#[tokio::test]
async fn i4_a_reader_that_was_overtaken_takes_another_state() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    buffer.append(operation(&clock, 1, create(1)), None).await.unwrap();
    let opened = buffer.handle.read().unwrap().clone();
    let begin = || opened.database.begin_read().unwrap();
    let [early, late] = [begin(), begin()];
    buffer.write(|_, _| Ok(())).await.unwrap();
    let early = Snapshot::of(&opened, early).unwrap().expect("all of it is still there");
    assert!(early.records().unwrap().get(0).unwrap().is_some());
    buffer.append(operation(&clock, 1, create(2)), None).await.unwrap();
    assert!(Snapshot::of(&opened, late).unwrap().is_none());
    let now = Snapshot::take(&opened).unwrap();
    assert_eq!(now.records().unwrap().from(0).unwrap().count(), 2);
}

/// A frame that could not be synced is taken back, and another comes in its place.
#[tokio::test]
async fn a_reader_does_not_keep_a_frame_that_was_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let one = Buffer::open(&settings(folder.path())).unwrap();
    let reader = Buffer::open(&settings(folder.path())).unwrap();
    let kept = logged(&one, &clock, 1, 1).await[0];
    let at = usize::try_from(audit::tail(&one, Tail::end)).unwrap();
    let taken_back = logged(&one, &clock, 2, 1).await[0];
    assert_eq!(pending(&reader).await, HashSet::from([kept, taken_back]));
    let log = path_of_log(&one);
    killed(one);
    let page = usize::try_from(PAGE).unwrap();
    let zeros = |bytes: &mut Vec<u8>| bytes[at..at + page].fill(0);
    let other = reopened_with(folder.path(), &log, zeros).await;
    let instead = logged(&other, &clock, 3, 1).await[0];
    let later = logged(&other, &clock, 4, 1).await[0];
    assert_eq!(pending(&reader).await, HashSet::from([kept, instead, later]));
    let lanes = [2, 3].map(|id| Lane { kind: EntityKind::Task, id: Uuid::from_u128(id) });
    assert_eq!(reader.pending_lanes(lanes.to_vec()).await.unwrap(), HashSet::from([lanes[1]]));
}

#[tokio::test]
async fn damage_in_a_frame_that_is_half_in_the_tables_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    let ids = logged_at_once(&buffer, &clock, 5).await;
    audit::index(&buffer, 2);
    let record = audit::tail(&buffer, |tail| tail.record(3).unwrap().to_vec());
    let log = path_of_log(&buffer);
    killed(buffer);
    let buffer = reopened_with(folder.path(), &log, |bytes| {
        let at = bytes.windows(record.len()).position(|window| window == record).unwrap();
        bytes[at + 5] ^= 4;
    })
    .await;
    let left = [ids[0], ids[1], ids[2], ids[4]];
    assert_eq!(pending(&buffer).await, HashSet::from(left));
    assert_eq!(buffer.stats().await.unwrap().quarantined, 1);
    audit::check(&buffer).await;
}

#[tokio::test]
async fn what_a_log_does_not_take_goes_into_the_tables() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let buffer = Buffer::open(&settings(folder.path())).unwrap();
    let mut ids = logged(&buffer, &clock, 1, 2).await;
    let mut opened = Arc::into_inner(open_file(buffer.settings()).unwrap()).unwrap();
    opened.log.file = std::fs::File::open(path_of_log(&buffer)).unwrap();
    *buffer.handle.write().unwrap() = Arc::new(opened);
    ids.push(buffer.append(operation(&clock, 1, create(3)), None).await.unwrap());
    assert_eq!(audit::tail(&buffer, Tail::len), 0);
    assert_eq!(pending(&buffer).await, ids.into_iter().collect());
    audit::check(&buffer).await;
}
