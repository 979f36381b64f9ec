//! What no index tells of yet is found as if they did, by every process, and comes to the same.

use futures::future::join_all;
use redb::ReadableDatabase;

use super::*;
use crate::buffer::format::layout::{COUNTERS, FORMAT, FORMAT_KEY};
use crate::buffer::repair::anew::repair;

/// What every way of looking shows of a history of two users: ids, in order.
#[derive(Debug, PartialEq)]
struct View {
    lane: Vec<Version>,
    lanes: HashSet<Lane>,
    user: Vec<Version>,
    pages: [Vec<Version>; 4],
    heads: HashSet<Version>,
    found: Vec<bool>,
    stats: Stats,
}

fn task(id: u128) -> Lane {
    Lane { kind: EntityKind::Task, id: Uuid::from_u128(id) }
}

async fn view(buffer: &Buffer, ids: &[Version]) -> View {
    let ids_of = |operations: Vec<Operation>| operations.iter().map(|o| o.id).collect();
    let all = PendingFilter::default();
    let of_user = PendingFilter { user_id: Some(Uuid::from_u128(1)), ..all };
    let of_lane = PendingFilter { lane: Some(task(1)), ..all };
    let mut pages = [const { Vec::new() }; 4];
    let filters = [(all, None), (of_user, None), (of_lane, None), (of_user, Some(1))];
    for (page, (filter, after)) in pages.iter_mut().zip(filters) {
        let found = buffer.pending_page(filter, after, 100).await.unwrap();
        *page = found.items.iter().map(|entry| entry.operation.id).collect();
    }
    let mut found = Vec::new();
    for id in ids {
        found.push(matches!(buffer.find(*id).await.unwrap(), Some(Found::Pending { .. })));
    }
    let heads = buffer.heads(EntityKind::Task, HashSet::new(), 100).await.unwrap();
    View {
        lane: ids_of(buffer.lane(task(1)).await.unwrap()),
        lanes: buffer.before_writing(vec![task(1), task(2), task(3)]).await.unwrap().pending,
        user: ids_of(buffer.of_user(Uuid::from_u128(1)).await.unwrap()),
        pages,
        heads: heads.iter().map(|(_, operation)| operation.id).collect(),
        found,
        stats: buffer.stats().await.unwrap(),
    }
}

#[tokio::test]
async fn what_no_index_tells_of_is_seen_as_if_they_did() {
    let host = Host::new();
    let clock = Arc::new(Clock::default());
    let one = host.open();
    let other = host.open();
    let mut ids = Vec::new();
    let history = [
        (1, create(1)),
        (2, create(2)),
        (1, delete(1)),
        (1, prefer()),
        (2, delete(2)),
        (2, create(3)),
    ];
    for (number, (user, change)) in history.into_iter().enumerate() {
        if number == 2 {
            // What is there so far is in the indexes, and the rest in the tail behind it.
            assert_eq!(batch(&one).await.len(), 2);
        }
        let buffer = if number % 2 == 0 { &one } else { &other };
        let appended = operation(&clock, user, change);
        ids.push(buffer.append(appended, Some(Arc::clone(&clock))).await.unwrap());
    }
    assert_eq!(audit::tail(&one, Tail::len), 4);
    let seen = view(&one, &ids).await;
    assert_eq!(seen.lane, [ids[0], ids[2]]);
    assert_eq!(seen.user, [ids[0], ids[2], ids[3]]);
    assert_eq!(seen.pages[0], ids);
    assert_eq!(seen.pages[3], [ids[2], ids[3]]);
    assert_eq!(seen.lanes, HashSet::from([task(1), task(2), task(3)]));
    assert_eq!(seen.heads, HashSet::from([ids[0], ids[1], ids[5]]));
    assert!(seen.found.iter().all(|found| *found));
    assert_eq!(seen.stats.by_priority, [0, 1, 3, 2, 0]);
    assert_eq!(view(&other, &ids).await, seen);
    assert_eq!(batch(&other).await.len(), 6);
    assert_eq!(audit::tail(&one, Tail::len), 0);
    assert_eq!(view(&one, &ids).await, seen);
    audit::check(&one).await;
}

#[tokio::test]
async fn a_reader_of_an_old_state_sees_the_tail_of_that_state() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let first = buffer.append(operation(&clock, 1, create(1)), None).await.unwrap();
    let old = Snapshot::take(&buffer.handle.read().unwrap()).unwrap();
    assert_eq!(batch(&buffer).await.len(), 1);
    let second = buffer.append(operation(&clock, 1, create(2)), None).await.unwrap();
    assert!(buffer.find(second).await.unwrap().is_some());
    let in_tail = |id: Version| old.tail().place(id.as_uuid().as_u128());
    assert_eq!((in_tail(first), in_tail(second)), (Some(0), None));
    assert!(old.records().unwrap().get(0).unwrap().is_some());
}

