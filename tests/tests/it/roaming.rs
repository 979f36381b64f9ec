//! Users who go from host to host in an outage, and hosts that know of each other: what changes a task
//! waits until no host may hold its create any more. Also a buffer file that is an older copy of itself.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Client, World, wait_until};
use uuid::Uuid;

use crate::story::{DRAIN, create, drained, metric, user};
use crate::two_nodes::second_node;

const TASKS: usize = 20;
/// More attempts than an operation had that was given up by their number.
const ATTEMPTS: u64 = 4;

fn path(task: &str) -> String {
    format!("/api/v1/tasks/{task}")
}

/// State of an operation, and the attempts it has used.
async fn state(client: &Client, operation: &str) -> (String, u64) {
    let read = client.get(operation).await.expect(200);
    (read.text("/data/state").to_owned(), read.at("/data/attempts").as_u64().unwrap_or(0))
}

/// Changes a task in an outage; where to ask for the operation.
async fn change(client: &Client, task: &str) -> String {
    let answer = client.patch(&path(task), &json!({ "title": "edited" })).await.expect(202);
    answer.header("location").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_i9_what_is_edited_on_another_host_waits_for_its_create_and_is_seen_meanwhile() {
    let mut first = World::start().await;
    let (second, line) = second_node(&first, &[("RETRY_BASE_MS", "20")]).await;
    let user = user();
    let (here, there) = (first.client(user), second.client(user));
    first.postgres_line.cut().await;
    line.cut().await;
    first.worker.kill();
    let (mut tasks, mut edits) = (Vec::new(), Vec::new());
    for number in 0..TASKS {
        tasks.push(create(&here, &format!("task {number}"), 202).await);
    }
    // Later by more than the millisecond in which versions of two hosts have no order.
    for task in tasks {
        let operation = change(&there, &task).await;
        edits.push((task, operation));
    }

    first.postgres_line.heal().await;
    line.heal().await;
    for (task, operation) in &edits {
        wait_until(DRAIN, "more attempts than there used to be", async || {
            let (state, attempts) = state(&there, operation).await;
            assert_eq!(state, "pending");
            attempts >= ATTEMPTS
        })
        .await;
        let read = there.get(&path(task)).await.expect(200);
        assert_eq!((read.text("/data/title"), read.text("/meta/source")), ("edited", "overlay"));
    }
    let other = create(&there, "not held up", 201).await;
    here.get(&path(&other)).await.expect(200);

    first.worker.restart().await;
    drained(&first).await;
    drained(&second).await;
    for (task, operation) in &edits {
        assert_eq!(state(&there, operation).await.0, "applied");
        let read = here.get(&path(task)).await.expect(200);
        assert_eq!(read.text("/data/title"), "edited");
    }
    for world in [&first, &second] {
        assert_eq!(world.anonymous().get("/health").await.at("/data/buffer/dead"), 0);
    }
    assert_eq!(first.postgres.psql("SELECT count(*) FROM hosts").await, "2");
}

/// A world whose operations wait for two seconds for what is not there, and one that does.
async fn with_a_change_of_nothing() -> (World, Client, String) {
    let world = World::builder()
        .env("MISSING_RETRY_SECONDS", "2")
        .env("RETRY_BASE_MS", "20")
        .env("RETRY_MAX_MS", "200")
        .start()
        .await;
    let client = world.client(user());
    world.postgres_line.cut().await;
    let operation = change(&client, &Uuid::now_v7().to_string()).await;
    (world, client, operation)
}

async fn is_given_up(client: &Client, operation: &str) -> bool {
    let read = client.get(operation).await.expect(200);
    let is_dead = read.text("/data/state") == "rejected";
    assert!(!is_dead || read.text("/data/reason") == "not_found", "{read:?}");
    is_dead
}

#[tokio::test]
async fn a_change_of_what_nobody_has_is_given_up_by_time_and_not_by_number() {
    let (world, client, operation) = with_a_change_of_nothing().await;
    world.postgres_line.heal().await;
    let healed = Instant::now();
    wait_until(DRAIN, "more attempts than there used to be", async || {
        let (state, attempts) = state(&client, &operation).await;
        assert_eq!(state, "pending", "after {:?}", healed.elapsed());
        attempts >= ATTEMPTS
    })
    .await;
    wait_until(DRAIN, "it is given up", async || is_given_up(&client, &operation).await).await;
    assert!(healed.elapsed() >= Duration::from_secs(2), "after {:?}", healed.elapsed());
}

#[tokio::test]
async fn a_change_waits_for_a_host_that_is_known_and_silent() {
    let (world, client, operation) = with_a_change_of_nothing().await;
    let silent = "INSERT INTO hosts VALUES ('silent', 7, now() - interval '1 minute', NULL, 1)";
    world.postgres.psql(silent).await;
    world.postgres_line.heal().await;
    let healed = Instant::now();
    let mut before = None;
    wait_until(DRAIN, "it is tried after its time as well", async || {
        let (state, attempts) = state(&client, &operation).await;
        assert_eq!(state, "pending", "after {:?}", healed.elapsed());
        if before.is_none() && healed.elapsed() > Duration::from_secs(4) {
            before = Some(attempts);
        }
        before.is_some_and(|before| attempts > before + 1)
    })
    .await;

    // It reports (its clock makes this story short), and has something older.
    let holds = "UPDATE hosts SET heartbeat_at = now() + interval '10 minutes', \
        oldest_pending_at = now() - interval '1 hour' WHERE node = 'silent'";
    world.postgres.psql(holds).await;
    let (_, attempts) = state(&client, &operation).await;
    wait_until(DRAIN, "it waits for that as well", async || {
        let (state, now) = state(&client, &operation).await;
        assert_eq!(state, "pending");
        now > attempts + 20
    })
    .await;
    world.postgres.psql("UPDATE hosts SET oldest_pending_at = NULL WHERE node = 'silent'").await;
    wait_until(DRAIN, "it is given up", async || is_given_up(&client, &operation).await).await;
}

/// The files of a buffer, and all that are of importance in its folder.
const BUFFER: [&str; 2] = ["", ".log"];
const FOLDER: [&str; 3] = ["", ".log", ".clock"];

fn copy(suffixes: &[&str], from: &Path, to: &Path) {
    for suffix in suffixes {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        std::fs::copy(name(from), name(to)).unwrap();
    }
}

async fn stop(world: &mut World) {
    for process in [&mut world.api, &mut world.worker] {
        assert!(process.terminate(Duration::from_secs(10)).await.unwrap().success());
    }
}

async fn attention(world: &World) -> (u16, serde_json::Value) {
    let health = world.anonymous().get("/health").await;
    (health.status, health.at("/data/attention").clone())
}

async fn generation(world: &World) -> u64 {
    world.postgres.psql("SELECT max(generation) FROM hosts").await.parse().unwrap_or(0)
}

#[tokio::test]
async fn an_old_copy_of_the_buffer_s_folder_that_is_put_back_is_told() {
    let mut world = World::start().await;
    let client = world.client(user());
    let (path, aside) = (world.buffer_path(), world.folder().join("copy"));
    wait_until(DRAIN, "the host is known", async || generation(&world).await > 0).await;
    stop(&mut world).await;
    copy(&FOLDER, &path, &aside);

    world.api.restart().await;
    world.worker.restart().await;
    wait_until(DRAIN, "healthy", async || world.is_healthy().await).await;
    let before = generation(&world).await;
    world.postgres_line.cut().await;
    create(&client, "drained", 202).await;
    world.postgres_line.heal().await;
    drained(&world).await;
    wait_until(DRAIN, "the file's progress is known", async || generation(&world).await > before)
        .await;
    world.postgres_line.cut().await;
    create(&client, "lost", 202).await;
    stop(&mut world).await;

    copy(&FOLDER, &aside, &path);
    world.api.restart().await;
    world.worker.restart().await;
    world.postgres_line.heal().await;
    let told = (503, json!(["old_copy"]));
    wait_until(DRAIN, "it is told", async || attention(&world).await == told).await;
    assert!(world.worker.log().contains("an older copy of itself"));
    assert_eq!(metric(&world, "buffer_rollbacks_total").await, 1.0);
    world.worker.restart().await;
    let calm = (200, json!([]));
    wait_until(DRAIN, "nothing is told any more", async || attention(&world).await == calm).await;
    assert_eq!(world.worker.log().matches("an older copy of itself").count(), 1);
}

#[tokio::test]
async fn i9_an_old_copy_of_the_buffer_that_is_put_back_in_an_outage_is_told_at_once() {
    let mut world = World::start().await;
    let client = world.client(user());
    let (path, aside) = (world.buffer_path(), world.folder().join("copy"));
    world.postgres_line.cut().await;
    create(&client, "in both", 202).await;
    stop(&mut world).await;
    copy(&BUFFER, &path, &aside);
    world.api.restart().await;
    world.worker.restart().await;
    create(&client, "lost", 202).await;
    stop(&mut world).await;
    assert!(!world.worker.log().contains("an older copy of itself"));

    copy(&BUFFER, &aside, &path);
    world.api.restart().await;
    assert_eq!(attention(&world).await, (503, json!(["old_copy"])));
    assert!(world.api.log().contains("an older copy of itself"));
    world.worker.restart().await;
    assert_eq!(metric(&world, "buffer_rollbacks_total").await, 1.0);
    world.postgres_line.heal().await;
    wait_until(DRAIN, "what the copy has is replayed", async || {
        world.anonymous().get("/health").await.at("/data/buffer/pending") == 0
    })
    .await;
    assert_eq!(attention(&world).await, (503, json!(["old_copy"])));
    // Although it has gone on meanwhile, it has not come as far.
    stop(&mut world).await;
    world.api.restart().await;
    world.worker.restart().await;
    assert_eq!(metric(&world, "buffer_rollbacks_total").await, 1.0);

    // That it is known is said by hand.
    stop(&mut world).await;
    std::fs::remove_file(format!("{}.clock", path.display())).unwrap();
    world.api.restart().await;
    world.worker.restart().await;
    let calm = (200, json!([]));
    wait_until(DRAIN, "nothing is told any more", async || attention(&world).await == calm).await;
}
