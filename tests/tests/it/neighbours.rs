//! One bad neighbour stops nobody else (invariant 8): locked rows, rows of another program, suspended
//! users, processes that were stopped.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use tests::{Client, Probe, Process, World, free_port, wait_until};
use tokio::task::JoinHandle;

use crate::story::{DRAIN, create, drained, user};

/// Holds a lock in PostgreSQL until it is told to let go.
async fn hold(world: &World, lock: &str) -> JoinHandle<()> {
    let url = world.postgres.url();
    let sql = format!("BEGIN; {lock}; SELECT pg_sleep(3600)");
    let holding = tokio::spawn(async move {
        let _ = tokio::process::Command::new("psql")
            .args(["-q", "-d", &url, "-c", &sql])
            .kill_on_drop(true)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .await;
    });
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until(DRAIN, "the lock is held", async || world.postgres.psql(asleep).await == "1").await;
    holding
}

async fn let_go(world: &World) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE wait_event = 'PgSleep'";
    world.postgres.psql(end).await;
}

async fn state(client: &Client, operation: &str) -> (String, u64) {
    let answer = client.get(&format!("/api/v1/operations/{operation}")).await.expect(200);
    let attempts = answer.at("/data/attempts").as_u64().unwrap_or(0);
    (answer.text("/data/state").to_owned(), attempts)
}

#[tokio::test]
async fn i8_locked_rows_hold_up_their_own_lanes_only_and_use_up_no_attempts() {
    let mut world = World::builder().env("RETRY_BASE_MS", "100").start().await;
    let client = world.client(user());
    let mut ids = Vec::new();
    for number in 0..40 {
        ids.push(create(&client, &format!("task {number}"), 201).await);
    }
    world.postgres.kill().await;
    let mut operations = Vec::new();
    for id in &ids {
        let change = json!({ "status": "completed" });
        let answer = client.patch(&format!("/api/v1/tasks/{id}"), &change).await.expect(202);
        operations.push(answer.text("/meta/sync/operation_id").to_owned());
    }
    world.worker.kill();
    world.postgres.start_again().await;
    let locked = format!("SELECT FROM tasks WHERE id IN ('{}', '{}') FOR UPDATE", ids[0], ids[30]);
    let holding = hold(&world, &locked).await;
    world.worker.restart().await;
    wait_until(DRAIN, "all others are applied", async || {
        world.postgres.psql("SELECT count(*) FROM tasks WHERE status = 'completed'").await == "38"
    })
    .await;
    for at in [0, 30] {
        assert_eq!(state(&client, &operations[at]).await, ("pending".to_owned(), 0));
    }
    // Online too: a locked row is no outage for the others, and its own write is buffered.
    let path = format!("/api/v1/tasks/{}", ids[0]);
    client.patch(&path, &json!({ "title": "while locked" })).await.expect(202);
    create(&client, "beside a locked row", 201).await;
    let_go(&world).await;
    holding.abort();
    drained(&world).await;
    let read = client.get(&path).await.expect(200);
    assert_eq!(
        (read.text("/data/status"), read.text("/data/title")),
        ("completed", "while locked")
    );
}

#[tokio::test]
async fn i8_a_row_of_another_program_is_no_outage_for_the_others() {
    let world = World::start().await;
    let client = world.client(user());
    let id = create(&client, "of the future", 201).await;
    world
        .postgres
        .psql(&format!(
            "ALTER TABLE tasks DROP CONSTRAINT tasks_status_check; \
             UPDATE tasks SET status = 'archived' WHERE id = '{id}'"
        ))
        .await;
    for _ in 0..3 {
        client.get(&format!("/api/v1/tasks/{id}")).await.expect(503);
        create(&world.client(user()), "of the present", 201).await;
    }
}

#[tokio::test]
async fn i10_a_suspended_user_does_no_harm_to_the_owner_of_a_lane() {
    let mut world = World::start().await;
    let (owner, suspended) = (user(), user());
    let (of_owner, of_suspended) = (world.client(owner), world.client(suspended));
    let id = create(&of_owner, "mine", 201).await;
    create(&of_suspended, "so that there is such a user", 201).await;
    let suspend = format!("UPDATE users SET status = 'suspended' WHERE id = '{suspended}'");
    world.postgres.psql(&suspend).await;
    world.postgres.kill().await;
    let path = format!("/api/v1/tasks/{id}");
    of_suspended.patch(&path, &json!({ "title": "stolen" })).await.expect(202);
    let change = of_owner.patch(&path, &json!({ "title": "still mine" })).await.expect(202);
    world.postgres.start_again().await;
    drained(&world).await;
    let operation = change.text("/meta/sync/operation_id");
    assert_eq!(state(&of_owner, operation).await.0, "applied");
    assert_eq!(of_owner.get(&path).await.expect(200).text("/data/title"), "still mine");
}

