//! Two hosts, each with an api, a worker and a buffer file of its own, on one PostgreSQL, which each
//! reaches by a line of its own, and one Redis.

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Client, Proxy, World, wait_until};
use uuid::{NoContext, Timestamp, Uuid};

use crate::story::{DRAIN, create, drained, user};

/// Another host on the PostgreSQL of `first`, and its line there.
pub async fn second_node(first: &World, settings: &[(&str, &str)]) -> (World, Proxy) {
    let line = Proxy::start(first.postgres.port()).await;
    let url = format!("postgres://holdfast@127.0.0.1:{}/holdfast", line.port());
    let builder = World::builder()
        .without_postgres()
        .without_redis()
        .env("DATABASE_URL", url)
        .env("REDIS_URL", first.redis.url());
    let builder =
        settings.iter().fold(builder.env("NODE_ID", "second"), |builder, (name, value)| {
            builder.env(*name, *value)
        });
    let second = builder.start().await;
    wait_until(DRAIN, "the second node is healthy", async || second.is_healthy().await).await;
    (second, line)
}

async fn two_nodes() -> (World, World, Proxy) {
    let first = World::start().await;
    let (second, line) = second_node(&first, &[]).await;
    (first, second, line)
}

pub async fn post_with_key(client: &Client, key: &str, title: &str) -> Answer {
    let request = client.request(Method::POST, "/api/v1/tasks").header("Idempotency-Key", key);
    Answer::to(request.json(&json!({ "title": title }))).await.unwrap()
}

pub async fn patch_if(client: &Client, task: &str, etag: &str, change: &Value) -> Answer {
    let request = client.request(Method::PATCH, &path(task)).header("If-Match", etag);
    Answer::to(request.json(change)).await.unwrap()
}

pub fn path(task: &str) -> String {
    format!("/api/v1/tasks/{task}")
}

/// State and reason of the operation that a write was accepted as.
pub async fn fate(client: &Client, written: &Answer) -> (String, Value) {
    let operation = written.text("/meta/sync/operation_id");
    let answer = client.get(&format!("/api/v1/operations/{operation}")).await.expect(200);
    (answer.text("/data/state").to_owned(), answer.at("/data/reason").clone())
}

pub async fn state(client: &Client, written: &Answer) -> String {
    fate(client, written).await.0
}

