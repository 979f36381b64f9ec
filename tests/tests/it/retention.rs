//! The end of retention: operations that wait for too long, dead letters, rows of the ledger and of
//! deleted tasks go when they are old enough, and not because a wall clock says so.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use shared::buffer::{BatchLimits, Buffer, Found, Settlement, Verdict, unix_millis};
use shared::domain::Tries;
use shared::domain::{Change, Clock, TaskChange, Version};
use shared::settings::BufferSettings;
use tests::{WallClock, World, wait_until};
use uuid::Uuid;

use crate::node::operation;
use crate::story::{DRAIN, create, drained, epoch, metric, user};

const TEN_DAYS: f64 = 10.0 * 24.0 * 3600.0;

/// A look every second.
const OFTEN: (&str, &str) = ("RETENTION_INTERVAL_SECONDS", "1");

async fn health(world: &World, pointer: &str) -> Value {
    world.anonymous().get("/health").await.at(pointer).clone()
}

/// The buffer file of a world, opened by one more process: this one.
fn buffer_of(world: &World) -> Buffer {
    let settings = BufferSettings { buffer_path: world.buffer_path(), ..BufferSettings::default() };
    Buffer::open_existing(&settings).unwrap()
}

/// Puts a dead letter into the buffer of a world whose replay has nothing to do.
async fn dead_letter(buffer: &Buffer) -> Version {
    let change = Change::Task(TaskChange::Delete { task_id: Uuid::now_v7(), if_match: None });
    let id = buffer.append(operation(Clock::default().next(), user(), change), None).await.unwrap();
    let limits = BatchLimits {
        operations: 1000,
        bytes: 1 << 20,
        aging: Duration::from_secs(60),
        longest_wait: Duration::from_secs(3600),
    };
    let batch = buffer.next_batch(unix_millis(), limits, Default::default()).await.unwrap();
    let entry = batch.entries.iter().find(|entry| entry.operation.id == id).unwrap();
    let verdict =
        Verdict::Dead { tries: Tries::default().failed(), reason: "of the test".to_owned() };
    buffer.settle(vec![Settlement { place: entry.place, verdict }]).await.unwrap();
    id
}

#[tokio::test]
async fn i9_an_operation_that_grew_too_old_is_a_dead_letter_until_its_own_retention_ends() {
    let mut world = World::builder()
        .env(OFTEN.0, OFTEN.1)
        .env("BUFFER_RETENTION_HOURS", "0")
        .env("EXPIRY_GRACE_SECONDS", "0")
        .start()
        .await;
    let client = world.client(user());
    world.postgres.kill().await;
    let answer = client.post("/api/v1/tasks", &json!({ "title": "old" })).await.expect(202);
    let operation = answer.header("location").to_owned();
    let mut read = client.get(&operation).await;
    wait_until(DRAIN, "the operation has expired", async || {
        read = client.get(&operation).await.expect(200);
        read.text("/data/state") == "expired"
    })
    .await;
    assert_eq!(read.text("/data/reason"), "too_old");
    assert_eq!(health(&world, "/data/buffer/pending").await, 0);
    assert_eq!(health(&world, "/data/buffer/dead").await, 1);
    let metrics = format!("{}/metrics", world.worker_url());
    let metrics = world.http().get(metrics).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("expired_total 1"), "{metrics}");
    assert!(world.worker.log().contains("operations grew too old"), "nothing was said of it");

    world.postgres.start_again().await;
    wait_until(DRAIN, "healthy", async || world.is_healthy().await).await;
    assert_eq!(world.postgres.psql("SELECT count(*) FROM tasks").await, "0", "it was applied");
    assert_eq!(client.get(&operation).await.expect(200).text("/data/state"), "expired");

    world.worker.launch_mut().set_env("DEAD_RETENTION_HOURS", "0");
    world.worker.restart().await;
    wait_until(DRAIN, "the dead letter is gone", async || {
        health(&world, "/data/buffer/dead").await == 0
    })
    .await;
    client.get(&operation).await.expect(404);
}

