//! Readers of the WAL beside those who write to it: each sees one state, and knows when it was
//! overtaken.

use redb::ReadableDatabase;

use super::wal::{logged, path_of_wal, pending, reopened_with};
use super::*;
use crate::buffer::wal::frame::PAGE;

#[tokio::test]
async fn a_reader_looks_into_the_log_that_is_there() {
    let host = Host::new();
    let clock = Clock::default();
    let reader = host.open();
    let writer = host.open();
    let mut ids = logged(&writer, &clock, 1, 1).await;
    assert_eq!(pending(&reader).await.len(), 1);
    std::fs::remove_file(path_of_wal(&writer)).unwrap();
    for task in 2..5 {
        ids.push(writer.append(operation(&clock, 1, create(task)), None).await.unwrap());
    }
    assert!(audit::tail(&writer, Tail::len) > 0);
    assert_eq!(pending(&reader).await, ids.into_iter().collect());
}

/// Readers hold no lock: what they read may be emptied and written over meanwhile.
#[tokio::test]
async fn a_reader_knows_when_the_log_was_emptied_and_written_over_before_it_was_read() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    logged(&buffer, &clock, 1, 2).await;
    let opened = buffer.handle.read().unwrap().clone();
    let mark = audit::tail(&buffer, Tail::mark);
    let follow = || {
        let mut tail = Tail::new(mark);
        let begun = tail.follow(&opened.wal).unwrap();
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
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let id = logged(&buffer, &clock, 1, 1).await[0];
    let opened = buffer.handle.read().unwrap().clone();
    let (old, same) = (Snapshot::take(&opened).unwrap(), Snapshot::take(&opened).unwrap());
    let mark = old.tail().mark();
    // Emptied and written to again, and no reader has been there since.
    buffer.write(|_, _| Ok(())).await.unwrap();
    buffer.append(operation(&clock, 1, create(2)), None).await.unwrap();
    // One that has begun before, and reads the WAL only now.
    let begun = opened.tail(mark).unwrap().lock().unwrap().follow(&opened.wal).unwrap();
    assert!(begun > mark.generation);
    for state in [&old, &same] {
        assert!(state.tail().place(id.as_uuid().as_u128()).is_some());
        assert!(state.records().unwrap().get(0).unwrap().is_some());
    }
}

#[tokio::test]
async fn i4_a_reader_that_was_overtaken_takes_another_state() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
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
    let host = Host::new();
    let clock = Clock::default();
    let one = host.open();
    let reader = host.open();
    let kept = logged(&one, &clock, 1, 1).await[0];
    let at = usize::try_from(audit::tail(&one, Tail::end)).unwrap();
    let taken_back = logged(&one, &clock, 2, 1).await[0];
    assert_eq!(pending(&reader).await, HashSet::from([kept, taken_back]));
    let wal = path_of_wal(&one);
    killed(one);
    let page = usize::try_from(PAGE).unwrap();
    let zeros = |bytes: &mut Vec<u8>| bytes[at..at + page].fill(0);
    let other = reopened_with(host.path(), &wal, zeros).await;
    let instead = logged(&other, &clock, 3, 1).await[0];
    let later = logged(&other, &clock, 4, 1).await[0];
    assert_eq!(pending(&reader).await, HashSet::from([kept, instead, later]));
    let lanes = [2, 3].map(|id| Lane { kind: EntityKind::Task, id: Uuid::from_u128(id) });
    assert_eq!(
        reader.before_writing(lanes.to_vec()).await.unwrap().pending,
        HashSet::from([lanes[1]])
    );
}
