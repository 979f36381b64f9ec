//! The slowest write while PostgreSQL goes away under load.

use std::time::Duration;

use super::plan::Plan;
use super::report::Report;
use super::rounds::Series;
use super::servers::Server;
use super::stage;
use crate::wait::wait_until;
use crate::world::World;

pub(super) const ROWS: &[&str] = &["kill-slowest", "stop-slowest"];

const CONNECTIONS: u32 = 32;
/// Load before the fault, and in all.
const BEFORE: Duration = Duration::from_secs(2);
const LOAD: Duration = Duration::from_secs(6);

/// How PostgreSQL goes away.
#[derive(Clone, Copy)]
enum Fault {
    /// SIGKILL: connections break.
    Killed,
    /// SIGSTOP: connections stand, and nothing is answered.
    Stopped,
}

pub(super) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let mut world = stage::with_postgres(plan).await?;
    for (row, fault) in [("kill-slowest", Fault::Killed), ("stop-slowest", Fault::Stopped)] {
        if !plan.wants(row) {
            continue;
        }
        let (mut series, mut unnoticed) = (Series::default(), 0);
        for _ in 0..plan.rounds() {
            series.runs.push(run(plan, &mut world, fault).await?);
            unnoticed += u32::from(stage::pending(&world).await == 0);
            recover(&mut world, fault).await;
        }
        // The slowest of all rounds, not their median.
        let slowest =
            |series: &Series| series.runs.iter().map(|run| run.max_ms / 1e3).fold(0.0, f64::max);
        report.compare(row, &series, None, slowest);
        if unnoticed > 0 {
            report.fail(row, "nothing was buffered in the outage");
        }
    }
    Ok(())
}

async fn run(plan: &Plan, world: &mut World, fault: Fault) -> anyhow::Result<super::wrk::Run> {
    let target = Server::Ours(world).creates(plan, CONNECTIONS)?;
    let (run, ()) = tokio::join!(target.load(plan, LOAD), async {
        tokio::time::sleep(BEFORE).await;
        match fault {
            Fault::Killed => world.postgres.kill().await,
            Fault::Stopped => world.postgres.suspend(),
        }
    });
    run
}

async fn recover(world: &mut World, fault: Fault) {
    match fault {
        Fault::Killed => drop(world.postgres.start_again().await),
        Fault::Stopped => world.postgres.resume(),
    }
    wait_until(stage::LONG, "it is replayed", async || stage::pending(world).await == 0).await;
    wait_until(stage::SETTLE, "it is healthy", async || world.is_healthy().await).await;
}
