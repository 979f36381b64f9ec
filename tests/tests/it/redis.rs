//! Redis away: tasks and profiles go on as if nothing had happened.

use serde_json::json;
use tests::{World, wait_until};

use crate::story::{DRAIN, create, user};

#[tokio::test]
async fn redis_killed_is_no_error_for_tasks_and_profiles() {
    let mut world = World::start().await;
    let client = world.client(user());
    world.redis.kill();
    let id = create(&client, "without redis", 201).await;
    client.get(&format!("/api/v1/tasks/{id}")).await.expect(200);
    client
        .patch(&format!("/api/v1/tasks/{id}"), &json!({ "status": "completed" }))
        .await
        .expect(200);
    client.patch("/api/v1/profile", &json!({ "preferences": {} })).await.expect(200);
    client.delete(&format!("/api/v1/tasks/{id}")).await.expect(204);
    let health = world.anonymous().get("/health").await.expect(503);
    assert_eq!(health.text("/data/status"), "degraded");
    assert_eq!((health.text("/data/redis"), health.text("/data/postgres")), ("down", "up"));
    world.anonymous().get("/ready").await.expect(200);
    wait_until(DRAIN, "the worker says so too", async || {
        world.http().get(format!("{}/health", world.worker_url())).send().await.unwrap().status()
            == 503
    })
    .await;
    world.redis.start_again().await;
    wait_until(DRAIN, "healthy again", async || world.is_healthy().await).await;
}

#[tokio::test]
async fn redis_that_hangs_is_no_error_either() {
    let mut world = World::start().await;
    let client = world.client(user());
    world.redis.suspend();
    create(&client, "beside a hanging redis", 201).await;
    world.anonymous().get("/health").await.expect(503);
    world.anonymous().get("/ready").await.expect(200);
    world.redis.resume();
    wait_until(DRAIN, "healthy again", async || world.is_healthy().await).await;
}
