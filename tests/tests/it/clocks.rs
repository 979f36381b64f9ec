//! Hosts whose clocks differ: what one host acknowledges later is newer, whichever of its processes does
//! it, and however far the clock of the host is ahead that wrote before.

use serde_json::json;
use tests::{Client, Proxy, WallClock, World, wait_until};
use uuid::Uuid;

use crate::story::{DRAIN, create, drained, second_api, user};
use crate::two_nodes::{patch_if, path, second_node, state, title_of};

/// Another host on the PostgreSQL of `first`, with a wall clock that is ahead.
async fn host_ahead(first: &World, seconds: u32) -> (World, Proxy) {
    let (mut second, line) = second_node(first, &[]).await;
    let folder = second.folder().to_path_buf();
    let clock = WallClock::of(&mut second.api, &folder);
    // One file, so one clock for both.
    let _ = WallClock::of(&mut second.worker, &folder);
    clock.set(&format!("+{seconds}"));
    second.api.restart().await;
    second.worker.restart().await;
    wait_until(DRAIN, "the second host takes writes", async || {
        let made = second.client(user()).post("/api/v1/tasks", &json!({ "title": "?" })).await;
        made.status == 201
    })
    .await;
    (second, line)
}

fn through(world: &World, url: &str, client: &Client) -> Client {
    Client::new(world.http().clone(), url, client.token().map(str::to_owned))
}

