//! The metrics of the processes: names, units and texts, each once. Code names a metric by its constant
//! here.
//!
//! When a process starts, it describes the metrics that it has, so `/metrics` has `# HELP` and `# TYPE`
//! for each. The same descriptions make the tables of metrics in the documentation.

use metrics::Unit;

/// What a metric does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It counts up from zero since the process started.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It counts observations in buckets.
    Histogram,
}

impl Kind {
    /// The word that Prometheus has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name in `/metrics`.
    pub name: &'static str,
    kind: Kind,
    unit: Unit,
    labels: &'static str,
    help: &'static str,
}

impl Metric {
    /// A metric that counts up.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, unit: Unit::Count, labels: "", help }
    }

    /// A metric that goes up and down, in `unit`.
    #[must_use]
    pub const fn gauge(name: &'static str, unit: Unit, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit, labels: "", help }
    }

    /// A metric whose observations are counted in buckets, in `unit`.
    #[must_use]
    pub const fn histogram(name: &'static str, unit: Unit, help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, unit, labels: "", help }
    }

    /// The same with labels: what they are, as a Markdown text.
    #[must_use]
    pub const fn with_labels(self, labels: &'static str) -> Self {
        Self { labels, ..self }
    }

    /// Has `/metrics` tell what it is, with `# HELP` and `# TYPE`.
    pub(crate) fn describe(&self) {
        match self.kind {
            Kind::Counter => metrics::describe_counter!(self.name, self.unit, self.help),
            Kind::Gauge => metrics::describe_gauge!(self.name, self.unit, self.help),
            Kind::Histogram => metrics::describe_histogram!(self.name, self.unit, self.help),
        }
    }
}

/// The table of these metrics, in Markdown, as the documentation has it.
///
/// ```
/// use shared::metric::{LINK_STATE, table};
///
/// let table = table(&[LINK_STATE]);
/// assert!(table.ends_with("| `link_state` | gauge | count | | 1 while PostgreSQL takes writes, else 0 |\n"));
/// ```
#[must_use]
pub fn table(metrics: &[Metric]) -> String {
    let head =
        "| metric | type | unit | labels | what it tells |\n| --- | --- | --- | --- | --- |\n";
    let rows = metrics.iter().map(|metric| {
        let Metric { name, kind, unit, labels, help } = metric;
        let (kind, unit) = (kind.as_str(), unit.as_str());
        let labels = if labels.is_empty() { String::new() } else { format!("{labels} ") };
        format!("| `{name}` | {kind} | {unit} | {labels}| {help} |\n")
    });
    std::iter::once(head.to_owned()).chain(rows).collect()
}

/// 1 while PostgreSQL takes writes.
pub const LINK_STATE: Metric =
    Metric::gauge("link_state", Unit::Count, "1 while PostgreSQL takes writes, else 0");

/// How far apart the clocks are.
pub const CLOCK_SKEW: Metric = Metric::gauge(
    "clock_skew_seconds",
    Unit::Seconds,
    "PostgreSQL's clock minus the clock of this host",
);

/// Versions that were not taken as they came.
pub const CLOCK_CLAMPED: Metric = Metric::counter(
    "clock_clamped_total",
    "Versions seen from more than 60 s ahead: the clock of this host did not follow them",
);

/// Versions that could not be remembered.
pub const CLOCK_AHEAD_FORGOTTEN: Metric = Metric::counter(
    "clock_ahead_forgotten_total",
    "Versions from more than 60 s ahead that the buffer file had no room to remember",
);

/// Statements of the batched write path.
pub const DB_BATCH_SIZE: Metric =
    Metric::histogram("db_batch_size", Unit::Count, "Operations that one transaction wrote");

/// Statements of the batched write path.
pub const DB_APPLY_DURATION: Metric = Metric::histogram(
    "db_apply_duration_seconds",
    Unit::Seconds,
    "Time to write one batch of operations to PostgreSQL",
);

