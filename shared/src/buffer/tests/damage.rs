//! Damage in the WAL: it is found, and costs only what it hit.

use super::wal::{logged, logged_at_once, path_of_wal, pending, reopened_with};
use super::*;
use crate::buffer::wal::frame::PAGE;

/// Pages reach the disk in any order when power is lost in the middle of a write; of a killed process the
/// first comes last. What was acknowledged before stays as it was.
#[tokio::test]
async fn i1_a_torn_frame_takes_nothing_with_it() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let before: HashSet<_> = logged(&buffer, &clock, 1, 2).await.into_iter().collect();
    let wal = path_of_wal(&buffer);
    let without = std::fs::read(&wal).unwrap();
    let at = usize::try_from(audit::tail(&buffer, Tail::end)).unwrap();
    let torn: HashSet<_> = logged_at_once(&buffer, &clock, 30).await.into_iter().collect();
    let end = usize::try_from(audit::tail(&buffer, Tail::end)).unwrap();
    let (page, with) = (usize::try_from(PAGE).unwrap(), std::fs::read(&wal).unwrap());
    let pages = (end - at) / page;
    assert!(pages >= 3, "{pages}");
    killed(buffer);
    let original = std::fs::read(&host.settings().buffer_path).unwrap();
    for written in 0..1_usize << pages {
        let host = Host::new();
        let path = host.settings().buffer_path;
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
        let buffer = host.open();
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

/// A buffer with three creates in its WAL, a frame each, that was damaged while nobody had it open.
async fn with_three(
    folder: &Path,
    clock: &Clock,
    damage: impl FnOnce(&mut Vec<u8>),
) -> (Buffer, Vec<Version>) {
    let buffer = open(folder);
    let ids = logged(&buffer, clock, 1, 3).await;
    let wal = path_of_wal(&buffer);
    killed(buffer);
    (reopened_with(folder, &wal, damage).await, ids)
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
        let host = Host::new();
        let clock = Clock::default();
        let (buffer, ids) = with_three(host.path(), &clock, |bytes| bytes[at] ^= 4).await;
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
        let host = Host::new();
        let zeros = |bytes: &mut Vec<u8>| bytes[number * page..(number + 1) * page].fill(0);
        let (buffer, ids) = with_three(host.path(), &Clock::default(), zeros).await;
        let stats = buffer.stats().await.unwrap();
        assert_eq!((stats.pending, stats.quarantined), (3 - hit, hit), "page {number}");
        assert!(pending(&buffer).await.contains(&ids[2]));
        audit::check(&buffer).await;
    }
}

#[tokio::test]
async fn garbage_in_the_place_of_a_log_blocks_nothing() {
    for garbage in [vec![], vec![7; 10], vec![0; 1 << 20], vec![0xff; 3 << 20]] {
        let host = Host::new();
        let clock = Clock::default();
        let buffer = host.open();
        let wal = path_of_wal(&buffer);
        let id = buffer.append(operation(&clock, 1, create(1)), None).await.unwrap();
        drop(buffer);
        let buffer = reopened_with(host.path(), &wal, |bytes| *bytes = garbage).await;
        assert_eq!(pending(&buffer).await, HashSet::from([id]));
        for task in 2..5 {
            buffer.append(operation(&clock, 1, create(task)), None).await.unwrap();
        }
        killed(buffer);
        let buffer = host.open();
        assert_eq!(pending(&buffer).await.len(), 4);
    }
}

#[tokio::test]
async fn damage_in_a_frame_that_is_half_in_the_tables_is_found() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let ids = logged_at_once(&buffer, &clock, 5).await;
    audit::checkpoint(&buffer, 2);
    let record = audit::tail(&buffer, |tail| tail.record(3).unwrap().to_vec());
    let wal = path_of_wal(&buffer);
    killed(buffer);
    let buffer = reopened_with(host.path(), &wal, |bytes| {
        let at = bytes.windows(record.len()).position(|window| window == record).unwrap();
        bytes[at + 5] ^= 4;
    })
    .await;
    let left = [ids[0], ids[1], ids[2], ids[4]];
    assert_eq!(pending(&buffer).await, HashSet::from(left));
    assert_eq!(buffer.stats().await.unwrap().quarantined, 1);
    audit::check(&buffer).await;
}
