//! The status that the worker publishes in the buffer file. The api reads it there, without a network.

use serde::{Deserialize, Serialize};

/// The name under which [`WorkerStatus`] is published.
pub const WORKER: &str = "worker";

/// A worker that has not been heard of for this long (milliseconds) counts as absent.
pub const HEARTBEAT_LIMIT_MS: i64 = 15_000;

/// What the worker knows. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// When this was published.
    pub heartbeat_at: i64,
    /// The worker's node name.
    pub node: String,
    /// PostgreSQL, its schema included.
    pub postgres: DependencyStatus,
    /// Redis.
    pub redis: DependencyStatus,
    /// Replay.
    pub replay: ReplayStatus,
    /// Whether this worker has found that the buffer file is an older copy of itself.
    #[serde(default)]
    pub has_old_copy: bool,
    /// Whether this worker has found the buffer file damaged, and could not have it repaired.
    #[serde(default)]
    pub is_buffer_stuck: bool,
}

impl WorkerStatus {
    /// True if it was published lately, by this host's wall clock (which may have been set back).
    #[must_use]
    pub fn is_recent(&self) -> bool {
        let now = chrono::Utc::now().timestamp_millis();
        now.abs_diff(self.heartbeat_at) <= HEARTBEAT_LIMIT_MS.unsigned_abs()
    }
}

/// One service the worker watches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DependencyStatus {
    /// Whether it does what it is needed for.
    pub up: bool,
    /// Since when that is so.
    pub since: i64,
    /// When that was last checked.
    pub checked_at: i64,
    /// How long the check took (milliseconds).
    pub latency_ms: u64,
    /// What was wrong, if it is not up.
    pub error: Option<String>,
}

/// How replay is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayStatus {
    /// When a batch was last settled.
    pub last_at: Option<i64>,
    /// Operations settled since the worker started.
    pub settled: u64,
    /// Operations settled per second while replay was last busy.
    pub drain_rate: u64,
}
