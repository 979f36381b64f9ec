//! Starting in an outage, serving without the other process, and ending when asked.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Client, Probe, Process, World, free_port, wait_until};

use crate::story::{DRAIN, create, drained, user};

#[tokio::test]
async fn i14_both_start_with_nothing_there_and_fill_postgresql_when_it_appears() {
    let mut world = World::builder().without_postgres().without_redis().start().await;
    let client = world.client(user());
    let id = create(&client, "early", 202).await;
    let preferences = json!({ "preferences": { "theme": "dark" } });
    client.put("/api/v1/profile", &preferences).await.expect(202);
    assert_eq!(
        client.get("/api/v1/profile").await.expect(200).text("/data/preferences/theme"),
        "dark"
    );
    world.anonymous().get("/ready").await.expect(200);
    let health = world.anonymous().get("/health").await.expect(503);
    assert_eq!(health.text("/data/status"), "degraded");
    assert_eq!(health.text("/data/postgres"), "down");
    assert_eq!(health.at("/data/buffer/pending"), 2);
    assert!(world.worker.is_running(), "the worker waits");

    world.postgres.start_again().await;
    world.redis.start_again().await;
    drained(&world).await;

    let title = format!("SELECT title FROM tasks WHERE id = '{id}'");
    assert_eq!(world.postgres.psql(&title).await, "early");
    let profile = client.get("/api/v1/profile").await.expect(200);
    assert_eq!(profile.text("/data/preferences/theme"), "dark");
    assert_eq!((profile.text("/data/role"), profile.text("/meta/source")), ("user", "database"));
}

#[tokio::test]
async fn i13_the_api_serves_without_a_worker_and_the_worker_without_an_api() {
    let mut world = World::start().await;
    world.worker.kill();
    let client = world.client(user());
    create(&client, "online, without a worker", 201).await;
    world.postgres.kill().await;
    let id = create(&client, "buffered, without a worker", 202).await;
    world.api.kill();
    world.postgres.start_again().await;
    world.worker.restart().await;
    let stored = format!("SELECT count(*) FROM tasks WHERE id = '{id}'");
    wait_until(DRAIN, "replayed without an api", async || {
        world.postgres.psql(&stored).await == "1"
    })
    .await;
    world.api.restart().await;
    client.get(&format!("/api/v1/tasks/{id}")).await.expect(200);
}

#[tokio::test]
async fn i14_the_api_alone_serves_from_the_buffer_file() {
    let world = World::builder().without_postgres().without_redis().without_worker().start().await;
    let client = world.client(user());
    let id = create(&client, "alone", 202).await;
    client.get(&format!("/api/v1/tasks/{id}")).await.expect(200);
    let list = client.get("/api/v1/tasks").await.expect(200);
    assert_eq!((list.at("/meta/total"), list.text("/meta/source")), (&json!(1), "overlay"));
    let unknown = client.get(&format!("/api/v1/tasks/{}", user())).await.expect(503);
    assert_eq!(unknown.text("/error/code"), "DATABASE_UNAVAILABLE");
    assert!(!unknown.header("retry-after").is_empty());
    let health = world.anonymous().get("/health").await.expect(503);
    assert_eq!(health.text("/data/worker"), "absent");
}

#[tokio::test]
async fn asked_to_end_both_end_cleanly_within_five_seconds() {
    let mut world = World::start().await;
    let limit = Duration::from_secs(5);
    let (api, worker) = tokio::join!(world.api.terminate(limit), world.worker.terminate(limit));
    assert!(api.unwrap().success());
    assert!(worker.unwrap().success());
}

#[tokio::test]
async fn a_second_worker_stands_by_and_takes_over() {
    let mut world = World::start().await;
    let port = free_port();
    let log = world.folder().join("standby.log");
    let launch = world.worker.launch_mut().clone();
    let launch = launch.env("WORKER_PORT", port.to_string()).logging_to(log);
    let mut second = Process::new("standby", launch, Probe::Live(port));
    second.start().await.unwrap();
    wait_until(DRAIN, "the second stands by", async || second.log().contains("standing by")).await;
    let url = format!("http://127.0.0.1:{port}");
    let anonymous = Client::new(world.http().clone(), url, None);
    let standby = anonymous.get("/health").await.expect(200);
    assert_eq!(standby.text("/data/role"), "standby");
    assert_eq!(standby.at("/data/worker/postgres/up"), &json!(true), "{standby:?}");
    world.worker.kill();
    let killed = Instant::now();
    wait_until(DRAIN, "the second is active", async || {
        anonymous.get("/health").await.text("/data/role") == "active"
    })
    .await;
    let took = killed.elapsed();
    eprintln!("took over after {took:?}");
    assert!(took <= Duration::from_secs(2), "took over after {took:?}");
    world.postgres.kill().await;
    let client = world.client(user());
    create(&client, "for the second", 202).await;
    world.postgres.start_again().await;
    drained(&world).await;
}

#[tokio::test]
async fn a_standby_with_the_same_port_waits_for_it_as_for_the_lock() {
    let mut world = World::start().await;
    let log = world.folder().join("standby.log");
    let launch = world.worker.launch_mut().clone().logging_to(log);
    let mut second = Process::new("standby", launch, Probe::Live(world.worker_port()));
    second.spawn().unwrap();
    wait_until(DRAIN, "it stands by without a port", async || {
        second.log().contains("standing by") && second.log().contains("does not listen")
    })
    .await;
    world.worker.kill();
    wait_until(DRAIN, "it has taken over", async || second.log().contains("active\"")).await;
    second.wait_until_up().await.unwrap();
    assert_eq!(second.log().matches("does not listen").count(), 1, "{}", second.log());
    wait_until(DRAIN, "healthy", async || world.is_healthy().await).await;
}
