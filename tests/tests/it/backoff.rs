//! Waiting for another attempt: how often and until when is in the file, an outage uses up nothing,
//! and who waits holds up nobody else.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Client, World, wait_for, wait_until};
use uuid::Uuid;

use crate::story::{DRAIN, create, drained, user};

/// Attempts before a dead letter, and the span of the first wait.
const ATTEMPTS: u64 = 5;
const BASE_MS: i64 = 200;
/// Connections that a worker must have tried in vain in the long outage.
const PROBES: u64 = 1000;

/// What `GET /operations/{id}` says of a pending operation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    attempts: u64,
    next: Value,
}

/// Has PostgreSQL fail at a task in a way that nobody foresees.
const TRAP: &str = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS \
    $$ BEGIN RAISE SQLSTATE 'XX001'; END $$; \
    CREATE TRIGGER fail BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION fail()";

/// A change, accepted offline, of a task that this host knows nothing of; where to ask for it.
async fn change_of_nothing(client: &Client, task: Uuid) -> String {
    let change = json!({ "title": "of nothing" });
    let answer = client.patch(&format!("/api/v1/tasks/{task}"), &change).await.expect(202);
    answer.header("location").to_owned()
}

/// `None` once it is no longer pending.
async fn waiting(client: &Client, operation: &str) -> Option<Waiting> {
    let answer = client.get(operation).await.expect(200);
    let attempts = answer.at("/data/attempts").as_u64()?;
    let next = answer.at("/data/next_attempt_at").clone();
    (answer.text("/data/state") == "pending").then_some(Waiting { attempts, next })
}