/// Appends.
pub const BUFFER_APPENDS: Metric =
    Metric::counter("buffer_appends_total", "Operations that were appended to the buffer file");

/// Appends that were refused.
pub const BUFFER_REFUSED: Metric =
    Metric::counter("buffer_refused_total", "Operations that the buffer could not take")
        .with_labels("`reason`");

/// Commits.
pub const BUFFER_APPEND_DURATION: Metric = Metric::histogram(
    "buffer_append_duration_seconds",
    Unit::Seconds,
    "Time of one durable commit to the buffer file",
);

/// What is in the file.
pub const BUFFER_OPERATIONS: Metric =
    Metric::gauge("buffer_operations", Unit::Count, "Operations in the buffer file")
        .with_labels("`state`: pending, dead, quarantined");

/// How much is in the file.
pub const BUFFER_BYTES: Metric =
    Metric::gauge("buffer_bytes", Unit::Bytes, "Bytes of the pending operations' records");

/// How long something has waited.
pub const BUFFER_OLDEST_AGE: Metric = Metric::gauge(
    "buffer_oldest_age_seconds",
    Unit::Seconds,
    "Age of the oldest pending operation, 0 if none is pending",
);

/// Damage that stops replay.
pub const BUFFER_STUCK: Metric = Metric::gauge(
    "buffer_stuck",
    Unit::Count,
    "1 if replay cannot find what is pending, or damage could not be repaired, else 0",
);

/// Repairs.
pub const BUFFER_REPAIRS: Metric = Metric::counter(
    "buffer_repairs_total",
    "Damaged buffer files whose tables were made anew from the records",
);

/// Old copies.
pub const BUFFER_ROLLBACKS: Metric = Metric::counter(
    "buffer_rollbacks_total",
    "Times that an older copy of the buffer file was found in its place",
);

/// Unreadable records.
pub const QUARANTINED: Metric =
    Metric::counter("quarantined_total", "Records that cannot be read and were set aside");

/// Lookups in the cache.
pub const CACHE_REQUESTS: Metric =
    Metric::counter("cache_requests_total", "Tasks and profiles that were looked up in the cache")
        .with_labels("`result`: hit, miss, unavailable");

/// Entries that may be stale.
pub const CACHE_INVALIDATIONS_LOST: Metric = Metric::counter(
    "cache_invalidations_lost_total",
    "Times that neither Redis nor the buffer file could be told to empty the cache: reads may be stale until its entries expire",
);

/// Those that both processes have.
pub const COMMON: [Metric; 18] = [
    LINK_STATE,
    DB_BATCH_SIZE,
    DB_APPLY_DURATION,
    BUFFER_APPENDS,
    BUFFER_REFUSED,
    BUFFER_APPEND_DURATION,
    BUFFER_OPERATIONS,
    BUFFER_BYTES,
    BUFFER_OLDEST_AGE,
    BUFFER_STUCK,
    BUFFER_REPAIRS,
    BUFFER_ROLLBACKS,
    QUARANTINED,
    CACHE_REQUESTS,
    CACHE_INVALIDATIONS_LOST,
    CLOCK_SKEW,
    CLOCK_CLAMPED,
    CLOCK_AHEAD_FORGOTTEN,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_the_table_of_the_metrics_of_both_processes() {
        let (document, table) = (include_str!("../../docs/operating.md"), table(&COMMON));
        assert!(document.contains(&table), "docs/operating.md is to hold:\n{table}");
    }

    #[test]
    fn a_table_has_a_row_for_each_metric() {
        let table = table(&[CACHE_REQUESTS, BUFFER_BYTES]);
        assert_eq!(table.lines().count(), 4);
        assert!(table.contains(
            "| `cache_requests_total` | counter | count | `result`: hit, miss, unavailable | Tasks"
        ));
        assert!(table.contains("| `buffer_bytes` | gauge | bytes | | Bytes"));
    }
}