pub async fn title_of(client: &Client, task: &str) -> String {
    client.get(&path(task)).await.expect(200).text("/data/title").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_an_idempotency_key_makes_one_task_online_offline_and_on_another_node() {
    let (first, second, line) = two_nodes().await;
    let user = user();
    let (here, there) = (first.client(user), second.client(user));
    let online = post_with_key(&here, "online", "one").await.expect(201);
    let again = post_with_key(&there, "online", "another").await.expect(200);
    assert_eq!(
        (again.text("/data/id"), again.text("/data/title")),
        (online.text("/data/id"), "one")
    );
    assert_eq!(again.header("idempotency-replayed"), "true");

    first.postgres_line.cut().await;
    line.cut().await;
    let offline = post_with_key(&here, "offline", "two").await.expect(202);
    assert_eq!(offline.header("idempotency-replayed"), "");
    let again = post_with_key(&here, "offline", "another").await.expect(202);
    let task = offline.text("/data/id");
    assert_eq!((again.text("/data/id"), again.text("/data/title")), (task, "two"));
    assert_eq!(again.at("/meta/sync"), offline.at("/meta/sync"));
    assert_eq!(again.header("idempotency-replayed"), "true");
    let blind = post_with_key(&here, "online", "yet another").await.expect(202);
    assert_eq!(blind.text("/data/id"), online.text("/data/id"));
    let elsewhere = post_with_key(&there, "offline", "three").await.expect(202);
    assert_eq!(elsewhere.text("/data/id"), task);

    first.postgres_line.heal().await;
    drained(&first).await;
    line.heal().await;
    drained(&second).await;
    assert_eq!(state(&here, &offline).await, "applied");
    assert_eq!(state(&here, &blind).await, "duplicate");
    assert_eq!(state(&there, &elsewhere).await, "duplicate");
    for client in [&here, &there] {
        let replayed = post_with_key(client, "offline", "four").await.expect(200);
        assert_eq!((replayed.text("/data/id"), replayed.text("/data/title")), (task, "two"));
        assert_eq!(replayed.header("idempotency-replayed"), "true");
        assert_eq!(client.get("/api/v1/tasks").await.at("/meta/total"), 2);
    }
    assert_eq!(first.postgres.psql("SELECT count(*) FROM tasks").await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_match_is_checked_against_what_is_seen_and_again_at_replay() {
    let (first, second, line) = two_nodes().await;
    let user = user();
    let (here, there) = (first.client(user), second.client(user));
    let created = here.post("/api/v1/tasks", &json!({ "title": "first" })).await.expect(201);
    let (task, etag) = (created.text("/data/id"), created.header("etag"));

    // Accepted blind, and true when it is replayed.
    line.cut().await;
    let blind = patch_if(&there, task, etag, &json!({ "status": "completed" })).await.expect(202);
    line.heal().await;
    drained(&second).await;
    assert_eq!(state(&there, &blind).await, "applied");
    let read = here.get(&path(task)).await.expect(200);
    assert_eq!((read.text("/data/title"), read.text("/data/status")), ("first", "completed"));

    // Accepted blind, and stale when it is replayed.
    let etag = read.header("etag");
    line.cut().await;
    let blind = patch_if(&there, task, etag, &json!({ "title": "stale" })).await.expect(202);
    patch_if(&here, task, etag, &json!({ "title": "second" })).await.expect(200);
    let refused = patch_if(&here, task, etag, &json!({ "title": "stale" })).await.expect(412);
    assert_eq!(refused.text("/error/code"), "PRECONDITION_FAILED");
    line.heal().await;
    drained(&second).await;
    assert_eq!(fate(&there, &blind).await, ("rejected".to_owned(), json!("precondition_failed")));
    assert_eq!(title_of(&there, task).await, "second");
    assert_eq!(second.anonymous().get("/health").await.at("/data/buffer/dead"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_asserts_one_which_another_node_still_holds_waits_for_it() {
    let first = World::start().await;
    let (second, line) = second_node(&first, &[("RETRY_BASE_MS", "20")]).await;
    let user = user();
    let (here, there) = (first.client(user), second.client(user));
    let task = create(&here, "stored", 201).await;
    first.postgres_line.cut().await;
    line.cut().await;
    let pending = here.patch(&path(&task), &json!({ "title": "first" })).await.expect(202);
    let change = json!({ "title": "second" });
    let behind = patch_if(&there, &task, pending.header("etag"), &change).await.expect(202);
    let change = json!({ "title": "third" });
    let blind = there.patch(&path(&task), &change).await.expect(202);
    let read = format!("/api/v1/operations/{}", behind.text("/meta/sync/operation_id"));
    line.heal().await;
    wait_until(DRAIN, "it was tried more often than what is wrong would be", async || {
        let read = there.get(&read).await.expect(200);
        assert_eq!(read.text("/data/state"), "pending");
        read.at("/data/attempts").as_u64().unwrap() >= 4
    })
    .await;
    first.postgres_line.heal().await;
    drained(&first).await;
    drained(&second).await;
    assert_eq!(state(&there, &behind).await, "applied");
    assert_eq!(state(&there, &blind).await, "applied", "it came after");
    assert_eq!(title_of(&here, &task).await, "third");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_nobody_can_have_been_given_moves_no_version_of_the_task() {
    let world = World::builder().env("MISSING_RETRY_SECONDS", "0").start().await;
    let client = world.client(user());
    let task = create(&client, "stored", 201).await;
    // Nothing of it will be pending.
    let other = create(&client, "stored", 201).await;
    world.postgres_line.cut().await;
    // The first finds the line cut: whether it was done is not known, and it keeps its version.
    let in_hours = Uuid::new_v7(Timestamp::from_unix(NoContext, tests::token::now() + 36_000, 0));
    let change = json!({ "title": "made up" });
    let sent = patch_if(&client, &task, &format!("\"{in_hours}\""), &change).await.expect(202);
    assert!(sent.text("/meta/sync/operation_id") < in_hours.to_string().as_str());
    for made_up in ["ffffffff-ffff-7fff-bffe-ffffffffffff", "cccccccc-cccc-7ccc-8ccc-cccccccccccc"]
    {
        let etag = format!("\"{made_up}\"");
        for task in [&task, &other] {
            patch_if(&client, task, &etag, &json!({ "title": "made up" })).await.expect(412);
        }
    }
    let later = client.patch(&path(&task), &json!({ "title": "later" })).await.expect(202);
    world.postgres_line.heal().await;
    drained(&world).await;
    assert_eq!(state(&client, &later).await, "applied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_match_offline_is_checked_against_the_overlay() {
    let world = World::start().await;
    let client = world.client(user());
    let stored = create(&client, "stored", 201).await;
    world.postgres_line.cut().await;
    let created = client.post("/api/v1/tasks", &json!({ "title": "first" })).await.expect(202);
    let changed = client.patch(&path(&stored), &json!({ "title": "first" })).await.expect(202);
    for answer in [created, changed] {
        let (task, stale) = (answer.text("/data/id"), answer.header("etag"));
        let change = json!({ "title": "second" });
        let second = patch_if(&client, task, stale, &change).await.expect(202);
        assert_ne!(second.header("etag"), stale);
        patch_if(&client, task, stale, &json!({ "title": "third" })).await.expect(412);
        let delete = client.request(Method::DELETE, &path(task)).header("If-Match", stale);
        Answer::to(delete).await.unwrap().expect(412);
        let fresh = second.header("etag");
        let change = json!({ "status": "cancelled" });
        patch_if(&client, task, fresh, &change).await.expect(202);
    }
    world.postgres_line.heal().await;
    drained(&world).await;
    let dead = world.anonymous().get("/health").await;
    assert_eq!(dead.at("/data/buffer/dead"), 0);
    assert_eq!(
        world.postgres.psql("SELECT DISTINCT title, status FROM tasks").await,
        "second|cancelled"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_a_change_waits_for_the_create_that_another_node_still_holds() {
    let mut first = World::start().await;
    let patient =
        [("MAX_RETRY_ATTEMPTS", "1000000"), ("RETRY_BASE_MS", "20"), ("RETRY_MAX_MS", "100")];
    let (second, line) = second_node(&first, &patient).await;
    let user = user();
    let (here, there) = (first.client(user), second.client(user));
    first.postgres_line.cut().await;
    line.cut().await;
    first.worker.kill();
    let task = create(&here, "of the first node", 202).await;
    let patch = there.patch(&path(&task), &json!({ "status": "completed" })).await.expect(202);
    let pending = format!("/api/v1/operations/{}", patch.text("/meta/sync/operation_id"));

    first.postgres_line.heal().await;
    line.heal().await;
    wait_until(DRAIN, "the change was tried three times", async || {
        let read = there.get(&pending).await.expect(200);
        assert_eq!(read.text("/data/state"), "pending");
        read.at("/data/attempts").as_u64().unwrap() >= 3
    })
    .await;
    let other = create(&there, "not held up", 201).await;
    assert_eq!(title_of(&here, &other).await, "not held up");

    first.worker.restart().await;
    drained(&first).await;
    drained(&second).await;
    assert_eq!(state(&there, &patch).await, "applied");
    let read = here.get(&path(&task)).await.expect(200);
    let seen = (read.text("/data/title"), read.text("/data/status"));
    assert_eq!(seen, ("of the first node", "completed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_a_delete_on_either_node_is_final_on_both() {
    let (first, second, line) = two_nodes().await;
    let user = user();
    let (here, there) = (first.client(user), second.client(user));
    let ended_online = create(&here, "ended online", 201).await;
    let ended_offline = create(&here, "ended offline", 201).await;
    let ended_twice = create(&here, "ended twice", 201).await;
    line.cut().await;
    let delete = there.delete(&path(&ended_offline)).await.expect(202);
    here.delete(&path(&ended_online)).await.expect(204);
    // Newer than the delete, both of them, whichever arrives first.
    let late = there.patch(&path(&ended_online), &json!({ "title": "late" })).await.expect(202);
    here.patch(&path(&ended_offline), &json!({ "title": "early" })).await.expect(200);
    here.delete(&path(&ended_twice)).await.expect(204);
    let twice = there.delete(&path(&ended_twice)).await.expect(202);

    line.heal().await;
    drained(&second).await;
    assert_eq!(state(&there, &delete).await, "applied");
    assert_eq!(state(&there, &late).await, "superseded");
    assert_eq!(state(&there, &twice).await, "superseded");
    for client in [&here, &there] {
        for task in [&ended_online, &ended_offline, &ended_twice] {
            client.get(&path(task)).await.expect(404);
            client.patch(&path(task), &json!({ "title": "undone" })).await.expect(404);
        }
    }
    let tombstones = "SELECT count(*) FROM tasks WHERE deleted_at IS NOT NULL AND title = '' \
        AND description IS NULL";
    assert_eq!(first.postgres.psql(tombstones).await, "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_users_latest_online_write_never_loses_to_a_fast_clock() {
    let world = World::start().await;
    let client = world.client(user());
    let task = create(&client, "before", 201).await;
    let in_an_hour = tests::token::now() + 3600;
    let ahead = Uuid::new_v7(Timestamp::from_unix(NoContext, in_an_hour, 0));
    let fast = format!(
        "UPDATE tasks SET title_version = '{ahead}', description_version = '{ahead}', \
         status_version = '{ahead}', title = 'of the fast clock' WHERE id = '{task}'"
    );
    world.postgres.psql(&fast).await;
    for round in 0..3 {
        let title = format!("of the user {round}");
        let answer = client.patch(&path(&task), &json!({ "title": title })).await.expect(200);
        assert_eq!(answer.text("/data/title"), title);
        let stored = format!(
            "SELECT title, title_version > '{ahead}', status_version = '{ahead}' FROM tasks \
             WHERE id = '{task}'"
        );
        assert_eq!(world.postgres.psql(&stored).await, format!("{title}|t|t"));
    }
    let whole = json!({ "title": "whole", "description": null, "status": "completed" });
    client.put(&path(&task), &whole).await.expect(200);
    assert_eq!(title_of(&client, &task).await, "whole");
    // Its clock was not pulled along: what is created next is of now.
    let next = client.post("/api/v1/tasks", &json!({ "title": "next" })).await.expect(201);
    assert!(next.text("/meta/sync/operation_id") < ahead.to_string().as_str());
}
