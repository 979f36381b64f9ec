//! Creates and reads while PostgreSQL is there.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::peer::{Mode, Peer};
use super::pgbench::Pgbench;
use super::plan::Plan;
use super::report::Report;
use super::requests::{BODY, Request};
use super::rounds::{Series, Side, by_turns};
use super::servers::{Pair, Server, users};
use super::{growth, stage};
use crate::wait::{wait_for, wait_until};
use crate::world::World;

pub(super) const ROWS: &[&str] = &[
    "create-32",
    "create-128",
    "create-pgbench",
    "create-latency",
    "read-id",
    "read-cached",
    "live",
];

const CONNECTIONS: u32 = 32;
const MANY: u32 = 128;
/// Tasks that are read again and again once they are cached.
const CACHED: usize = 200;

pub(super) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let mut world = stage::with_postgres(plan).await?;
    let peer = Peer::start(plan, world.folder(), world.postgres.port(), Mode::Online).await?;
    let pair = Pair::new(plan, &world, peer.as_ref(), Mode::Online).await?;
    for (row, connections, figure) in [
        ("create-32", CONNECTIONS, Series::rate as fn(&Series) -> f64),
        ("create-latency", 1, Series::p50_ms),
    ] {
        if plan.wants(row) {
            let (ours, other) = pair.compare(|server| server.creates(plan, connections)).await?;
            report.compare(row, &ours, other.as_ref(), figure);
        }
    }
    if plan.wants_any(&["create-128", "create-pgbench"]) {
        creates_beside_pgbench(&pair, &world, report).await?;
    }
    if plan.wants("live") {
        let (ours, other) = pair.compare(liveness).await?;
        report.compare("live", &ours, other.as_ref(), Series::rate);
    }
    if plan.grows() {
        report.growth.create = growth::of_connections(&pair).await?;
    }
    for (row, lifetime, tasks) in
        [("read-id", "0", plan.sizes.tasks_read), ("read-cached", "300", CACHED)]
    {
        if plan.wants(row) {
            world.api.launch_mut().set_env("CACHE_TTL_SECONDS", lifetime);
            world.api.restart().await;
            wait_until(stage::SETTLE, "it is healthy", async || world.is_healthy().await).await;
            let pair = Pair::new(plan, &world, peer.as_ref(), Mode::Online).await?;
            reads(&pair, report, row, tasks).await?;
        }
    }
    Ok(())
}

async fn creates_beside_pgbench(
    pair: &Pair<'_>,
    world: &World,
    report: &mut Report,
) -> anyhow::Result<()> {
    let plan = pair.plan;
    let mut sides = pair.targets(|server| server.creates(plan, MANY))?;
    let database = stage::PGBENCH_DATABASE;
    let pgbench = Pgbench::new(world.folder(), world.postgres.port(), database, MANY)?;
    sides.push(Side::Pgbench(pgbench));
    let series = by_turns(plan, &sides).await?;
    let [ours, peer @ .., pgbench] = series.as_slice() else { return Ok(()) };
    report.compare("create-128", ours, peer.first(), Series::rate);
    report.compare("create-pgbench", ours, Some(pgbench), Series::rate);
    Ok(())
}

fn liveness(server: Server<'_>) -> anyhow::Result<super::wrk::Target> {
    let path = match server {
        Server::Ours(_) => "/live",
        Server::Peer(..) => "/health",
    };
    server.load("live", CONNECTIONS, [Request::get(path, "")])
}

/// Reads of so many tasks by their ids, again and again.
async fn reads(
    pair: &Pair<'_>,
    report: &mut Report,
    row: &str,
    number: usize,
) -> anyhow::Result<()> {
    let mut tasks = HashMap::new();
    for server in std::iter::once(pair.ours).chain(pair.peer) {
        tasks.insert(server.url(), make_tasks(pair.plan, server, number).await?);
    }
    let of = |server: Server<'_>| tasks.get(&server.url()).map(Vec::as_slice).unwrap_or_default();
    if row == "read-cached" {
        for task in of(pair.ours) {
            cached(pair.ours, task).await?;
        }
    }
    let read = |server: Server<'_>| {
        let requests = of(server).iter().map(|task| Request::get(&task.path, &task.token));
        server.load(row, CONNECTIONS, requests)
    };
    let before = lookups(pair.ours).await?;
    let (ours, other) = pair.compare(read).await?;
    if row == "read-cached" {
        let after = lookups(pair.ours).await?;
        let (hits, all) = (after.0 - before.0, after.1 - before.1);
        ensure!(hits > 0.99 * all, "of {all} tasks looked up only {hits} were in the cache");
    }
    report.compare(row, &ours, other.as_ref(), Series::rate);
    Ok(())
}

/// Entities found in the cache so far, and looked up in it.
async fn lookups(ours: Server<'_>) -> anyhow::Result<(f64, f64)> {
    let metrics = reqwest::get(format!("{}/metrics", ours.url())).await?.text().await?;
    let number = |line: &str| line.rsplit_once(' ')?.1.parse::<f64>().ok();
    let of = |name: &str| {
        metrics.lines().filter(|line| line.starts_with(name)).filter_map(number).sum::<f64>()
    };
    Ok((of("cache_requests_total{result=\"hit\"}"), of("cache_requests_total{")))
}

/// A task, and a token that may read it.
struct Readable {
    path: String,
    token: String,
}

/// Tasks of many users, made over the API.
async fn make_tasks(
    plan: &Plan,
    server: Server<'_>,
    number: usize,
) -> anyhow::Result<Vec<Readable>> {
    let body: Value = serde_json::from_str(BODY)?;
    let users = users(plan.sizes.users);
    let http = reqwest::Client::new();
    let tokens: Vec<String> = users.iter().map(|user| server.token(plan, *user)).collect();
    let make = |number: usize| {
        let token = tokens[number % tokens.len()].clone();
        let request = http.post(format!("{}/api/v1/tasks", server.url())).bearer_auth(&token);
        let request = request.json(&body);
        async move {
            let answer: Value = request.send().await?.error_for_status()?.json().await?;
            let id = answer.pointer("/data/id").and_then(Value::as_str);
            let id = id.with_context(|| format!("no id in {answer}"))?;
            anyhow::Ok(Readable { path: format!("/api/v1/tasks/{id}"), token })
        }
    };
    stream::iter((0..number).map(make)).buffer_unordered(32).try_collect().await
}

/// Reads a task until it comes from the cache.
async fn cached(server: Server<'_>, task: &Readable) -> anyhow::Result<()> {
    let url = format!("{}{}", server.url(), task.path);
    let http = reqwest::Client::new();
    let read = async || {
        let answer = http.get(&url).bearer_auth(&task.token).send().await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        anyhow::Ok(answer.pointer("/meta/source").is_some_and(|source| source == "cache"))
    };
    // A read that fails ends the waiting as well.
    let found = wait_for(stage::SETTLE, "the task is cached", async || match read().await {
        Ok(false) => None,
        ended => Some(ended),
    });
    found.await.map(drop)
}
