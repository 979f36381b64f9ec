//! An older copy of the file, with its WAL, that was put back is noticed when it is opened.

use super::*;
use crate::buffer::format::layout::READY;

/// Appends operations and has them put into the tables, so many times.
async fn go_on(buffer: &Buffer, user: u128, times: u128) {
    let clock = Clock::default();
    for time in 0..times {
        buffer.append(operation(&clock, user, create(1000 * user + time)), None).await.unwrap();
        batch(buffer).await;
    }
}

fn copy(from: &Path, to: &Path) {
    for suffix in ["", ".log"] {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        std::fs::copy(name(from), name(to)).unwrap();
    }
}

#[tokio::test]
async fn an_older_copy_is_told_with_each_start_until_it_has_come_as_far() {
    let host = Host::new();
    let settings = host.settings();
    let (path, aside) = (&settings.buffer_path, host.path().join("copy"));
    let open = || Buffer::open(&settings).unwrap();
    let buffer = open();
    go_on(&buffer, 1, 2).await;
    drop(buffer);
    copy(path, &aside);
    let buffer = open();
    assert!(!buffer.is_old_copy());
    go_on(&buffer, 2, 3).await;
    drop(buffer);
    assert!(!open().is_old_copy(), "the file itself");

    copy(&aside, path);
    for _ in 0..2 {
        let buffer = open();
        assert!(buffer.is_old_copy());
        assert_eq!(batch(&buffer).await.len(), 2, "it is used all the same");
        go_on(&buffer, 3, 0).await;
    }
    go_on(&open(), 4, 3).await;
    assert!(!open().is_old_copy(), "it has come as far");
}

#[tokio::test]
async fn what_a_killed_process_has_taken_in_counts_as_well() {
    let host = Host::new();
    let settings = host.settings();
    let aside = host.path().join("copy");
    let buffer = Buffer::open(&settings).unwrap();
    go_on(&buffer, 1, 1).await;
    copy(&settings.buffer_path, &aside);
    go_on(&buffer, 2, 1).await;
    killed(buffer);
    // Another file, as the killed one still has that.
    std::fs::remove_file(&settings.buffer_path).unwrap();
    std::fs::remove_file(sibling(&settings.buffer_path, "log")).unwrap();
    copy(&aside, &settings.buffer_path);
    assert!(Buffer::open(&settings).unwrap().is_old_copy());
}

#[tokio::test]
async fn a_file_that_was_repaired_or_made_anew_is_no_old_copy() {
    let host = Host::new();
    let settings = host.settings();
    let open = || Buffer::open(&settings).unwrap();
    let buffer = open();
    go_on(&buffer, 1, 3).await;
    let opened = buffer.handle.read().unwrap().clone();
    let transaction = opened.database.begin_write().unwrap();
    transaction.open_table(READY).unwrap().retain(|_, _| false).unwrap();
    transaction.commit().unwrap();
    drop(opened);
    assert!(buffer.repair("a test", false).await.unwrap().kept_as.is_some());
    drop(buffer);
    let buffer = open();
    assert!(!buffer.is_old_copy(), "repaired");
    go_on(&buffer, 2, 3).await;
    drop(buffer);
    for suffix in ["", ".log", ".worker-lock"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", settings.buffer_path.display()));
    }
    for _ in 0..2 {
        let buffer = open();
        assert!(!buffer.is_old_copy(), "made anew");
        go_on(&buffer, 3, 1).await;
    }
}
