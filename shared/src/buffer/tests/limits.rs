//! Every limit is kept, refuses before anything is stored, and group commit loses nobody.

use futures::FutureExt;
use futures::future::join_all;

use super::*;

#[tokio::test]
async fn i12_each_limit_refuses_and_keeps_nothing() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = Buffer::open(&BufferSettings {
        buffer_max_size: 3,
        buffer_user_share: 2,
        ..host.settings()
    })
    .unwrap();
    for task in [1, 2] {
        buffer.append(operation(&clock, 1, create(task)), None).await.unwrap();
    }
    let third = buffer.append(operation(&clock, 1, create(3)), None).await;
    assert!(matches!(third, Err(BufferError::UserShare)), "{third:?}");
    buffer.append(operation(&clock, 2, create(4)), None).await.unwrap();
    let fourth = buffer.append(operation(&clock, 3, create(5)), None).await;
    assert!(matches!(fourth, Err(BufferError::Full)), "{fourth:?}");
    assert_eq!(buffer.stats().await.unwrap().pending, 3);
    let place = batch(&buffer).await[0].place;
    settle(&buffer, place, Verdict::Done).await;
    buffer.append(operation(&clock, 3, create(5)), None).await.unwrap();
    audit::check(&buffer).await;
}

#[tokio::test]
async fn i12_bytes_and_free_disk_are_limits_too() {
    let host = Host::new();
    let clock = Clock::default();
    let small = BufferSettings { buffer_max_bytes: 100, ..host.settings() };
    let refused = Buffer::open(&small).unwrap().append(operation(&clock, 1, create(1)), None).await;
    assert!(matches!(refused, Err(BufferError::Full)), "{refused:?}");
    let roomy = BufferSettings { buffer_min_free_bytes: u64::MAX, ..host.settings() };
    let refused = Buffer::open(&roomy).unwrap().append(operation(&clock, 1, create(1)), None).await;
    assert!(matches!(refused, Err(BufferError::LowDisk)), "{refused:?}");
}

#[tokio::test]
async fn an_operation_appended_twice_is_kept_once() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let once = operation(&clock, 1, create(1));
    for _ in 0..2 {
        assert_eq!(buffer.append(once.clone(), None).await.unwrap(), once.id);
    }
    assert_eq!(buffer.stats().await.unwrap().pending, 1);
}

#[tokio::test]
async fn a_write_that_cannot_get_its_turn_is_refused_in_time_and_leaves_no_trace() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = Arc::new(
        Buffer::open(&BufferSettings { buffer_timeout_ms: 200, ..host.settings() }).unwrap(),
    );
    let peer = BufferFile::open(&buffer.settings().buffer_path, 1 << 20).unwrap().1;
    let turn = peer.begin_write().unwrap();
    let refused = buffer.append(operation(&clock, 1, create(1)), None).await;
    assert!(matches!(refused, Err(BufferError::Timeout)), "{refused:?}");
    turn.abort().unwrap();
    buffer.append(operation(&clock, 1, create(2)), None).await.unwrap();
    assert_eq!(buffer.stats().await.unwrap().pending, 1);
}

/// Each caller is answered for itself: none waits for another that has gone, or that nobody polls, be
/// it the first or the last of the commit.
#[tokio::test]
async fn a_caller_is_answered_whatever_the_others_of_its_commit_do() {
    for gone in [[5, 3, 0], [4, 3, 1]] {
        let host = Host::new();
        let clock = Clock::default();
        let buffer = host.open();
        let peer = BufferFile::open(&buffer.settings().buffer_path, 1 << 20).unwrap().1;
        let turn = peer.begin_write().unwrap();
        let mut appends: Vec<_> = (0..6)
            .map(|task| Box::pin(buffer.append(operation(&clock, 1, create(task)), None)))
            .collect();
        // All are in the queue, and the file is not to be had.
        for append in &mut appends {
            assert!(append.as_mut().now_or_never().is_none());
        }
        for number in gone {
            drop(appends.remove(number));
        }
        turn.abort().unwrap();
        let answered = appends.remove(1);
        tokio::time::timeout(Duration::from_secs(30), answered).await.unwrap().unwrap();
        assert_eq!(buffer.stats().await.unwrap().pending, 6);
        for append in appends {
            append.now_or_never().unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_and_a_drain_on_two_handles_lose_nothing() {
    let host = Host::new();
    let clock = Arc::new(Clock::default());
    let one = Arc::new(host.open());
    let other = Arc::new(host.open());
    let writing = (0..400_u128).map(|task| {
        let buffer = Arc::clone(if task % 2 == 0 { &one } else { &other });
        let clock = Arc::clone(&clock);
        tokio::spawn(async move {
            let created = operation(&clock, task % 7, create(task));
            buffer.append(created, Some(clock)).await.unwrap()
        })
    });
    let writing: Vec<_> = writing.collect();
    let draining = tokio::spawn(async move {
        let mut seen = HashSet::new();
        while seen.len() < 400 {
            let entries = batch(&other).await;
            let done = entries.iter().map(|entry| {
                seen.insert(entry.operation.id);
                Settlement { place: entry.place, verdict: Verdict::Done }
            });
            other.settle(done.collect()).await.unwrap();
            tokio::task::yield_now().await;
        }
        seen
    });
    let appended: HashSet<Version> =
        join_all(writing).await.into_iter().map(|id| id.unwrap()).collect();
    assert_eq!(draining.await.unwrap(), appended);
    assert_eq!(one.stats().await.unwrap(), Stats::default());
    audit::check(&one).await;
}

#[tokio::test]
async fn a_file_that_was_taken_away_is_noticed_before_the_next_acknowledgement() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    buffer.append(operation(&clock, 1, create(1)), None).await.unwrap();
    let path = &buffer.settings().buffer_path;
    std::fs::rename(path, path.with_extension("away")).unwrap();
    buffer.append(operation(&clock, 1, create(2)), None).await.unwrap();
    drop(buffer);
    let again = host.open();
    assert_eq!(again.stats().await.unwrap().pending, 1, "acknowledged into the file at the path");
}
