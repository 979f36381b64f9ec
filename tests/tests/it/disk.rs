//! A disk that fails beneath the buffer: nothing is acknowledged that it did not take, what was
//! acknowledged is there, once, and what was refused has left nothing.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::json;
use tests::{Client, Disk, DiskCall, World, wait_until};

use crate::story::{DRAIN, create, drained, ledger_in_lane_order, user};

/// Requests that are sent at once.
const VOLLEY: usize = 8;
const CALLS: [DiskCall; 2] = [DiskCall::Sync, DiskCall::Write];

/// A world whose PostgreSQL is away, its api's disk in the test's hands.
async fn world() -> (World, Disk) {
    let mut world = World::builder().env("BUFFER_TIMEOUT_MS", "4000").start().await;
    world.worker.kill();
    let folder = world.folder().to_path_buf();
    let disk = Disk::of(&mut world.api, &folder);
    world.api.restart().await;
    world.postgres_line.cut().await;
    (world, disk)
}

/// Titles of tasks, by what their clients were told.
#[derive(Debug, Default)]
struct Told {
    accepted: BTreeSet<String>,
    refused: BTreeSet<String>,
    /// It may have been kept.
    unknown: BTreeSet<String>,
}

impl Told {
    /// Creates of several users at once; those with an even number are sent with a key.
    async fn volley(&mut self, clients: &[Client], name: &str) {
        let asked = clients.iter().enumerate().map(async |(number, client)| {
            let title = format!("{name}-{number}");
            let mut request = client.request(reqwest::Method::POST, "/api/v1/tasks");
            if number % 2 == 0 {
                request = request.header("idempotency-key", &title);
            }
            let answer = tests::Answer::to(request.json(&json!({ "title": title }))).await.unwrap();
            (title, answer)
        });
        for (title, answer) in join_all(asked).await {
            let told = match (answer.status, answer.at("/error/code").as_str()) {
                (202, _) => &mut self.accepted,
                (503, Some("BUFFER_UNAVAILABLE")) => &mut self.refused,
                (503, Some("OUTCOME_UNKNOWN")) => &mut self.unknown,
                _ => panic!("{answer:#?}"),
            };
            told.insert(title);
        }
    }

    async fn are_what_is_stored(&self, world: &World) {
        let stored = world.postgres.psql("SELECT title FROM tasks").await;
        let number = stored.lines().count();
        let stored: BTreeSet<String> = stored.lines().map(str::to_owned).collect();
        assert_eq!(stored.len(), number, "some are there twice");
        let lost: Vec<_> = self.accepted.difference(&stored).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let kept: Vec<_> = self.refused.intersection(&stored).collect();
        assert!(kept.is_empty(), "refused, and kept: {kept:?}");
        let known =
            |title: &&String| self.accepted.contains(*title) || self.unknown.contains(*title);
        assert_eq!(stored.iter().filter(known).count(), number, "nobody asked for: {stored:?}");
        let (accepted, refused, unknown) =
            (self.accepted.len(), self.refused.len(), self.unknown.len());
        let there = number - accepted;
        eprintln!(
            "{accepted} accepted, {refused} refused, {unknown} unknown, {there} of them kept"
        );
    }
}

fn clients(world: &World) -> Vec<Client> {
    (0..VOLLEY).map(|_| world.client(user())).collect()
}

#[tokio::test]
async fn i1_what_the_disk_does_not_take_is_refused_and_leaves_nothing() {
    let (mut world, disk) = world().await;
    let (clients, mut told) = (clients(&world), Told::default());
    for call in CALLS {
        told.volley(&clients, &format!("{call:?}-before")).await;
        let accepted = told.accepted.len();
        disk.fail(&mut world.api, call, 1.0).await;
        told.volley(&clients, &format!("{call:?}-failing")).await;
        told.volley(&clients, &format!("{call:?}-failing-still")).await;
        assert_eq!(told.accepted.len(), accepted, "acknowledged, and not on the disk");
        disk.mend(&mut world.api, call).await;
        told.volley(&clients, &format!("{call:?}-after")).await;
        assert_eq!(told.accepted.len(), accepted + VOLLEY, "the file was opened anew");
    }
    // What it had in memory is gone.
    world.api.restart().await;
    create(&clients[0], "last", 202).await;
    told.accepted.insert("last".to_owned());
    world.postgres_line.heal().await;
    world.worker.start().await.unwrap();
    drained(&world).await;
    told.are_what_is_stored(&world).await;
}

#[tokio::test]
async fn i1_i2_a_disk_that_fails_now_and_then_loses_and_doubles_nothing() {
    let (mut world, disk) = world().await;
    let (clients, mut told) = (clients(&world), Told::default());
    // Syncs alone, so often that a commit is there whose acknowledgement was not to be had; then both.
    for (round, (sync, write)) in
        [(0.5, 0.0), (0.05, 0.05), (0.5, 0.0), (0.02, 0.02)].into_iter().enumerate()
    {
        disk.fail(&mut world.api, DiskCall::Sync, sync).await;
        disk.fail(&mut world.api, DiskCall::Write, write).await;
        for volley in 0..40 {
            told.volley(&clients, &format!("{round}-{volley}")).await;
        }
        world.api.restart().await;
    }
    assert!(!told.accepted.is_empty() && !told.unknown.is_empty());
    assert!(
        world.api.log().contains("a commit to the buffer file failed"),
        "the disk never failed"
    );

    let folder = world.folder().to_path_buf();
    let disk = Disk::of(&mut world.worker, &folder);
    world.worker.start().await.unwrap();
    for call in CALLS {
        disk.fail(&mut world.worker, call, 0.3).await;
    }
    world.postgres_line.heal().await;
    wait_until(DRAIN, "the worker has met a failing disk", async || {
        world.worker.log().contains("a commit to the buffer file failed")
    })
    .await;
    for call in CALLS {
        disk.mend(&mut world.worker, call).await;
    }
    drained(&world).await;
    told.are_what_is_stored(&world).await;
    ledger_in_lane_order(&world).await;
    let again = "SELECT count(*) FROM operations WHERE outcome <> 'applied'";
    assert_eq!(world.postgres.psql(again).await, "0");
}
