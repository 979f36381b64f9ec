//! Creates that are repeated with their `Idempotency-Key`, as clients are told to when an answer was
//! lost: on the same host or on another one, they undo, hide and block nothing that came after the first.

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Client, World};
use uuid::Uuid;

use crate::story::{drained, user};
use crate::two_nodes::{fate, patch_if, path, post_with_key, second_node, state, title_of};

/// A world in which nothing is cached.
async fn uncached() -> World {
    World::builder().env("CACHE_TTL_SECONDS", "0").start().await
}

async fn dead(world: &World) -> Value {
    world.anonymous().get("/health").await.at("/data/buffer/dead").clone()
}

async fn delete_if(client: &Client, task: &str, etag: &str) -> Answer {
    let request = client.request(Method::DELETE, &path(task)).header("If-Match", etag);
    Answer::to(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_repeat_on_another_host_that_is_replayed_first_undoes_no_edit() {
    let first = World::start().await;
    let (second, line) = second_node(&first, &[]).await;
    let user = user();
    let (here, there) = (first.client(user), second.client(user));
    first.postgres_line.cut().await;
    line.cut().await;
    let mut edits = Vec::new();
    for number in 0..5 {
        let key = format!("key {number}").replace(' ', "-");
        let created = post_with_key(&here, &key, "of the create").await.expect(202);
        let task = created.text("/data/id").to_owned();
        let edit = here.patch(&path(&task), &json!({ "title": "of the edit" })).await.expect(202);
        post_with_key(&there, &key, "of the create").await.expect(202);
        edits.push((task, edit));
    }
    line.heal().await;
    drained(&second).await;
    first.postgres_line.heal().await;
    drained(&first).await;
    for (task, edit) in &edits {
        assert_eq!(state(&here, edit).await, "applied");
        assert_eq!(title_of(&there, task).await, "of the edit");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_an_etag_that_was_handed_out_for_a_repeat_holds_when_the_first_create_was_committed() {
    let world = uncached().await;
    let client = world.client(user());
    // The answer to the first was lost on its way to the client.
    let first = post_with_key(&client, "lost", "of the create").await.expect(201);
    let ended = post_with_key(&client, "ended", "of the create").await.expect(201);
    world.postgres_line.cut().await;
    let repeat = post_with_key(&client, "lost", "of the create").await.expect(202);
    let task = repeat.text("/data/id");
    assert_eq!((task, repeat.header("etag")), (first.text("/data/id"), first.header("etag")));
    let change = json!({ "title": "of the edit" });
    let edit = patch_if(&client, task, repeat.header("etag"), &change).await.expect(202);
    assert_eq!(title_of(&client, task).await, "of the edit");
    let again = patch_if(&client, task, repeat.header("etag"), &change).await.expect(412);
    assert_eq!(again.text("/error/code"), "PRECONDITION_FAILED");
    let repeat = post_with_key(&client, "ended", "of the create").await.expect(202);
    let delete = delete_if(&client, ended.text("/data/id"), repeat.header("etag")).await;
    let delete = delete.expect(202);

    world.postgres_line.heal().await;
    drained(&world).await;
    assert_eq!(fate(&client, &edit).await, ("applied".to_owned(), Value::Null));
    assert_eq!(fate(&client, &delete).await, ("applied".to_owned(), Value::Null));
    assert_eq!(title_of(&client, task).await, "of the edit");
    assert_eq!(dead(&world).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i9_a_repeat_in_an_outage_hides_no_edit_refuses_no_right_etag_and_brings_nothing_back() {
    let mut world = uncached().await;
    let client = world.client(user());
    let task = async |key: &str| {
        let created = post_with_key(&client, key, "of the create").await.expect(201);
        created.text("/data/id").to_owned()
    };
    let (edited, deleted) = (task("edited").await, task("deleted").await);
    let (other, after_restart) = (task("other").await, task("restart").await);
    let edit = async |task: &str| {
        let change = json!({ "title": "of the edit" });
        client.patch(&path(task), &change).await.expect(200).header("etag").to_owned()
    };
    let (etag, etag_after_restart) = (edit(&edited).await, edit(&after_restart).await);
    client.delete(&path(&deleted)).await.expect(204);
    client.delete(&path(&other)).await.expect(204);

    world.postgres_line.cut().await;
    post_with_key(&client, "edited", "of the create").await.expect(202);
    assert_eq!(title_of(&client, &edited).await, "of the edit");
    let listed = client.get("/api/v1/tasks").await.expect(200);
    assert_eq!(listed.text("/data/0/title"), "of the edit");
    let change = json!({ "status": "completed" });
    let right = patch_if(&client, &edited, &etag, &change).await.expect(202);
    let refused = post_with_key(&client, "deleted", "of the create").await.expect(409);
    assert_eq!(refused.text("/error/code"), "TASK_DELETED");
    client.get(&path(&deleted)).await.expect(503);
    client.patch(&path(&deleted), &change).await.expect(404);
    // A process that knows of none of them lets in what replay can settle.
    world.api.restart().await;
    post_with_key(&client, "restart", "of the create").await.expect(202);
    let late = patch_if(&client, &after_restart, &etag_after_restart, &change).await.expect(202);
    let back = post_with_key(&client, "other", "of the create").await.expect(202);

    world.postgres_line.heal().await;
    drained(&world).await;
    assert_eq!(fate(&client, &right).await, ("applied".to_owned(), Value::Null));
    assert_eq!(fate(&client, &late).await, ("applied".to_owned(), Value::Null));
    assert_eq!(state(&client, &back).await, "superseded");
    for task in [&edited, &after_restart] {
        let read = client.get(&path(task)).await.expect(200);
        let seen = (read.text("/data/title"), read.text("/data/status"));
        assert_eq!(seen, ("of the edit", "completed"));
    }
    for task in [&deleted, &other] {
        client.get(&path(task)).await.expect(404);
    }
    assert_eq!(dead(&world).await, 0);
    let keyed = world.postgres.psql("SELECT count(*) FROM tasks").await;
    assert_eq!(keyed, "4");
    assert!(Uuid::parse_str(&edited).unwrap().get_version_num() == 5);
}
