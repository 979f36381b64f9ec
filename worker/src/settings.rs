//! The settings that only the worker has.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::Deserialize;

/// Whether the worker brings the schema up to date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Migrate {
    /// At start, or when PostgreSQL first becomes reachable.
    #[default]
    Auto,
    /// Never: that is somebody else's business.
    Off,
}

/// How the worker works.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct WorkerSettings {
    /// Address of the worker's own HTTP interface.
    pub worker_addr: IpAddr,
    /// Port of the worker's own HTTP interface.
    pub worker_port: u16,
    /// Whether the worker brings the schema up to date.
    pub migrate: Migrate,
    /// Pause between two checks of what is up (seconds).
    pub monitor_interval_seconds: u64,
    /// Operations in one batch at the most.
    pub replay_batch_size: usize,
    /// Batches on their way at once.
    pub replay_concurrency: usize,
    /// How long one batch may take (milliseconds).
    pub replay_timeout_ms: u64,
    /// Time without any progress of replay after which it is restarted (seconds).
    pub replay_stall_seconds: u64,
    /// Attempts by its own fault after which an operation becomes a dead letter.
    pub max_retry_attempts: u32,
    /// The span of the first wait before another attempt (milliseconds).
    pub retry_base_ms: u64,
    /// The greatest span of such a wait (milliseconds).
    pub retry_max_ms: u64,
    /// How long a change of what is not there waits at least for another host to bring its create
    /// (seconds).
    pub missing_retry_seconds: u64,
    /// Waiting that raises a lane's priority by one (seconds).
    pub priority_aging_seconds: u64,
    /// Age at which a pending operation becomes a dead letter (hours).
    pub buffer_retention_hours: u64,
    /// How long PostgreSQL must have been looked for in vain before anything pending expires (seconds).
    pub expiry_grace_seconds: u64,
    /// How long dead letters are kept (hours).
    pub dead_retention_hours: u64,
    /// How long the ledger's rows are kept (days).
    pub ledger_retention_days: u32,
    /// How long the rows of deleted tasks are kept (days).
    pub tombstone_retention_days: u32,
    /// Pause between two looks for what has grown too old (seconds).
    pub retention_interval_seconds: u64,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            worker_addr: IpAddr::V4(Ipv4Addr::LOCALHOST),
            worker_port: 9100,
            migrate: Migrate::Auto,
            monitor_interval_seconds: 10,
            replay_batch_size: 1000,
            replay_concurrency: 2,
            replay_timeout_ms: 10_000,
            replay_stall_seconds: 60,
            max_retry_attempts: 3,
            retry_base_ms: 1000,
            retry_max_ms: 300_000,
            missing_retry_seconds: 300,
            priority_aging_seconds: 60,
            buffer_retention_hours: 24,
            expiry_grace_seconds: 3600,
            dead_retention_hours: 168,
            ledger_retention_days: 90,
            tombstone_retention_days: 30,
            retention_interval_seconds: 60,
        }
    }
}

impl WorkerSettings {
    /// Time without any progress of replay after which it is restarted.
    #[must_use]
    pub fn replay_stall(&self) -> Duration {
        Duration::from_secs(self.replay_stall_seconds.max(1))
    }

    /// How long a change of what is not there waits at least.
    #[must_use]
    pub fn missing_retry(&self) -> Duration {
        Duration::from_secs(self.missing_retry_seconds)
    }

    /// How long operations may be pending.
    #[must_use]
    pub fn buffer_retention(&self) -> Duration {
        Duration::from_secs(self.buffer_retention_hours.saturating_mul(3600))
    }

    /// How long PostgreSQL must have been looked for in vain before anything expires.
    #[must_use]
    pub fn expiry_grace(&self) -> Duration {
        Duration::from_secs(self.expiry_grace_seconds)
    }

    /// How long one batch may take.
    #[must_use]
    pub fn replay_timeout(&self) -> Duration {
        Duration::from_millis(self.replay_timeout_ms)
    }
}