#[tokio::test]
async fn old_rows_of_the_ledger_and_old_tombstones_go_and_nothing_else_does() {
    let world = World::builder().env(OFTEN.0, OFTEN.1).start().await;
    let client = world.client(user());
    let mut tasks = Vec::new();
    for title in ["old tombstone", "fresh tombstone", "old and alive"] {
        tasks.push(create(&client, title, 201).await);
    }
    for task in &tasks[..2] {
        client.delete(&format!("/api/v1/tasks/{task}")).await.expect(204);
    }
    // One statement, so that no look comes in between; more rows than one statement removes.
    let backdate = format!(
        "WITH aged AS (UPDATE tasks SET created_at = now() - interval '1 year', \
             updated_at = now() - interval '1 year', \
             deleted_at = CASE WHEN deleted_at IS NULL THEN NULL ELSE now() - interval '31 days' END \
             WHERE id <> '{}'), \
         young AS (UPDATE tasks SET deleted_at = now() - interval '29 days' WHERE id = '{}') \
         INSERT INTO operations SELECT gen_random_uuid(), gen_random_uuid(), 'task', \
             gen_random_uuid(), 'create', 'applied', NULL, at, at, 'old' FROM \
             (SELECT now() - interval '91 days' FROM generate_series(1, 2500) \
              UNION ALL SELECT now() - interval '89 days' FROM generate_series(1, 3)) AS ages (at)",
        tasks[1], tasks[1]
    );
    world.postgres.psql(&backdate).await;
    let count =
        async |rows: &str| world.postgres.psql(&format!("SELECT count(*) FROM {rows}")).await;
    wait_until(DRAIN, "what is old is gone", async || {
        count("operations WHERE applied_at < now() - interval '90 days'").await == "0"
            && count("tasks WHERE deleted_at < now() - interval '30 days'").await == "0"
    })
    .await;
    assert_eq!(count("operations WHERE node = 'old'").await, "3");
    assert_eq!(count("operations WHERE node = 'tests'").await, "5");
    let left = "SELECT count(*), count(deleted_at) FROM tasks";
    assert_eq!(world.postgres.psql(left).await, "2|1");
    let read = client.get(&format!("/api/v1/tasks/{}", tasks[2])).await.expect(200);
    assert_eq!(read.text("/data/title"), "old and alive");
    assert!(world.is_healthy().await);
}

#[tokio::test]
async fn i9_a_wall_clock_that_jumps_ten_days_ahead_expires_nothing() {
    let builder = World::builder().without_worker().env(OFTEN.0, OFTEN.1);
    let builder = builder.env("DEAD_RETENTION_HOURS", "0").env("EXPIRY_GRACE_SECONDS", "0");
    let mut world = builder.start().await;
    let folder = world.folder().to_path_buf();
    let clock = WallClock::of(&mut world.worker, &folder);
    world.worker.restart().await;
    wait_until(DRAIN, "healthy", async || world.is_healthy().await).await;
    let ahead = async || {
        let health = world.http().get(format!("{}/health", world.worker_url()));
        let health: Value = health.send().await.unwrap().json().await.unwrap();
        let heartbeat = health.pointer("/data/worker/heartbeat_at").and_then(Value::as_f64);
        heartbeat.map_or(0.0, |at| at / 1000.0 - epoch(SystemTime::now()))
    };
    assert!(ahead().await.abs() < 60.0, "the clock is right at first");
    // Expiry is looked after while PostgreSQL is away.
    world.postgres_line.cut().await;
    let client = world.client(user());
    let mut operations = Vec::new();
    for number in 0..5 {
        let title = json!({ "title": number.to_string() });
        let answer = client.post("/api/v1/tasks", &title).await.expect(202);
        operations.push(answer.header("location").to_owned());
    }

    clock.set("+10d");
    wait_until(DRAIN, "the worker's clock has jumped", async || ahead().await > TEN_DAYS - 60.0)
        .await;
    // A look of the retention that comes after the jump removes a dead letter and nothing else.
    let buffer = buffer_of(&world);
    for _ in 0..2 {
        let letter = dead_letter(&buffer).await;
        wait_until(DRAIN, "retention has looked", async || {
            !matches!(buffer.find(letter).await.unwrap(), Some(Found::Dead(_)))
        })
        .await;
    }
    assert!(ahead().await > TEN_DAYS - 60.0);
    for operation in &operations {
        let read = client.get(operation).await.expect(200);
        assert_eq!(read.text("/data/state"), "pending");
    }

    world.postgres_line.heal().await;
    wait_until(DRAIN, "all are applied", async || {
        world.postgres.psql("SELECT count(*) FROM tasks").await == "5"
    })
    .await;
}

#[tokio::test]
async fn i9_nothing_expires_because_the_host_was_off_and_postgresql_comes_up_after_the_worker() {
    let builder = World::builder().without_api().without_worker().env(OFTEN.0, OFTEN.1);
    let mut world = builder.start().await;
    world.postgres_line.cut().await;
    let folder = world.folder().to_path_buf();
    let clock = WallClock::of(&mut world.api, &folder);
    clock.set("-30h");
    world.api.start().await.unwrap();
    let client = world.client(user());
    let mut operations = Vec::new();
    for number in 0..50 {
        let title = json!({ "title": number.to_string() });
        let answer = client.post("/api/v1/tasks", &title).await.expect(202);
        operations.push(answer.header("location").to_owned());
    }

    clock.set("+0");
    world.worker.start().await.unwrap();
    wait_until(DRAIN, "retention has looked again and again", async || {
        metric(&world, "retention_sweeps_total").await >= 3.0
    })
    .await;
    assert_eq!(health(&world, "/data/buffer/dead").await, 0);
    world.postgres_line.heal().await;
    drained(&world).await;
    for operation in &operations {
        let read = client.get(operation).await.expect(200);
        assert_eq!(read.text("/data/state"), "applied");
    }
    assert_eq!(world.postgres.psql("SELECT count(*) FROM tasks").await, "50");
}
