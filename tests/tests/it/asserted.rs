//! Edits that assert a version with `If-Match`, many at once: of those that assert one version one is
//! accepted, online, in an outage, and in the moment when PostgreSQL stops to answer.

use futures::future::join_all;
use serde_json::json;
use tests::{Answer, Client, World};

use crate::story::{drained, user};
use crate::two_nodes::{patch_if, path, state};

const AT_ONCE: usize = 16;

/// Sends edits of a task at once that all assert one version, and returns the one that was accepted.
async fn one_of_many(client: &Client, task: &str, etag: &str, accepted: u16) -> Answer {
    let edits = (0..AT_ONCE).map(async |number| {
        let change = json!({ "title": format!("edit {number}") });
        patch_if(client, task, etag, &change).await
    });
    let answers = join_all(edits).await;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    let refused = statuses.iter().filter(|status| **status == 412).count();
    assert_eq!(refused, AT_ONCE - 1, "{statuses:?}");
    answers.into_iter().find(|answer| answer.status != 412).unwrap().expect(accepted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixteen_edits_that_assert_one_version_one_is_accepted_and_applied() {
    let mut world = World::start().await;
    let client = world.client(user());
    let created = client.post("/api/v1/tasks", &json!({ "title": "online" })).await.expect(201);
    let task = created.text("/data/id");
    let online = one_of_many(&client, task, created.header("etag"), 200).await;
    let mut accepted = Vec::new();
    // They are on their way, or come while these are given up.
    world.postgres.suspend();
    accepted.push(one_of_many(&client, task, online.header("etag"), 202).await);
    world.postgres.resume();
    drained(&world).await;
    let read = client.get(&path(task)).await.expect(200);
    world.postgres_line.cut().await;
    accepted.push(one_of_many(&client, task, read.header("etag"), 202).await);
    // And now that something is pending.
    for _ in 0..10 {
        let etag = accepted.last().unwrap().header("etag").to_owned();
        accepted.push(one_of_many(&client, task, &etag, 202).await);
    }
    world.postgres_line.heal().await;
    drained(&world).await;
    for answer in &accepted {
        assert_eq!(state(&client, answer).await, "applied");
    }
    let last = accepted.last().unwrap().text("/data/title");
    assert_eq!(client.get(&path(task)).await.expect(200).text("/data/title"), last);
    assert_eq!(world.anonymous().get("/health").await.at("/data/buffer/dead"), 0);
}
