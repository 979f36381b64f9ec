//! Every row of the report, and the bar it has to clear.

use serde::Serialize;

/// What a row promises.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Limit {
    /// Our figure is at least so many times the other.
    RatioAtLeast(f64),
    /// Our figure is at most so many times the other.
    RatioAtMost(f64),
    /// Our figure is at most this.
    AtMost(f64),
}

impl Limit {
    /// Whether it is kept; `None` if there is nothing to compare with.
    pub(super) fn is_kept(self, ours: f64, other: Option<f64>) -> Option<bool> {
        match self {
            Self::RatioAtLeast(limit) => other.map(|other| ours >= limit * other),
            Self::RatioAtMost(limit) => other.map(|other| ours <= limit * other),
            Self::AtMost(limit) => Some(ours <= limit),
        }
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::RatioAtLeast(limit) => format!(">= {limit}x"),
            Self::RatioAtMost(limit) => format!("<= {limit}x"),
            Self::AtMost(limit) => format!("<= {limit}"),
        }
    }
}

/// A row.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Bar {
    /// By which `--only` finds it.
    pub(super) name: &'static str,
    /// What is measured.
    pub(super) what: &'static str,
    /// What the figures count.
    pub(super) unit: &'static str,
    /// What our figure is compared with.
    pub(super) against: &'static str,
    /// What it promises.
    pub(super) limit: Limit,
}

const fn bar(
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    against: &'static str,
    limit: Limit,
) -> Bar {
    Bar { name, what, unit, against, limit }
}

use Limit::{AtMost, RatioAtLeast, RatioAtMost};

const PEER: &str = "peer";
const NOTHING: &str = "-";

/// All rows, in the order of the table.
pub(super) const BARS: [Bar; 22] = [
    bar("create-32", "create, 32 connections", "requests/s", PEER, RatioAtLeast(1.5)),
    bar("create-128", "create, 128 connections", "requests/s", PEER, RatioAtLeast(2.0)),
    bar("create-pgbench", "create, 128 connections", "requests/s", "pgbench", RatioAtLeast(1.0)),
    bar("create-latency", "create, 1 connection, median", "ms", PEER, RatioAtMost(1.3)),
    bar("outage-32", "create in an outage, 32", "requests/s", PEER, RatioAtLeast(10.0)),
    bar("outage-256", "create in an outage, 256", "requests/s", "peer -batch", RatioAtLeast(3.0)),
    bar("list-long", "list, 20 of the longest list", "requests/s", PEER, RatioAtLeast(50.0)),
    bar("list-growth", "the same, median", "ms", "shortest list", RatioAtMost(1.3)),
    bar("list-cursor", "a far page by cursor, median", "ms", "shortest list", RatioAtMost(1.3)),
    bar("read-id", "read by id", "requests/s", PEER, RatioAtLeast(1.0)),
    bar("read-cached", "read by id, cache warm", "requests/s", PEER, RatioAtLeast(1.5)),
    bar("replay", "replay until the buffer is empty", "rows/s", "COPY", RatioAtLeast(0.3)),
    bar("append-depth", "append to a deep buffer, median", "ms", "empty buffer", RatioAtMost(1.3)),
    bar("memory-api", "most memory of the api until then", "MB", NOTHING, AtMost(150.0)),
    bar("memory-worker", "most memory of the worker until then", "MB", NOTHING, AtMost(150.0)),
    bar("open", "start of the api then", "s", NOTHING, AtMost(2.0)),
    bar("file-size", "size of the file then", "MB", "its payload", RatioAtMost(3.0)),
    bar("file-reclaim", "size of the file after a drain", "MB", "its peak", RatioAtMost(0.25)),
    bar("first-commit", "first replayed commit", "ms", NOTHING, AtMost(250.0)),
    bar("kill-slowest", "slowest write, PostgreSQL killed", "s", NOTHING, AtMost(1.0)),
    bar("stop-slowest", "slowest write, PostgreSQL stopped", "s", NOTHING, AtMost(1.5)),
    bar("live", "GET /live, 32 connections", "requests/s", "peer /health", RatioAtLeast(0.9)),
];