#[tokio::test]
async fn limits_count_what_no_index_tells_of() {
    let host = Host::new();
    let clock = Clock::default();
    let limited = BufferSettings { buffer_user_share: 4, ..host.settings() };
    let buffer = Buffer::open(&limited).unwrap();
    let peer = Buffer::open(&limited).unwrap();
    for number in 0..4 {
        if number == 2 {
            assert_eq!(batch(&buffer).await.len(), 2);
        }
        let by = if number % 2 == 0 { &buffer } else { &peer };
        by.append(operation(&clock, 1, create(number)), None).await.unwrap();
    }
    for buffer in [&buffer, &peer] {
        let fifth = buffer.append(operation(&clock, 1, create(9)), None).await;
        assert!(matches!(fifth, Err(BufferError::UserShare)), "{fifth:?}");
    }
    assert_eq!(audit::tail(&buffer, Tail::len), 2);
}

#[tokio::test]
async fn a_long_tail_gets_its_indexes_without_being_asked() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    // Fewer at once than may wait for the writer.
    for thousand in 0..7 {
        let tasks = thousand * 1000..(thousand + 1) * 1000;
        let appended =
            tasks.map(|task| buffer.append(operation(&clock, task % 7, create(task)), None));
        assert!(join_all(appended).await.iter().all(Result::is_ok));
    }
    let tail = audit::tail(&buffer, Tail::len);
    assert!(tail < crate::buffer::wal::tail::LONGEST, "{tail}");
    assert_eq!(buffer.stats().await.unwrap().pending, 7000);
    audit::check(&buffer).await;
}

fn reopened(buffer: Buffer, folder: &Path) -> Buffer {
    drop(buffer);
    open(folder)
}

#[tokio::test]
async fn indexes_that_follow_bit_by_bit_agree_at_every_step() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let mut ids = Vec::new();
    for task in [1, 2, 1, 3, 1] {
        let change = if ids.len() == task as usize - 1 { create(task) } else { delete(task) };
        ids.push(buffer.append(operation(&clock, task % 2, change), None).await.unwrap());
    }
    for left in [3, 1, 0] {
        audit::checkpoint(&buffer, 2);
        assert_eq!(audit::tail(&buffer, Tail::len), left);
        audit::check(&buffer).await;
        let order = buffer.lane(task(1)).await.unwrap();
        let order: Vec<Version> = order.iter().map(|operation| operation.id).collect();
        assert_eq!(order, [ids[0], ids[2], ids[4]]);
    }
}

/// The place after the last is kept when nothing is left to tell of it.
#[tokio::test]
async fn places_go_on_where_a_drained_file_left_off() {
    let host = Host::new();
    let clock = Clock::default();
    let mut buffer = host.open();
    for expected in [0, 1, 2] {
        buffer.append(operation(&clock, 1, create(7)), None).await.unwrap();
        let [entry] = &batch(&buffer).await[..] else { panic!("one is pending") };
        assert_eq!(entry.place, expected);
        settle(&buffer, entry.place, Verdict::Done).await;
        buffer = reopened(buffer, host.path());
    }
    audit::check(&buffer).await;
}

#[tokio::test]
async fn a_file_that_a_newer_program_has_taken_over_is_not_written_to() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let handle = buffer.handle.read().unwrap().clone();
    let transaction = handle.database.begin_write().unwrap();
    transaction.open_table(COUNTERS).unwrap().insert(FORMAT_KEY, FORMAT + 1).unwrap();
    transaction.commit().unwrap();
    let refused = buffer.append(operation(&clock, 1, create(1)), None).await;
    assert!(matches!(refused, Err(BufferError::Unavailable(_))), "{refused:?}");
    assert_eq!(buffer.stats().await.unwrap().pending, 0);
}

#[tokio::test]
async fn a_file_of_another_format_is_refused_and_left_as_it_is() {
    for format in [0, FORMAT + 1] {
        let host = Host::new();
        let settings = host.settings();
        let buffer = Buffer::open(&settings).unwrap();
        buffer.append(operation(&Clock::default(), 1, create(1)), None).await.unwrap();
        let handle = buffer.handle.read().unwrap().clone();
        let transaction = handle.database.begin_write().unwrap();
        transaction.open_table(COUNTERS).unwrap().insert(FORMAT_KEY, format).unwrap();
        transaction.commit().unwrap();
        killed(buffer);
        let recreate = BufferSettings { buffer_recreate: true, ..settings.clone() };
        for settings in [&settings, &recreate] {
            let refused = Buffer::open(settings).unwrap_err();
            assert!(matches!(refused, OpenError::OtherFormat { found, .. } if found == format));
            let told = refused.to_string();
            assert!(told.contains(&format!("has table format {format}")), "{told}");
            assert!(told.contains(&format!("reads format {FORMAT} alone")), "{told}");
        }
        let refused = repair(&settings, &Keys::default(), Mode::Anew, "a test").unwrap_err();
        assert!(matches!(refused, RepairError::Format { found } if found == format), "{refused}");
        let counters = handle.database.begin_read().unwrap().open_table(COUNTERS).unwrap();
        assert_eq!(counters.get(FORMAT_KEY).unwrap().map(|it| it.value()), Some(format));
        assert!(handle.is_in_place());
    }
}