fn millis(time: &Value) -> i64 {
    let time: chrono::DateTime<chrono::Utc> = time.as_str().unwrap().parse().unwrap();
    time.timestamp_millis()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_attempts_and_the_next_time_outlive_the_worker_until_it_gives_up() {
    let mut world = World::builder()
        .env("MAX_RETRY_ATTEMPTS", ATTEMPTS.to_string())
        .env("RETRY_BASE_MS", BASE_MS.to_string())
        .start()
        .await;
    let client = world.client(user());
    let task = create(&client, "cannot be changed", 201).await;
    world.postgres.psql(TRAP).await;
    world.postgres_line.cut().await;
    let operation = change_of_nothing(&client, task.parse().unwrap()).await;
    assert_eq!(waiting(&client, &operation).await.unwrap().attempts, 0);
    world.postgres_line.heal().await;

    let mut seen: Vec<u64> = vec![0];
    loop {
        let last = *seen.last().unwrap();
        let now =
            wait_for(DRAIN, "another attempt", async || match waiting(&client, &operation).await {
                Some(now) if now.attempts <= last => None,
                other => Some(other),
            })
            .await;
        let Some(_) = now else { break };
        world.worker.kill();
        let killed = chrono::Utc::now().timestamp_millis();
        let Some(kept) = waiting(&client, &operation).await else { break };
        // Full jitter over a span that doubles: never later than the whole span from now.
        let span = BASE_MS << (kept.attempts - 1);
        assert!(millis(&kept.next) <= killed + span, "{kept:?} at {killed}, span {span}");
        assert_eq!(waiting(&client, &operation).await, Some(kept.clone()));
        seen.push(kept.attempts);
        world.worker.restart().await;
        let after = waiting(&client, &operation).await;
        let back = after.as_ref().is_some_and(|after| after.attempts < kept.attempts);
        assert!(!back, "{after:?} after {kept:?}");
    }
    assert!(seen.len() >= 3, "hardly any attempt was seen before the end: {seen:?}");
    assert!(seen.iter().all(|attempts| *attempts < ATTEMPTS), "{seen:?}");
    let dead = client.get(&operation).await.expect(200);
    assert_eq!(
        (dead.text("/data/state"), dead.text("/data/reason")),
        ("rejected", "internal_XX001")
    );
    drained(&world).await;
    assert_eq!(world.postgres.psql("SELECT count(*) FROM operations").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_attempts_for_what_is_yet_to_come_count_for_nothing_after_a_restart_either() {
    let mut world =
        World::builder().env("MAX_RETRY_ATTEMPTS", "2").env("RETRY_BASE_MS", "20").start().await;
    let client = world.client(user());
    let task = create(&client, "on its way from another host", 201).await;
    world.postgres.psql("CREATE TABLE aside AS SELECT * FROM tasks; DELETE FROM tasks").await;
    world.postgres.psql(TRAP).await;
    world.postgres_line.cut().await;
    let operation = change_of_nothing(&client, task.parse().unwrap()).await;
    world.postgres_line.heal().await;
    let attempts = async |least| {
        wait_for(DRAIN, "more attempts", async || {
            let now = waiting(&client, &operation).await.expect("it is pending").attempts;
            (now >= least).then_some(now)
        })
        .await
    };
    attempts(3).await;
    world.worker.kill();
    let in_vain = attempts(0).await;
    world.postgres.psql("INSERT INTO tasks SELECT * FROM aside").await;
    world.worker.restart().await;
    wait_until(DRAIN, "it is given up", async || waiting(&client, &operation).await.is_none())
        .await;
    let dead = client.get(&operation).await.expect(200);
    assert_eq!(dead.text("/data/state"), "rejected");
    assert_eq!(dead.at("/data/attempts").as_u64(), Some(in_vain + 2), "two by its own fault");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_an_outage_of_a_thousand_probes_uses_up_no_attempt() {
    // One attempt used up would be the end of an operation.
    let mut world = World::builder()
        .env("MAX_RETRY_ATTEMPTS", "1")
        .env("PROBE_INTERVAL_MS", "10")
        .start()
        .await;
    let client = world.client(user());
    let stored = create(&client, "before", 201).await;
    world.postgres.kill().await;
    let mut operations = Vec::new();
    for number in 0..20 {
        let body = json!({ "title": number.to_string() });
        let answer = client.post("/api/v1/tasks", &body).await.expect(202);
        operations.push(answer.header("location").to_owned());
    }
    let change = json!({ "status": "completed" });
    let patch = client.patch(&format!("/api/v1/tasks/{stored}"), &change).await.expect(202);
    operations.push(patch.header("location").to_owned());
    // Whoever knocks at PostgreSQL from now on is the worker.
    world.api.kill();
    let before = world.postgres_line.counts().unreachable;
    let took = wait_until(DRAIN, "the worker probed a thousand times", async || {
        world.postgres_line.counts().unreachable - before >= PROBES
    })
    .await;
    eprintln!("{PROBES} probes took {took:?}");
    world.api.restart().await;
    for operation in &operations {
        let untouched = Waiting { attempts: 0, next: Value::Null };
        assert_eq!(waiting(&client, operation).await, Some(untouched));
    }

    world.postgres.start_again().await;
    drained(&world).await;
    for operation in &operations {
        let read = client.get(operation).await.expect(200);
        assert_eq!(read.text("/data/state"), "applied");
    }
    assert_eq!(world.anonymous().get("/health").await.at("/data/buffer/dead"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_i8_who_waits_for_another_attempt_holds_up_their_own_lane_alone() {
    let minutes = Duration::from_secs(600).as_millis().to_string();
    let mut world = World::builder()
        .env("MAX_RETRY_ATTEMPTS", "1000000")
        .env("RETRY_BASE_MS", minutes.clone())
        .env("RETRY_MAX_MS", minutes)
        .start()
        .await;
    let client = world.client(user());
    let stored = create(&client, "stored", 201).await;
    world.postgres.kill().await;
    let task = Uuid::now_v7();
    let first = change_of_nothing(&client, task).await;
    let second = change_of_nothing(&client, task).await;
    for number in 0..20 {
        create(&client, &number.to_string(), 202).await;
    }
    let path = format!("/api/v1/tasks/{stored}");
    client.patch(&path, &json!({ "status": "completed" })).await.expect(202);
    world.postgres.start_again().await;
    wait_until(DRAIN, "all others are applied", async || {
        world.anonymous().get("/health").await.at("/data/buffer/pending") == 2
    })
    .await;
    assert_eq!(world.postgres.psql("SELECT count(*) FROM tasks").await, "21");
    wait_until(DRAIN, "it was tried", async || {
        waiting(&client, &first).await.unwrap().attempts >= 1
    })
    .await;
    let behind = Waiting { attempts: 0, next: Value::Null };
    assert_eq!(waiting(&client, &second).await, Some(behind));

    // Its lane goes on when the task is there (made by psql, as if another node had made it) and its
    // wait is over: one beyond the longest that the settings allow is.
    world.worker.kill();
    let made = format!(
        "INSERT INTO tasks SELECT '{task}', user_id, 'made', NULL, 'pending', title_version, \
         title_version, title_version, NULL, now(), now() FROM tasks WHERE id = '{stored}'"
    );
    world.postgres.psql(&made).await;
    world.worker.launch_mut().set_env("RETRY_MAX_MS", "0");
    world.worker.restart().await;
    drained(&world).await;
    for operation in [&first, &second] {
        assert_eq!(client.get(operation).await.text("/data/state"), "applied");
    }
}
