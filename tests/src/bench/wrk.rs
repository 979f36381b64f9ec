//! Load from `wrk`, with one thread: what it sent, and how the answers came.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::launch::Launch;

const SCRIPT: &str = include_str!("load.lua");
/// A request without an answer for longer is an error.
const TIMEOUT: &str = "20s";

/// What came of a load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) requests: u64,
    pub(super) seconds: f64,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    pub(super) errors: Errors,
}

impl Run {
    pub(super) fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.requests as f64 / self.seconds } else { 0.0 }
    }
}

/// Requests that were not answered as they should have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Errors {
    pub(super) connect: u64,
    pub(super) read: u64,
    pub(super) write: u64,
    pub(super) timeout: u64,
    /// Answers of 400 and above.
    pub(super) status: u64,
}

impl Errors {
    pub(super) fn any(self) -> bool {
        self != Self::default()
    }
}

/// Where a load goes.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The server, as `http://host:port`.
    pub(super) url: String,
    /// The prepared requests, see [`super::requests`].
    pub(super) requests: PathBuf,
    /// Connections, each with one request on its way at any time.
    pub(super) connections: u32,
}

impl Target {
    /// Puts the load on for a time (whole seconds).
    pub(super) async fn load(&self, plan: &Plan, time: Duration) -> anyhow::Result<Run> {
        let folder = self.requests.parent().context("the requests lie in a folder")?;
        let script = script_in(folder)?;
        let (connections, seconds) =
            (self.connections.to_string(), format!("{}s", time.as_secs().max(1)));
        let launch = Launch::new(&plan.wrk, folder.join("wrk.log"))
            .args(["-t", "1", "-c", &connections, "-d", &seconds, "--timeout", TIMEOUT])
            .args([
                Path::new("-s"),
                &script,
                Path::new(&self.url),
                Path::new("--"),
                &self.requests,
            ]);
        let said = launch.output().await?;
        let line = said.lines().rev().find(|line| line.starts_with('{'));
        let line = line.with_context(|| format!("wrk said nothing of use: {said}"))?;
        serde_json::from_str(line).with_context(|| format!("what wrk said: {line}"))
    }
}

fn script_in(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join("load.lua");
    if !path.exists() {
        std::fs::write(&path, SCRIPT)?;
    }
    Ok(path)
}
