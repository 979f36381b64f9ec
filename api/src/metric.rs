//! The metrics that this process has beside those of both, [`shared::metric::COMMON`].

use metrics::Unit;
use shared::metric::Metric;

/// Answers.
pub const HTTP_REQUESTS: Metric =
    Metric::counter("http_requests_total", "Requests that were answered")
        .with_labels("`method`, `route`, `status`");

/// Time of answers.
pub const HTTP_REQUEST_DURATION: Metric = Metric::histogram(
    "http_request_duration_seconds",
    Unit::Seconds,
    "Time from a request's head to its answer",
)
.with_labels("`method`, `route`");

/// Open connections.
pub const HTTP_CONNECTIONS: Metric =
    Metric::gauge("http_connections", Unit::Count, "Connections of clients that are open");

/// Connections beyond the limit.
pub const HTTP_CONNECTIONS_REFUSED: Metric = Metric::counter(
    "http_connections_refused_total",
    "Connections that were refused because `MAX_CONNECTIONS` were open",
);

/// Requests beyond a limit.
pub const HTTP_RATE_LIMITED: Metric =
    Metric::counter("http_rate_limited_total", "Requests that were refused with 429")
        .with_labels("`limit`: user, address, login");

/// Callers who were not believed.
pub const AUTH_FAILURES: Metric =
    Metric::counter("auth_failures_total", "Requests whose token was refused")
        .with_labels("`reason`");

/// Those that this process has alone.
pub const METRICS: [Metric; 6] = [
    HTTP_REQUESTS,
    HTTP_REQUEST_DURATION,
    HTTP_CONNECTIONS,
    HTTP_CONNECTIONS_REFUSED,
    HTTP_RATE_LIMITED,
    AUTH_FAILURES,
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