#[tokio::test]
async fn whatever_the_edge_accepts_survives_the_buffer_as_it_is() {
    let mut world = World::start().await;
    let client = world.client(user());
    let deepest = (1..31).fold(json!(4.893_265_717_301_643_6e151), |inner, _| json!([inner]));
    let preferences = json!({ "preferences": { "deep": deepest, "text": "\u{1F600}\\\"\u{7f}" } });
    world.postgres.kill().await;
    client.put("/api/v1/profile", &preferences).await.expect(202);
    let deeper = json!({ "preferences": { "deep": [deepest] } });
    let refused = client.put("/api/v1/profile", &deeper).await.expect(400);
    assert_eq!(refused.text("/error/details/0/field"), "preferences");
    world.postgres.start_again().await;
    drained(&world).await;
    let stored = client.get("/api/v1/profile").await.expect(200);
    assert_eq!(stored.at("/data/preferences"), &preferences["preferences"]);
}

#[tokio::test]
async fn a_write_of_unknown_outcome_that_cannot_be_buffered_is_not_called_refused() {
    let mut world = World::builder().env("BUFFER_USER_SHARE", "0").start().await;
    let client = world.client(user());
    create(&client, "to warm up", 201).await;
    world.postgres.suspend();
    let answer = client.post("/api/v1/tasks", &json!({ "title": "perhaps" })).await.expect(503);
    assert_eq!(answer.text("/error/code"), "OUTCOME_UNKNOWN");
    let later = client.post("/api/v1/tasks", &json!({ "title": "no" })).await.expect(429);
    assert_eq!(later.text("/error/code"), "USER_BUFFER_QUOTA");
    world.postgres.resume();
    wait_until(DRAIN, "healthy", async || world.is_healthy().await).await;
    assert_eq!(world.postgres.psql("SELECT count(*) FROM tasks WHERE title = 'no'").await, "0");
}

/// A second api on the same buffer file.
async fn second_api(world: &mut World) -> (Process, String) {
    let port = free_port();
    let launch = world.api.launch_mut().clone();
    let launch =
        launch.env("SERVER_PORT", port.to_string()).logging_to(world.folder().join("second.log"));
    let mut second = Process::new("second", launch, Probe::Live(port));
    second.start().await.unwrap();
    (second, format!("http://127.0.0.1:{port}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_a_process_stopped_while_it_writes_the_buffer_keeps_nobody_from_answering_or_ending() {
    let mut world = World::start().await;
    let (mut second, url) = second_api(&mut world).await;
    let who = world.client(user());
    let token = who.token().unwrap().to_owned();
    let other = Client::new(world.http().clone(), url, Some(token));
    world.postgres.kill().await;
    create(&who, "by way of the first", 202).await;
    create(&other, "by way of the second", 202).await;
    // Load on the first, so that it is likely to be stopped while it holds the lock; until it is.
    let load = crate::load::Load::start(16, |_| who.clone());
    let mut held = false;
    for _ in 0..50 {
        let before = load.accepted();
        wait_until(DRAIN, "load", async || load.accepted() > before + 20).await;
        world.api.signal(Signal::SIGSTOP);
        let answer = other.post("/api/v1/tasks", &json!({ "title": "meanwhile" })).await;
        assert!(answer.took < Duration::from_secs(5), "{answer:#?}");
        held = answer.status == 503;
        if held {
            assert_eq!(answer.text("/error/code"), "BUFFER_UNAVAILABLE");
            break;
        }
        answer.expect(202);
        world.api.signal(Signal::SIGCONT);
    }
    assert!(held, "it was never stopped while it held the lock");
    let started = Instant::now();
    let limit = Duration::from_secs(10);
    let (api, worker) = tokio::join!(second.terminate(limit), world.worker.terminate(limit));
    eprintln!("ended after {:?}: {api:?}, {worker:?}", started.elapsed());
    assert!(api.is_ok() && worker.is_ok());
    world.api.signal(Signal::SIGCONT);
    for create in load.stop().await {
        assert!(matches!(create.status, 202 | 429 | 503), "{create:?}");
    }
}

#[tokio::test]
async fn a_worker_whose_port_is_taken_says_so_and_ends() {
    let mut world = World::builder().without_worker().start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let launch = world.worker.launch_mut().clone().env("WORKER_PORT", port.to_string());
    let mut worker = Process::new("worker", launch, Probe::Live(port));
    worker.spawn().unwrap();
    let status = worker.wait(Duration::from_secs(10)).await.unwrap();
    assert!(!status.success());
    assert!(worker.log().contains("WORKER_PORT"), "{}", worker.log());
}
