//! A check of the whole file beside those who write to it.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::try_join_all;

use super::disk::described;
use super::*;

/// Appends operations with text, and settles what comes first of all that is pending.
async fn go_on(buffer: &Buffer, clock: &Clock, task: u128) {
    let appends = (0..20)
        .map(|it| buffer.append(operation(clock, task + it, described(task + it, 2000)), None));
    try_join_all(appends).await.unwrap();
    let done = |entry: Entry| Settlement { place: entry.place, verdict: Verdict::Done };
    buffer.settle(batch(buffer).await.into_iter().map(done).collect()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_all_processes_go_on_while_the_pages_of_a_file_are_checked() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = Arc::new(host.open());
    let peer = host.open();
    let appends =
        (0..2500).map(|task| buffer.append(operation(&clock, task, described(task, 2000)), None));
    try_join_all(appends).await.unwrap();
    let (reached, mut is_reached) = tokio::sync::mpsc::unbounded_channel();
    let (go, may_go) = std::sync::mpsc::channel::<()>();
    let has_stopped = AtomicBool::new(false);
    let stop_once = move |seen| {
        if !has_stopped.swap(true, Ordering::Relaxed) {
            reached.send(seen).unwrap();
            may_go.recv().unwrap();
        }
    };
    let verifying = tokio::spawn({
        let buffer = Arc::clone(&buffer);
        async move { buffer.verify(stop_once).await }
    });
    assert!(is_reached.recv().await.unwrap() > 0);
    // It is in the middle. Pages are freed, and those that may be are used again.
    for round in 0..10 {
        go_on(&buffer, &clock, 10_000 + 1000 * round).await;
        go_on(&peer, &clock, 10_500 + 1000 * round).await;
    }
    assert!(!verifying.is_finished());
    go.send(()).unwrap();
    let found = verifying.await.unwrap().unwrap();
    assert_eq!((found.problems, found.records), (Vec::new(), 2500));
    audit::check(&buffer).await;
}
