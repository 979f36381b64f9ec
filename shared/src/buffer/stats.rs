//! How full the buffer is.

use redb::ReadableTableMetadata;

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::error::BufferError;
use crate::buffer::format::layout::{
    BY_PRIORITY, BYTES, DEAD_COUNT, LANE_STATES, PENDING, QUARANTINED, READY, WAITING,
};
use crate::buffer::format::record::{Header, unix_millis};
use crate::metric;

/// How full the buffer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Pending operations.
    pub pending: u64,
    /// Pending operations by their own priority, from 1.
    pub by_priority: [u64; 5],
    /// Bytes of pending operations.
    pub bytes: u64,
    /// Dead letters.
    pub dead: u64,
    /// Records that cannot be read.
    pub quarantined: u64,
    /// Lanes whose head waits for another attempt.
    pub waiting_lanes: u64,
    /// When the oldest pending operation was queued (Unix milliseconds).
    pub oldest_queued_at: Option<i64>,
    /// Whether the tables have pending operations that replay would not find: the file is damaged, and
    /// not repaired yet.
    pub is_stuck: bool,
}

impl Stats {
    /// Shows them as metrics.
    pub fn record(&self) {
        let gauge = |state: &'static str, count: u64| {
            metrics::gauge!(metric::BUFFER_OPERATIONS.name, "state" => state).set(count as f64);
        };
        gauge("pending", self.pending);
        gauge("dead", self.dead);
        gauge("quarantined", self.quarantined);
        metrics::gauge!(metric::BUFFER_STUCK.name).set(if self.is_stuck { 1.0 } else { 0.0 });
        metrics::gauge!(metric::BUFFER_BYTES.name).set(self.bytes as f64);
        let age = self.oldest_queued_at.map_or(0, |at| unix_millis().saturating_sub(at));
        metrics::gauge!(metric::BUFFER_OLDEST_AGE.name).set(age as f64 / 1000.0);
    }
}

impl Buffer {
    /// How full the buffer is.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn stats(&self) -> Result<Stats, BufferError> {
        self.read(|snapshot| {
            let first = snapshot.records()?.from(0)?.next().transpose()?;
            let oldest = first.and_then(|(place, record)| {
                Header::decode(place, &record).ok().map(|header| header.queued_at)
            });
            let tail = snapshot.tail();
            let mut by_priority = tail.by_priority();
            for (count, indexed) in by_priority.iter_mut().zip(snapshot.counters(BY_PRIORITY)?) {
                *count += indexed;
            }
            let [indexed, indexed_bytes, dead, quarantined] =
                snapshot.counters([PENDING, BYTES, DEAD_COUNT, QUARANTINED])?;
            let waiting_lanes = snapshot.open_table(WAITING)?.len()?;
            let found_lanes = waiting_lanes + snapshot.open_table(READY)?.len()?;
            let lanes = snapshot.open_table(LANE_STATES)?.len()?;
            Ok(Stats {
                pending: indexed + tail.len(),
                by_priority,
                bytes: indexed_bytes + tail.bytes(),
                dead,
                quarantined,
                waiting_lanes,
                is_stuck: lanes != found_lanes || indexed > 0 && found_lanes == 0,
                oldest_queued_at: oldest,
            })
        })
        .await
    }
}
