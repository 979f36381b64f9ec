//! A buffer with a million operations in an outage: appending, memory, start, and the file.

use std::time::{Duration, Instant};

use anyhow::Context;

use super::fill::{Filled, fill};
use super::growth::OfDepth;
use super::plan::Plan;
use super::report::Report;
use super::rounds::Series;
use super::servers::Server;
use super::stage;
use crate::process::Process;
use crate::world::World;

pub(super) const ROWS: &[&str] =
    &["append-depth", "memory-api", "memory-worker", "open", "file-size"];

const CONNECTIONS: u32 = 32;
const MEGABYTE: f64 = 1e6;
const STOP: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(1);
/// What a record has beside its payload (bytes): a header and two checksums.
const RECORD_OVERHEAD: u64 = 73 + 2 * 4;

pub(super) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let mut deep = stage::without_postgres().await;
    if plan.grows() {
        report.growth.append = growth(plan, &mut deep).await?;
    }
    empty(&mut deep)?;
    deep.api.start().await?;
    deep.worker.start().await?;
    fill(plan, &deep, plan.sizes.deepest()).await?;
    if plan.wants("append-depth") {
        append(plan, &mut deep, report).await?;
    }
    report.note("memory-api", peak(&mut deep.api)?, None);
    report.note("memory-worker", peak(&mut deep.worker)?, None);
    let filled = Filled::of(&deep).await?;
    for process in [&mut deep.worker, &mut deep.api] {
        process.terminate(STOP).await?;
    }
    let size = std::fs::metadata(deep.buffer_path())?.len();
    let payload = filled.bytes - filled.pending * RECORD_OVERHEAD;
    report.note("file-size", size as f64 / MEGABYTE, Some(payload as f64 / MEGABYTE));
    report.rounds("open", open(plan, &mut deep).await?, None);
    Ok(())
}

/// Seconds from the start of the api to its first answer. It runs afterwards.
async fn open(plan: &Plan, world: &mut World) -> anyhow::Result<Vec<f64>> {
    let mut took = Vec::new();
    for _ in 0..plan.rounds() {
        if world.api.is_running() {
            world.api.terminate(STOP).await?;
        }
        let started = Instant::now();
        let up = world.api.start().await?;
        took.push((up - started).as_secs_f64());
    }
    Ok(took)
}

/// Appends to the deep buffer and, by turns, to one that is made anew for each round.
async fn append(plan: &Plan, deep: &mut World, report: &mut Report) -> anyhow::Result<()> {
    let mut fresh = stage::without_postgres().await;
    let (mut at_depth, mut from_empty) = (Series::default(), Series::default());
    let target = Server::Ours(deep).creates(plan, CONNECTIONS)?;
    target.load(plan, WARM_UP).await?;
    for _ in 0..plan.rounds() {
        empty(&mut fresh)?;
        fresh.api.start().await?;
        let other = Server::Ours(&fresh).creates(plan, CONNECTIONS)?;
        from_empty.runs.push(other.load(plan, plan.round()).await?);
        fresh.api.terminate(STOP).await?;
        at_depth.runs.push(target.load(plan, plan.round()).await?);
    }
    report.compare("append-depth", &at_depth, Some(&from_empty), Series::p50_ms);
    Ok(())
}

/// Removes the buffer file of a stopped api and what lies beside it.
fn empty(world: &mut World) -> anyhow::Result<()> {
    let path = world.buffer_path();
    let folder = path.parent().context("the file lies in a folder")?;
    for entry in std::fs::read_dir(folder)? {
        std::fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// Appends at each depth, one round each: a round makes the buffer deeper. The api does not run
/// afterwards.
async fn growth(plan: &Plan, world: &mut World) -> anyhow::Result<Vec<OfDepth>> {
    let mut points = Vec::new();
    for depth in plan.sizes.depths {
        empty(world)?;
        world.api.start().await?;
        let pending = fill(plan, world, depth).await?.pending;
        let target = Server::Ours(world).creates(plan, CONNECTIONS)?;
        let run = target.load(plan, plan.round()).await?;
        anyhow::ensure!(!run.errors.any(), "{:?}", run.errors);
        points.push(OfDepth::new(pending, &run));
        world.api.terminate(STOP).await?;
    }
    Ok(points)
}

/// The most memory that a process has had (megabytes).
fn peak(process: &mut Process) -> anyhow::Result<f64> {
    let pid = process.pid().with_context(|| format!("{} does not run", process.name()))?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kilobytes.context("no VmHWM")? * 1024.0 / MEGABYTE)
}