async fn edit(client: &Client, task: &str, title: &str, status: u16) -> tests::Answer {
    client.patch(&path(task), &json!({ "title": title })).await.expect(status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_later_edit_on_one_host_wins_over_all_its_processes_beside_a_clock_40_s_ahead() {
    let mut first = World::start().await;
    let (ahead, _line) = host_ahead(&first, 40).await;
    let user = user();
    let (here, there) = (first.client(user), ahead.client(user));
    let (mut other, url) = second_api(&mut first).await;
    let here_too = through(&first, &url, &here);
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let task = create(&there, "of the host ahead", 201).await;
        edit(&there, &task, "edited ahead", 200).await;
        let etag = edit(&here, &task, "online", 200).await.header("etag").to_owned();
        tasks.push((task, etag));
    }
    let read = create(&there, "of the host ahead", 201).await;
    edit(&there, &read, "edited ahead", 200).await;
    here.get(&path(&read)).await.expect(200);

    first.postgres_line.cut().await;
    let mut edits = vec![
        // By the other api, which has seen nothing of them.
        edit(&here_too, &tasks[0].0, "later", 202).await,
        edit(&here_too, &read, "later", 202).await,
        edit(&here, &tasks[1].0, "later", 202).await,
    ];
    first.api.restart().await;
    edits.push(edit(&here, &tasks[2].0, "later", 202).await);
    let (task, etag) = &tasks[3];
    edits.push(patch_if(&here, task, etag, &json!({ "title": "later" })).await.expect(202));
    first.postgres_line.heal().await;
    drained(&first).await;
    for edit in &edits {
        assert_eq!(state(&here, edit).await, "applied");
    }
    for task in tasks.iter().map(|(task, _)| task).chain([&read]) {
        assert_eq!(title_of(&here, task).await, "later");
    }
    // Its lane is gone, and the next outage comes at once.
    first.postgres_line.cut().await;
    let again = edit(&here_too, &tasks[2].0, "once more", 202).await;
    first.postgres_line.heal().await;
    drained(&first).await;
    // By the api that has seen the line fail.
    assert_eq!(state(&here_too, &again).await, "applied");
    other.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_later_edit_wins_over_one_from_300_s_ahead_which_does_not_drag_the_clock_along() {
    let mut first = World::start().await;
    let (ahead, _line) = host_ahead(&first, 300).await;
    let user = user();
    let (here, there) = (first.client(user), ahead.client(user));
    let (mut other, url) = second_api(&mut first).await;
    let here_too = through(&first, &url, &here);
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let task = create(&there, "of the host ahead", 201).await;
        edit(&there, &task, "edited ahead", 200).await;
        edit(&here, &task, "online", 200).await;
        tasks.push(task);
    }
    let served = create(&there, "of the host ahead", 201).await;
    edit(&there, &served, "edited ahead", 200).await;
    here.get(&path(&served)).await.expect(200);
    let usual = create(&here, "usual", 201).await;

    first.postgres_line.cut().await;
    let mut edits = vec![
        edit(&here, &tasks[0], "later", 202).await,
        edit(&here_too, &tasks[1], "later", 202).await,
        edit(&here_too, &served, "later", 202).await,
    ];
    first.api.restart().await;
    edits.push(edit(&here, &tasks[2], "later", 202).await);
    let unmoved = edit(&here, &usual, "later", 202).await;
    first.postgres_line.heal().await;
    drained(&first).await;
    for (number, edit) in edits.iter().enumerate() {
        assert_eq!(state(&here, edit).await, "applied", "edit {number}");
    }
    for task in tasks.iter().chain([&served]) {
        assert_eq!(title_of(&here, task).await, "later");
    }
    let drawn: Uuid = unmoved.text("/meta/sync/operation_id").parse().unwrap();
    let (seconds, _) = drawn.get_timestamp().unwrap().to_unix();
    assert!(seconds < tests::token::now() + 120, "the clock was dragged along");
    other.kill();
}

/// A world whose api and worker have a wall clock that can be set.
async fn with_a_wall_clock() -> (World, WallClock) {
    let mut world = World::start().await;
    let folder = world.folder().to_path_buf();
    let clock = WallClock::of(&mut world.api, &folder);
    let _ = WallClock::of(&mut world.worker, &folder);
    world.api.restart().await;
    world.worker.restart().await;
    (world, clock)
}

/// Edits of before and after the wall clock is set back, by a process that runs all the while and by one
/// that is restarted. `for_long`: the running one has marked its clock since.
async fn the_clock_is_set_back(for_long: bool) {
    let (mut world, clock) = with_a_wall_clock().await;
    let (mut other, url) = second_api(&mut world).await;
    wait_until(DRAIN, "healthy", async || world.is_healthy().await).await;
    let here = world.client(user());
    let here_too = through(&world, &url, &here);
    let (restarted, running) = (create(&here, "new", 201).await, create(&here, "new", 201).await);
    edit(&here, &restarted, "before", 200).await;
    marked(&world).await;
    edit(&here, &running, "before", 200).await;
    world.api.kill();
    clock.set("-30");
    if for_long {
        marked(&world).await;
    }
    world.postgres_line.cut().await;
    let by_running = edit(&here_too, &running, "later", 202).await;
    world.api.start().await.unwrap();
    let by_restarted = edit(&here, &restarted, "later", 202).await;
    world.postgres_line.heal().await;
    drained(&world).await;
    for (task, edit) in [(&running, &by_running), (&restarted, &by_restarted)] {
        assert_eq!(state(&here, edit).await, "applied");
        assert_eq!(title_of(&here, task).await, "later");
    }
    other.kill();
}

/// Waits until a mark of a clock is written.
async fn marked(world: &World) {
    let mark = world.buffer_path().with_extension("redb.clock");
    let written = || std::fs::metadata(&mark).unwrap().modified().unwrap();
    let before = written();
    wait_until(DRAIN, "the clock's mark is written", async || written() > before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_later_edit_wins_although_the_hosts_clock_was_set_back_in_between() {
    the_clock_is_set_back(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_later_edit_wins_although_the_hosts_clock_was_set_back_a_while_before() {
    the_clock_is_set_back(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_later_edit_wins_although_the_clock_was_set_back_while_no_process_ran() {
    let (mut world, clock) = with_a_wall_clock().await;
    wait_until(DRAIN, "healthy", async || world.is_healthy().await).await;
    let client = world.client(user());
    let task = create(&client, "new", 201).await;
    // What is edited now comes after the last mark.
    marked(&world).await;
    edit(&client, &task, "before", 200).await;
    world.api.kill();
    clock.set("-30");
    world.postgres_line.cut().await;
    world.api.start().await.unwrap();
    let later = edit(&client, &task, "later", 202).await;
    world.postgres_line.heal().await;
    drained(&world).await;
    assert_eq!(state(&client, &later).await, "applied");
    assert_eq!(title_of(&client, &task).await, "later");
}
