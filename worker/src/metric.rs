//! The metrics that this process has beside those of both, [`shared::metric::COMMON`].

use metrics::Unit;
use shared::metric::Metric;

/// What is there.
pub const DEPENDENCY_UP: Metric =
    Metric::gauge("dependency_up", Unit::Count, "1 while the service answers, else 0")
        .with_labels("`service`: postgres, redis");

/// What became of operations.
pub const REPLAY_OPERATIONS: Metric =
    Metric::counter("replay_operations_total", "Operations that replay dealt with")
        .with_labels("`outcome`: applied, merged, superseded, duplicate, retried, rejected");

/// Batches.
pub const REPLAY_BATCH_DURATION: Metric = Metric::histogram(
    "replay_batch_duration_seconds",
    Unit::Seconds,
    "Time to apply one batch in PostgreSQL and to settle it in the buffer file",
);

/// How late replay is.
pub const REPLAY_LAG: Metric = Metric::histogram(
    "replay_lag_seconds",
    Unit::Seconds,
    "Time from the acceptance of an operation to its replay",
);

/// Replay that hangs.
pub const REPLAY_STALLS: Metric = Metric::counter(
    "replay_stalls_total",
    "Times that replay made no progress for `REPLAY_STALL_SECONDS` and was started anew",
);

/// Operations that were given up.
pub const DEAD_LETTERS: Metric =
    Metric::counter("dead_letters", "Operations that became dead letters at replay")
        .with_labels("`reason`");

/// Operations that grew too old.
pub const EXPIRED: Metric = Metric::counter(
    "expired_total",
    "Operations that became dead letters because they were older than the retention",
);

/// Sweeps of the retention.
pub const RETENTION_SWEEPS: Metric =
    Metric::counter("retention_sweeps_total", "Sweeps for what has outlived its retention");

/// Whether the worker lives.
pub const WORKER_HEARTBEAT: Metric = Metric::gauge(
    "worker_heartbeat_timestamp_seconds",
    Unit::Seconds,
    "When the worker last published its status (Unix time)",
);

/// Those that this process has alone.
pub const METRICS: [Metric; 9] = [
    WORKER_HEARTBEAT,
    DEPENDENCY_UP,
    REPLAY_OPERATIONS,
    REPLAY_BATCH_DURATION,
    REPLAY_LAG,
    REPLAY_STALLS,
    DEAD_LETTERS,
    EXPIRED,
    RETENTION_SWEEPS,
];

#[cfg(test)]
mod tests {
    use shared::metric::table;

    use super::*;

    #[test]
    fn the_documentation_has_the_table_of_metrics() {
        let (document, table) = (include_str!("../../docs/operating.md"), table(&METRICS));
        assert!(document.contains(&table), "docs/operating.md is to hold:\n{table}");
    }
}
