//! Erasing a user leaves nothing readable of them on this host, whatever they had written and wherever
//! it lay; what admins have ordered stands, and nobody can stand in the way of it.

use serde_json::json;
use tests::{Client, World, wait_until};
use uuid::Uuid;

use crate::story::{DRAIN, create, drained, is_readable, user};

const MARKER: &str = "canary-8b2";

fn of(id: Uuid) -> String {
    format!("/api/v1/users/{id}")
}

/// Writes marked tasks and preferences in an outage; the path of the last operation.
async fn write_marked(client: &Client) -> String {
    for number in 0..30 {
        let task =
            json!({ "title": format!("{MARKER} {number}"), "description": MARKER.repeat(99) });
        client.post("/api/v1/tasks", &task).await.expect(202);
    }
    let preferences = json!({ "preferences": { "note": MARKER } });
    let written = client.put("/api/v1/profile", &preferences).await.expect(202);
    format!("/api/v1/operations/{}", written.text("/meta/sync/operation_id"))
}

#[tokio::test]
async fn a_user_erased_in_an_outage_is_nowhere_in_the_file_and_others_are() {
    let mut world = World::start().await;
    let (id, other) = (user(), world.client(user()));
    let (client, admin) = (world.client(id), world.client_as(user(), "admin"));
    create(&client, "online", 201).await;
    admin.get("/api/v1/profile").await.expect(200);
    world.postgres.kill().await;
    let operation = write_marked(&client).await;
    create(&other, "stays", 202).await;
    assert!(is_readable(&world, MARKER), "what was looked for could have been found");

    admin.delete(&of(id)).await.expect(202);
    assert!(!is_readable(&world, MARKER));
    let seen = admin.get(&operation).await.expect(200);
    assert_eq!((seen.text("/data/state"), seen.text("/data/reason")), ("discarded", "erased"));
    client.get("/api/v1/tasks").await.expect(403);

    world.postgres.start_again().await;
    drained(&world).await;
    let left = format!("SELECT count(*) FROM tasks WHERE user_id = '{id}'");
    assert_eq!(world.postgres.psql(&left).await, "0");
    assert_eq!(world.postgres.psql("SELECT count(*) FROM tasks").await, "1");
    assert!(!is_readable(&world, MARKER));
}

#[tokio::test]
async fn what_turns_up_of_an_erased_user_is_removed_and_no_dead_letter() {
    let mut world = World::start().await;
    let id = user();
    let client = world.client(id);
    world.worker.kill();
    world.postgres.kill().await;
    write_marked(&client).await;
    world.postgres.start_again().await;
    // As another node would have it.
    let elsewhere = format!(
        "INSERT INTO users (id, status, status_version, erased_at) \
         VALUES ('{id}', 'suspended', gen_random_uuid(), now())"
    );
    world.postgres.psql(&elsewhere).await;
    world.worker.start().await.unwrap();
    drained(&world).await;
    let health = world.anonymous().get("/health").await;
    assert_eq!(health.at("/data/buffer/dead"), 0);
    // The worker overwrites the file once the operations are out of it.
    wait_until(DRAIN, "nothing of it is readable", async || !is_readable(&world, MARKER)).await;
}

#[tokio::test]
async fn a_user_cannot_fill_the_way_of_their_own_suspension() {
    let mut world = World::builder().env("BUFFER_MAX_SIZE", "1000").start().await;
    let id = user();
    let (client, admin) = (world.client(id), world.client_as(user(), "admin"));
    world.postgres.kill().await;
    let preferences = json!({ "preferences": {} });
    let writes = (0..1001).map(|_| client.patch("/api/v1/profile", &preferences));
    let answers = futures::future::join_all(writes).await;
    assert!(answers.iter().any(|answer| answer.status != 202), "there is a limit");
    admin.patch(&of(id), &json!({ "status": "suspended" })).await.expect(202);
    client.patch("/api/v1/profile", &preferences).await.expect(403);
}

#[tokio::test]
async fn what_an_admin_has_ordered_stands_when_that_admin_is_erased() {
    let mut world = World::start().await;
    let (first, id) = (user(), user());
    let client = world.client(id);
    let (one, two) = (world.client_as(first, "admin"), world.client_as(user(), "admin"));
    two.get("/api/v1/profile").await.expect(200);
    world.postgres.kill().await;
    one.patch(&of(id), &json!({ "status": "suspended" })).await.expect(202);
    two.delete(&of(first)).await.expect(202);
    client.get("/api/v1/tasks").await.expect(403);
    world.postgres.start_again().await;
    drained(&world).await;
    wait_until(DRAIN, "the suspension has come to PostgreSQL", async || {
        let status = format!("SELECT status FROM users WHERE id = '{id}'");
        world.postgres.psql(&status).await == "suspended"
    })
    .await;
}
