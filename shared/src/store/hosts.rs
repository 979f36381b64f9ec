//! The hosts that share this PostgreSQL, as the table `hosts` has them: a row for each buffer file.
//!
//! A worker renews the row of its file while PostgreSQL is up, and reads in the same statement what the
//! others have said of theirs. Times in the table are by PostgreSQL's clock. Rows that nobody has
//! renewed for as long as operations may be pending are removed by whoever comes by.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Store, StoreError, column, within};

/// A row of the same file under another node name counts as another host's while it is renewed. Once it
/// has been silent for so long (seconds), it is taken for this host's under an earlier name, as that of
/// a container that was made anew.
const RENAMED_SECONDS: i32 = 60;

const REPORT: &str = r"
WITH told AS (
    SELECT node, file, heartbeat_at, oldest_pending_at, generation,
        node = $1 AND file = $2 AS is_own,
        file = $2 AND heartbeat_at < now() - make_interval(secs => $6::int) AS is_renamed,
        heartbeat_at < now() - make_interval(hours => $5::int) AS is_over
    FROM hosts
), gone AS (
    DELETE FROM hosts WHERE (node, file) IN (
        SELECT h.node, h.file FROM hosts h JOIN told t ON t.node = h.node AND t.file = h.file
        WHERE NOT is_own AND (is_renamed OR is_over)
        FOR UPDATE OF h SKIP LOCKED)
), renewed AS (
    INSERT INTO hosts (node, file, heartbeat_at, oldest_pending_at, generation)
    VALUES ($1, $2, now(), $3, $4)
    ON CONFLICT (node, file) DO UPDATE SET heartbeat_at = excluded.heartbeat_at,
        oldest_pending_at = excluded.oldest_pending_at, generation = excluded.generation
)
SELECT max(generation) FILTER (WHERE is_own OR is_renamed) AS generation_before,
    max(heartbeat_at) FILTER (WHERE is_own OR is_renamed) AS heard_before,
    min(heartbeat_at) FILTER (WHERE is_other) AS least_heartbeat_at,
    min(oldest_pending_at) FILTER (WHERE is_other) AS oldest_pending_at
FROM (SELECT *, NOT (is_own OR is_renamed OR is_over) AS is_other FROM told) AS told";

/// What a worker says of its buffer file.
#[derive(Clone, Copy, Debug)]
pub struct HostReport {
    /// Which file it is.
    pub file: u32,
    /// How far it has come: grows as long as it is the same file.
    pub generation: u64,
    /// When the oldest operation was queued that it may still bring to PostgreSQL, by PostgreSQL's clock.
    pub oldest_pending_at: Option<DateTime<Utc>>,
}

/// What was said of buffer files before.
#[derive(Clone, Copy, Debug)]
pub struct HostsKnown {
    /// How far this file had come when it was last heard of, and when that was.
    pub own: Option<(u64, DateTime<Utc>)>,
    /// The files of others.
    pub others: OtherHosts,
}

/// What the workers of other buffer files have said, in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherHosts {
    /// When the one was heard of that has been silent for the longest; `None` if there are no others.
    pub least_heartbeat_at: Option<DateTime<Utc>>,
    /// When the oldest operation was queued that one of them may still bring.
    pub oldest_pending_at: Option<DateTime<Utc>>,
}

impl Store {
    /// Says how this host's buffer file stands, and reads how those of others do. `retention` is for how
    /// long operations may be pending.
    ///
    /// # Errors
    /// If PostgreSQL does not answer within the time that reads have, or answers with an error.
    pub async fn report_host(
        &self,
        report: HostReport,
        retention: Duration,
    ) -> Result<HostsKnown, StoreError> {
        // A century is for ever, and PostgreSQL's dates reach that far back.
        let hours = i32::try_from(retention.as_secs().div_ceil(3600).min(876_000));
        let values = vec![
            self.node.clone().into(),
            report.file.cast_signed().into(),
            report.oldest_pending_at.into(),
            report.generation.cast_signed().into(),
            hours.unwrap_or(i32::MAX).into(),
            RENAMED_SECONDS.into(),
        ];
        let rows = within(self.read_timeout, self.rows(REPORT, values)).await?;
        let row = rows.first().ok_or(StoreError::Shape)?;
        let before: Option<i64> = column(row, "generation_before")?;
        let heard: Option<DateTime<Utc>> = column(row, "heard_before")?;
        Ok(HostsKnown {
            own: before.map(i64::cast_unsigned).zip(heard),
            others: OtherHosts {
                least_heartbeat_at: column(row, "least_heartbeat_at")?,
                oldest_pending_at: column(row, "oldest_pending_at")?,
            },
        })
    }
}
