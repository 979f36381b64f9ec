//! How figures grow: with connections, with the length of a list, with the depth of the buffer.

use serde::Serialize;

use super::report::{aligned, number};
use super::rounds::{Series, by_turns};
use super::servers::Pair;
use super::wrk::Run;

/// Every series of points; those that were not measured are empty.
#[derive(Debug, Default, Serialize)]
pub(super) struct Growth {
    pub(super) create: Vec<OfConnections>,
    pub(super) list: Vec<OfList>,
    pub(super) append: Vec<OfDepth>,
}

/// Creates with so many connections.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OfConnections {
    pub(super) connections: u32,
    pub(super) ours: Series,
    pub(super) peer: Option<Series>,
}

/// The first page of a list of so many tasks.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OfList {
    tasks: u64,
    requests_per_second: f64,
    p50_ms: f64,
}

impl OfList {
    pub(super) fn new(tasks: u64, series: &Series) -> Self {
        Self { tasks, requests_per_second: series.rate(), p50_ms: series.p50_ms() }
    }
}

/// Creates in an outage with so many operations in the buffer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OfDepth {
    operations: u64,
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl OfDepth {
    pub(super) fn new(operations: u64, run: &Run) -> Self {
        let (p50_ms, p99_ms) = (run.p50_ms, run.p99_ms);
        Self { operations, requests_per_second: run.rate(), p50_ms, p99_ms }
    }
}

impl Growth {
    pub(super) fn print(&self) {
        let create = self.create.iter().map(|point| {
            let peer =
                |of: fn(&Series) -> f64| point.peer.as_ref().map_or_else(dash, |p| number(of(p)));
            [
                point.connections.to_string(),
                number(point.ours.rate()),
                number(point.ours.p99_ms()),
                peer(Series::rate),
                peer(Series::p99_ms),
            ]
        });
        let heading = ["connections", "creates/s", "p99 ms", "peer's creates/s", "peer's p99 ms"];
        print(heading, create);
        let list = self.list.iter();
        let list =
            list.map(|p| [p.tasks.to_string(), number(p.requests_per_second), number(p.p50_ms)]);
        print(["tasks of the user", "lists/s", "p50 ms"], list);
        let append = self.append.iter().map(|p| {
            let figures = [p.requests_per_second, p.p50_ms, p.p99_ms].map(number);
            let [rate, p50, p99] = figures;
            [p.operations.to_string(), rate, p50, p99]
        });
        print(["buffered operations", "appends/s", "p50 ms", "p99 ms"], append);
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn print<const N: usize>(heading: [&str; N], points: impl Iterator<Item = [String; N]>) {
    let mut lines = vec![heading.map(str::to_owned)];
    lines.extend(points);
    if lines.len() > 1 {
        println!();
        for line in aligned(&lines) {
            println!("{line}");
        }
    }
}

/// Creates with more and more connections, ours and the other server's by turns.
pub(super) async fn of_connections(pair: &Pair<'_>) -> anyhow::Result<Vec<OfConnections>> {
    let plan = pair.plan;
    let mut points = Vec::new();
    for connections in plan.sizes.connections.iter().copied() {
        let sides = pair.targets(|server| server.creates(plan, connections))?;
        let mut series = by_turns(plan, &sides).await?.into_iter();
        let ours = series.next().unwrap_or_default();
        if let Some(errors) = ours.errors() {
            anyhow::bail!("{errors:?}");
        }
        points.push(OfConnections { connections, ours, peer: series.next() });
    }
    Ok(points)
}
