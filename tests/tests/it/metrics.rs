//! What `/metrics` of both processes says of itself: a text and a type for each metric.

use std::collections::HashSet;

use serde_json::json;
use tests::{World, wait_until};

use crate::story::{DRAIN, create, drained, metric, user};

/// Names of the metrics of a process, and those of which it has a text.
async fn families(world: &World, address: &str) -> (HashSet<String>, HashSet<String>) {
    let answer = world.http().get(format!("{address}/metrics")).send().await.unwrap();
    let text = answer.text().await.unwrap();
    let named = |mark: &str| {
        let of_line = |line: &str| Some(line.strip_prefix(mark)?.split_once(' ')?.0.to_owned());
        text.lines().filter_map(of_line).collect::<HashSet<_>>()
    };
    (named("# TYPE "), named("# HELP "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_has_a_text() {
    let world = World::start().await;
    let client = world.client(user());
    let task = create(&client, "online", 201).await;
    let path = format!("/api/v1/tasks/{task}");
    client.get(&path).await.expect(200);
    world.anonymous().get(&path).await.expect(401);
    world.postgres_line.cut().await;
    client.patch(&path, &json!({ "title": "offline" })).await.expect(202);
    world.postgres_line.heal().await;
    drained(&world).await;
    wait_until(DRAIN, "the worker has counted", async || {
        metric(&world, "replay_batch_duration_seconds_count").await > 0.0
    })
    .await;

    for (address, least) in [(world.api_url(), 12), (world.worker_url(), 10)] {
        let (all, described) = families(&world, &address).await;
        assert!(all.len() >= least, "{all:?}");
        let bare: Vec<_> = all.difference(&described).collect();
        assert!(bare.is_empty(), "without a text: {bare:?}");
    }
}
