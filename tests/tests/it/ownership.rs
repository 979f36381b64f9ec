//! Nobody sees or changes what is somebody else's: online, from the overlay, and by replay.

use serde_json::{Value, json};
use tests::{Client, World};

use crate::story::{create, drained, user};

/// Everything one may try with a task by its id is answered as if it were not there.
async fn not_there_for(client: &Client, id: &str) {
    let path = format!("/api/v1/tasks/{id}");
    let whole = json!({ "title": "stolen", "description": null, "status": "cancelled" });
    for answer in [
        client.get(&path).await,
        client.put(&path, &whole).await,
        client.patch(&path, &json!({ "title": "stolen" })).await,
        client.delete(&path).await,
    ] {
        assert_eq!(answer.expect(404).text("/error/code"), "TASK_NOT_FOUND");
    }
    let list = client.get("/api/v1/tasks").await.expect(200);
    assert_eq!(list.at("/data"), &json!([]));
}

#[tokio::test]
async fn i10_another_users_task_is_not_there_online_and_from_the_overlay() {
    let mut world = World::start().await;
    let (owner, other) = (world.client(user()), world.client(user()));
    let stored = create(&owner, "mine", 201).await;
    not_there_for(&other, &stored).await;

    world.postgres.kill().await;
    let created = owner.post("/api/v1/tasks", &json!({ "title": "also mine" })).await.expect(202);
    let pending = created.text("/data/id").to_owned();
    not_there_for(&other, &pending).await;
    let operation = format!("/api/v1/operations/{}", created.text("/meta/sync/operation_id"));
    owner.get(&operation).await.expect(200);
    assert_eq!(other.get(&operation).await.expect(404).text("/error/code"), "OPERATION_NOT_FOUND");

    world.postgres.start_again().await;
    drained(&world).await;
    other.get(&operation).await.expect(404);
    not_there_for(&other, &pending).await;
    assert_eq!(owner.get("/api/v1/tasks").await.at("/meta/total"), 2);
}

#[tokio::test]
async fn i10_a_blind_change_of_another_users_task_is_refused_at_replay() {
    let mut world = World::start().await;
    let (owner, other) = (world.client(user()), world.client(user()));
    let id = create(&owner, "mine", 201).await;
    let path = format!("/api/v1/tasks/{id}");
    world.postgres.kill().await;
    let blind = other.patch(&path, &json!({ "title": "stolen" })).await.expect(202);
    let operation = format!("/api/v1/operations/{}", blind.text("/meta/sync/operation_id"));
    owner.patch(&path, &json!({ "status": "completed" })).await.expect(202);
    let seen = owner.get(&path).await.expect(200);
    assert_eq!((seen.at("/data/title"), seen.text("/data/status")), (&Value::Null, "completed"));

    world.postgres.start_again().await;
    drained(&world).await;
    let seen = owner.get(&path).await.expect(200);
    assert_eq!((seen.text("/data/title"), seen.text("/data/status")), ("mine", "completed"));
    let refused = other.get(&operation).await.expect(200);
    assert_eq!(
        (refused.text("/data/state"), refused.text("/data/reason")),
        ("rejected", "forbidden")
    );
    other.get(&path).await.expect(404);
}

#[tokio::test]
async fn i10_a_suspended_user_is_refused_online_and_at_replay() {
    let mut world = World::start().await;
    let id = user();
    let client = world.client(id);
    let task = create(&client, "before", 201).await;
    world.postgres.kill().await;
    create(&client, "in the outage", 202).await;
    world.worker.kill();
    world.postgres.start_again().await;
    world.postgres.psql(&format!("UPDATE users SET status = 'suspended' WHERE id = '{id}'")).await;
    world.worker.restart().await;
    drained(&world).await;
    assert_eq!(world.postgres.psql("SELECT count(*) FROM tasks").await, "1");
    let refused = client.post("/api/v1/tasks", &json!({ "title": "after" })).await.expect(403);
    assert_eq!(refused.text("/error/code"), "USER_SUSPENDED");
    client.delete(&format!("/api/v1/tasks/{task}")).await.expect(403);
}
