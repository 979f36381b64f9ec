//! What is cached and what PostgreSQL has: a statement that comes late, and a PostgreSQL that has lost
//! what it had committed.

use serde_json::json;
use tests::{Client, WallClock, World, wait_until};

use crate::cache::{cached, path, read};
use crate::story::{DRAIN, create, drained, user};
use crate::two_nodes::second_node;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_held_on_its_way_until_its_process_and_its_fence_are_gone_does_nothing() {
    let mut first = World::start().await;
    let (second, _line) = second_node(&first, &[]).await;
    let user = user();
    let (here, there) = (first.client(user), second.client(user));
    let task = create(&here, "before", 201).await;
    // So what is read of it is taken into the cache at once where there is no fence.
    cached(&there, &task, "before").await;
    first.worker.kill();
    let held = first.postgres_line.counts().held;
    first.postgres_line.hold_next_write("holdfast-api");
    let change = json!({ "title": "after" });
    let path = path(&task);
    let request = here.request(reqwest::Method::PATCH, &path).json(&change).send();
    let unanswered = tokio::spawn(request);
    wait_until(DRAIN, "the write is on its way", async || first.postgres_line.counts().held > held)
        .await;
    first.api.kill();
    unanswered.await.unwrap().unwrap_err();
    // Once there is no fence any more.
    cached(&there, &task, "before").await;
    first.postgres_line.release_write();
    wait_until(DRAIN, "PostgreSQL has had the write", async || {
        first.postgres_line.counts().open == 0
    })
    .await;
    let stored = format!("SELECT title FROM tasks WHERE id = '{task}'");
    assert_eq!(first.postgres.psql(&stored).await, "before", "it came too late");
    assert_eq!(read(&there, &task).await.text("/data/title"), "before");
}

/// Waits until the api has found PostgreSQL away, and then there again. All the while it answers a read
/// of a task from the cache as stale, if at all from there; `None` if the task is not there afterwards.
async fn after_the_outage(client: &Client, task: &str) -> Option<String> {
    let mut title = None;
    wait_until(DRAIN, "PostgreSQL is asked again", async || {
        let answer = client.get(&path(task)).await;
        let is_there = answer.status == 200;
        if is_there && answer.text("/meta/source") == "cache" {
            assert_eq!(answer.at("/meta/stale"), true, "{answer:?}");
        }
        title = is_there.then(|| answer.text("/data/title").to_owned());
        answer.status == 404 || (is_there && answer.text("/meta/source") == "database")
    })
    .await;
    title
}

/// A task is cached, and PostgreSQL comes back with a copy from before there was one.
async fn a_task_is_lost(recovers: bool) {
    let mut world = World::start().await;
    let client = world.client(user());
    let kept = create(&client, "kept", 201).await;
    world.postgres.stop_fast().await;
    wait_until(DRAIN, "the outage is noticed", async || !world.is_healthy().await).await;
    let copy = world.folder().join("copy");
    world.postgres.back_up(&copy);
    world.postgres.start_again().await;
    wait_until(DRAIN, "healthy", async || world.is_healthy().await).await;
    let lost = create(&client, "lost", 201).await;
    client.patch(&path(&kept), &json!({ "title": "changed" })).await.expect(200);
    // The position of the log is read when PostgreSQL comes back.
    world.postgres.kill().await;
    assert_eq!(client.get(&path(&lost)).await.status, 503);
    world.postgres.start_again().await;
    wait_until(DRAIN, "healthy", async || world.is_healthy().await).await;
    cached(&client, &lost, "lost").await;
    cached(&client, &kept, "changed").await;

    world.postgres.kill().await;
    wait_until(DRAIN, "the outage is noticed", async || {
        read(&client, &lost).await.at("/meta/stale") == true
    })
    .await;
    world.postgres.restore(&copy, recovers);
    let ((), lost, kept) = tokio::join!(
        async {
            world.postgres.start_again().await;
        },
        after_the_outage(&client, &lost),
        after_the_outage(&client, &kept)
    );
    assert_eq!((lost, kept.as_deref()), (None, Some("kept")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_postgresql_has_lost_that_was_restored_to_a_point_in_time_is_not_served_as_present()
{
    a_task_is_lost(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_postgresql_has_lost_that_was_set_back_to_an_older_copy_is_not_served_as_present() {
    a_task_is_lost(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_is_set_back_loses_no_write_and_has_none_refused() {
    let mut world = World::start().await;
    let folder = world.folder().to_path_buf();
    let clock = WallClock::of(&mut world.api, &folder);
    world.api.restart().await;
    wait_until(DRAIN, "healthy", async || world.is_healthy().await).await;
    let client = world.client(user());
    let task = create(&client, "0", 201).await;
    let mut changes = 0;
    // A look at PostgreSQL's clock may come before the write.
    while !world.api.log().contains("reached PostgreSQL too late") {
        for offset in ["-1h", "+0"] {
            clock.set(offset);
            changes += 1;
            let change = json!({ "title": changes.to_string() });
            let answer = client.patch(&path(&task), &change).await;
            assert!([200, 202].contains(&answer.status), "{answer:?}");
        }
        assert!(changes < 1000, "no write was late");
    }
    drained(&world).await;
    assert_eq!(read(&client, &task).await.text("/data/title"), changes.to_string());
    client.patch(&path(&task), &json!({ "title": "last" })).await.expect(200);
    clock.set("-1h");
    wait_until(DRAIN, "how far the clocks are apart is known", async || {
        client.patch(&path(&task), &json!({ "title": "late?" })).await.status == 200
    })
    .await;
}
