//! Rounds: what is compared runs by turns, so that whatever else the machine does hits all alike.

use std::time::Duration;

use serde::Serialize;

use super::pgbench::Pgbench;
use super::plan::Plan;
use super::wrk::{Errors, Run, Target};

const WARM_UP: Duration = Duration::from_secs(1);

/// Something that can be put under load.
#[derive(Clone, Debug)]
pub(super) enum Side {
    /// A server.
    Server(Target),
    /// PostgreSQL without any server before it.
    Pgbench(Pgbench),
}

impl Side {
    async fn load(&self, plan: &Plan, time: Duration) -> anyhow::Result<Run> {
        match self {
            Self::Server(target) => target.load(plan, time).await,
            Self::Pgbench(pgbench) => pgbench.load(plan, time).await,
        }
    }
}

/// The rounds of one side.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Series {
    pub(super) runs: Vec<Run>,
}

impl Series {
    /// The median of what each run comes to.
    pub(super) fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().map(of).collect())
    }

    /// Requests per second.
    pub(super) fn rate(&self) -> f64 {
        self.median(Run::rate)
    }

    /// The median latency.
    pub(super) fn p50_ms(&self) -> f64 {
        self.median(|run| run.p50_ms)
    }

    /// The 99th percentile of latency.
    pub(super) fn p99_ms(&self) -> f64 {
        self.median(|run| run.p99_ms)
    }

    /// The first run with errors tells what they were.
    pub(super) fn errors(&self) -> Option<Errors> {
        self.runs.iter().map(|run| run.errors).find(|errors| errors.any())
    }
}

/// The middle of some figures; of an even number of them, the mean of the two in the middle.
pub(super) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => 0.0,
        count if count % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    }
}

/// Warms every side up, then runs all of them by turns, in every other round in reverse order; the
/// series are in the order of the sides.
pub(super) async fn by_turns(plan: &Plan, sides: &[Side]) -> anyhow::Result<Vec<Series>> {
    for side in sides {
        side.load(plan, WARM_UP).await?;
    }
    let mut series = vec![Series::default(); sides.len()];
    for round in 0..plan.rounds() {
        let mut order: Vec<usize> = (0..sides.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            series[index].runs.push(sides[index].load(plan, plan.round()).await?);
        }
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
