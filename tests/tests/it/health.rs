//! What `/health` of both processes says, and when: nobody has to ask for anything for an outage to be
//! noticed, and what somebody should look at is named.

use std::time::Duration;

use serde_json::json;
use tests::{Client, WallClock, World, wait_until};
use uuid::Uuid;

use crate::story::{DRAIN, create, drained, user};

/// It is two seconds at the most on a machine that is not busy; an api that waited to be asked took 13.
const NOTICED: Duration = Duration::from_secs(8);

fn worker_of(world: &World) -> Client {
    Client::new(world.http().clone(), world.worker_url(), None)
}

/// Waits until both processes say that PostgreSQL is away, while nobody asks for anything else.
async fn noticed_by_both(world: &World) {
    let (api, worker) = (world.anonymous(), worker_of(world));
    let (by_api, by_worker) = tokio::join!(
        wait_until(NOTICED, "the api has noticed", async || {
            let health = api.get("/health").await;
            health.status == 503 && health.text("/data/postgres") == "down"
        }),
        wait_until(NOTICED, "the worker has noticed", async || {
            worker.get("/health").await.status == 503
        }),
    );
    eprintln!("noticed by the api after {by_api:?}, by the worker after {by_worker:?}");
}

#[tokio::test]
async fn an_outage_is_noticed_within_two_seconds_without_any_request() {
    let mut world = World::builder().without_lines().start().await;
    world.postgres.kill().await;
    noticed_by_both(&world).await;
}

#[tokio::test]
async fn a_line_that_swallows_everything_is_noticed_without_any_request() {
    let world = World::start().await;
    world.postgres_line.stall().await;
    noticed_by_both(&world).await;
    world.postgres_line.heal().await;
    wait_until(DRAIN, "healthy", async || world.is_healthy().await).await;
}

#[tokio::test]
async fn dead_letters_leave_health_as_it_is_and_a_pause_does_not() {
    let world = World::builder().env("MISSING_RETRY_SECONDS", "0").start().await;
    let client = world.client(user());
    let (api, worker) = (world.anonymous(), worker_of(&world));
    for health in [api.get("/health").await, worker.get("/health").await] {
        assert_eq!(health.expect(200).at("/data/attention"), &json!([]));
    }
    world.postgres_line.cut().await;
    let path = format!("/api/v1/tasks/{}", Uuid::now_v7());
    client.patch(&path, &json!({ "title": "of nothing" })).await.expect(202);
    world.postgres_line.heal().await;
    drained(&world).await;
    wait_until(DRAIN, "the worker is healthy", async || worker.get("/health").await.status == 200)
        .await;
    for health in [api.get("/health").await, worker.get("/health").await] {
        assert_eq!(health.expect(200).at("/data/attention"), &json!(["dead_letters"]));
    }

    let operator = world.client_as(user(), "operator");
    operator.post("/api/v1/buffer/pause", &json!({})).await.expect(200);
    for health in [api.get("/health").await, worker.get("/health").await] {
        assert_eq!(health.expect(503).at("/data/attention"), &json!(["dead_letters", "paused"]));
    }
    operator.post("/api/v1/buffer/resume", &json!({})).await.expect(200);
    api.get("/health").await.expect(200);
    worker.get("/health").await.expect(200);
}

#[tokio::test]
async fn clocks_that_differ_are_told_and_a_great_difference_is_no_health() {
    let mut world = World::builder().without_worker().start().await;
    let folder = world.folder().to_path_buf();
    let clock = WallClock::of(&mut world.worker, &folder);
    world.worker.start().await.unwrap();
    let worker = worker_of(&world);
    let shows = async |status: u16, attention: &serde_json::Value| {
        wait_until(DRAIN, &format!("{status} and {attention}"), async || {
            let health = worker.get("/health").await;
            health.status == status && health.at("/data/attention") == attention
        })
        .await;
    };
    shows(200, &json!([])).await;
    clock.set("+5s");
    shows(200, &json!(["clock_skew"])).await;
    clock.set("+2m");
    shows(503, &json!(["clock_skew"])).await;
    clock.set("+0");
    shows(200, &json!([])).await;
    let log = world.worker.log();
    assert!(log.contains("ahead of this host's") && log.contains("agree again"), "{log}");
    create(&world.client(user()), "all the same", 201).await;
}
