//! Creates in an outage: every answer is 202, and its operation synced to the disk.

use super::peer::{Mode, Peer};
use super::plan::Plan;
use super::report::Report;
use super::rounds::Series;
use super::servers::Pair;
use super::stage;

pub(super) const ROWS: &[&str] = &["outage-32", "outage-256"];

pub(super) async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let mut world = stage::with_postgres(plan).await?;
    stage::break_down(&mut world).await;
    for (row, connections, batch) in [("outage-32", 32, false), ("outage-256", 256, true)] {
        if !plan.wants(row) {
            continue;
        }
        let mode = Mode::Outage { batch };
        let peer = Peer::start(plan, world.folder(), world.postgres.port(), mode).await?;
        let pair = Pair::new(plan, &world, peer.as_ref(), mode).await?;
        let (ours, other) = pair.compare(|server| server.creates(plan, connections)).await?;
        report.compare(row, &ours, other.as_ref(), Series::rate);
    }
    Ok(())
}
