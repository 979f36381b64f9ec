//! What PostgreSQL missed is brought to it: how soon that begins, how fast it goes, and what it
//! leaves of the file.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use super::fill::fill;
use super::plan::Plan;
use super::report::Report;
use super::servers::Server;
use super::{sql, stage};
use crate::wait::wait_until;
use crate::world::World;

pub(super) const ROWS: &[&str] = &["first-commit", "replay", "file-reclaim"];

const MEGABYTE: f64 = 1e6;
/// After a drain the file may be given back a little later.
const RECLAIMED_WITHIN: Duration = Duration::from_secs(15);

pub(super) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let mut world = stage::with_postgres(plan).await?;
    if plan.wants("first-commit") {
        let mut delays = Vec::new();
        for _ in 0..plan.rounds() {
            delays.push(first_commit(plan, &mut world).await? * 1e3);
        }
        report.rounds("first-commit", delays, None);
    }
    if plan.wants("replay") {
        let (mut replayed, mut copied) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds() {
            let drain = drain(plan, &mut world, plan.sizes.replayed).await?;
            replayed.push(plan.sizes.replayed as f64 / drain.took.as_secs_f64());
            copied.push(copy_rate(plan, &world, plan.sizes.replayed).await?);
        }
        report.rounds("replay", replayed, Some(copied));
    }
    if plan.wants("file-reclaim") {
        let drain = drain(plan, &mut world, plan.sizes.reclaimed).await?;
        let left = size_after(&world, drain.peak).await?;
        report.note("file-reclaim", left as f64 / MEGABYTE, Some(drain.peak as f64 / MEGABYTE));
    }
    Ok(())
}

/// Seconds from PostgreSQL's accepting connections to the first operation in its ledger.
async fn first_commit(plan: &Plan, world: &mut World) -> anyhow::Result<f64> {
    stage::break_down(world).await;
    Server::Ours(world).creates(plan, 32)?.load(plan, Duration::from_secs(1)).await?;
    let restarting = epoch()?;
    let since_up = world.postgres.start_again().await.elapsed().as_secs_f64();
    let up = epoch()? - since_up;
    wait_until(stage::LONG, "it is replayed", async || stage::pending(world).await == 0).await;
    wait_until(stage::SETTLE, "it is healthy", async || world.is_healthy().await).await;
    let first = format!(
        "SELECT extract(epoch FROM min(applied_at)) FROM operations \
         WHERE applied_at > to_timestamp({restarting})"
    );
    let first: f64 = world.postgres.try_psql(&first).await?.parse().context("nothing replayed")?;
    Ok((first - up).max(0.0))
}

fn epoch() -> anyhow::Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// A buffer that was drained.
struct Drain {
    /// From PostgreSQL's accepting connections until the buffer was empty.
    took: Duration,
    /// Size of the file before (bytes).
    peak: u64,
}

/// Fills the buffer in an outage, then lets PostgreSQL come back.
async fn drain(plan: &Plan, world: &mut World, count: u64) -> anyhow::Result<Drain> {
    stage::break_down(world).await;
    fill(plan, world, count).await?;
    let peak = file_size(world)?;
    let up = world.postgres.start_again().await;
    wait_until(stage::LONG, "it is replayed", async || stage::pending(world).await == 0).await;
    let took = up.elapsed();
    wait_until(stage::SETTLE, "it is healthy", async || world.is_healthy().await).await;
    Ok(Drain { took, peak })
}

/// Rows per second of `COPY`: as many of the rows that were replayed, into a table of their kind.
async fn copy_rate(plan: &Plan, world: &World, count: u64) -> anyhow::Result<f64> {
    let port = world.postgres.port();
    let psql = async |command: String| sql::run(plan, port, "holdfast", &command).await;
    let file = world.folder().join("rows.copy");
    let file = file.display();
    psql("DROP TABLE IF EXISTS copied".to_owned()).await?;
    psql("CREATE TABLE copied (LIKE tasks INCLUDING ALL)".to_owned()).await?;
    psql(format!("\\copy (SELECT * FROM tasks LIMIT {count}) TO '{file}'")).await?;
    let started = Instant::now();
    psql(format!("\\copy copied FROM '{file}'")).await?;
    let rate = count as f64 / started.elapsed().as_secs_f64();
    let copied: u64 = psql("SELECT count(*) FROM copied".to_owned()).await?.parse()?;
    anyhow::ensure!(copied == count, "{copied} rows were copied, not {count}");
    Ok(rate)
}

/// The size of the file once it has shrunk to a tenth, or after a while.
async fn size_after(world: &World, peak: u64) -> anyhow::Result<u64> {
    let started = Instant::now();
    loop {
        let size = file_size(world)?;
        if size <= peak / 10 || started.elapsed() > RECLAIMED_WITHIN {
            return Ok(size);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn file_size(world: &World) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(world.buffer_path())?.len())
}
