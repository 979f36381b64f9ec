//! A commit that fails: what the WAL does not take goes elsewhere, and what has left nothing is made again.

use futures::future::join;
use redb::StorageError;

use super::wal::{in_one_commit, logged, path_of_wal, pending};
use super::*;

#[tokio::test]
async fn what_a_log_does_not_take_goes_into_the_tables() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = host.open();
    let mut ids = logged(&buffer, &clock, 1, 2).await;
    let mut opened =
        Arc::into_inner(open_file(buffer.settings(), IfDamaged::Refuse).unwrap()).unwrap();
    opened.wal.file = std::fs::File::open(path_of_wal(&buffer)).unwrap();
    *buffer.handle.write().unwrap() = Arc::new(opened);
    ids.push(buffer.append(operation(&clock, 1, create(3)), None).await.unwrap());
    assert_eq!(audit::tail(&buffer, Tail::len), 0);
    assert_eq!(pending(&buffer).await, ids.into_iter().collect());
    audit::check(&buffer).await;
}

#[tokio::test]
async fn i2_a_commit_that_left_nothing_is_made_again() {
    let host = Host::new();
    let clock = Arc::new(Clock::default());
    let buffer = host.open();
    let before = logged(&buffer, &clock, 1, 1).await[0];
    let append = buffer.append(operation(&clock, 1, create(2)), Some(Arc::clone(&clock)));
    // Comes after it in the same commit, and fails it.
    let mut has_failed = false;
    let fail = move |_: &mut Intake<'_>, _: &Room| match std::mem::replace(&mut has_failed, true) {
        true => Ok(()),
        false => Err(redb::Error::from(StorageError::PreviousIo).into()),
    };
    let fail = buffer.take_in(fail, OnFullDisk::Refuse);
    let (appended, failed) = in_one_commit(&buffer, join(append, fail)).await;
    failed.unwrap();
    assert_eq!(pending(&buffer).await, HashSet::from([before, appended.unwrap()]));
    assert_eq!(buffer.stats().await.unwrap().pending, 2);
    audit::check(&buffer).await;
}
