//! How far this host's wall clock is from PostgreSQL's.
//!
//! Each look at PostgreSQL reads its clock. Half a round trip is how exactly that can be told, so a
//! look says that the offset lies within an interval, and the offset moves no further than into it: a
//! slow answer changes nothing that a quick one has told.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;

use super::held::Connections;
use super::{Store, StoreError, column, within};

use crate::metric;

const CLOCK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us";

/// An offset beyond this one is worth telling people (microseconds).
pub const CLOCK_SKEW_US: u64 = 1_000_000;
/// How often they are told again while it lasts.
const AGAIN: Duration = Duration::from_secs(60);

/// The offset, as last measured.
#[derive(Debug, Default)]
pub(super) struct Skew {
    offset_us: AtomicI64,
    /// When people were last told, while there is something to tell.
    told: Mutex<Option<Instant>>,
}

impl Store {
    /// PostgreSQL's clock minus this host's wall clock, in microseconds: what to add to a time of this
    /// host to have PostgreSQL's. 0 until PostgreSQL has been looked at. As exact as half a round trip.
    #[must_use]
    pub fn clock_offset(&self) -> i64 {
        self.skew.offset_us.load(Ordering::Relaxed)
    }

    /// Asks PostgreSQL something small, its clock and which one it is, within the time that reads have.
    ///
    /// # Errors
    /// If PostgreSQL does not answer in time, or answers with an error.
    pub async fn look(&self) -> Result<(), StoreError> {
        let connections = self.connections();
        within(self.read_timeout, async {
            self.read_clock(&connections).await?;
            self.read_lineage(&connections).await
        })
        .await
    }

    /// Reads PostgreSQL's clock by a connection that is likely to be open.
    pub(super) async fn read_clock(&self, connections: &Connections) -> Result<(), StoreError> {
        let (sent_us, started) = (Utc::now().timestamp_micros(), Instant::now());
        let rows = connections.query(CLOCK, Vec::new()).await?;
        let now_us = column(rows.first().ok_or(StoreError::Shape)?, "now_us")?;
        self.skew.note(now_us, sent_us, started.elapsed());
        Ok(())
    }
}

impl Skew {
    /// Takes note of what PostgreSQL's clock showed somewhen in the `round_trip` that began at `sent_us`
    /// by this host's.
    fn note(&self, now_us: i64, sent_us: i64, round_trip: Duration) {
        let round_trip = i64::try_from(round_trip.as_micros()).unwrap_or(i64::MAX);
        let before = self.offset_us.load(Ordering::Relaxed);
        let offset = moved(before, now_us.saturating_sub(sent_us), round_trip);
        self.offset_us.store(offset, Ordering::Relaxed);
        metrics::gauge!(metric::CLOCK_SKEW.name).set(offset as f64 / 1e6);
        self.tell(offset);
    }

    fn tell(&self, offset_us: i64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = offset_us as f64 / 1e6;
        if offset_us.unsigned_abs() <= CLOCK_SKEW_US {
            if told.take().is_some() {
                tracing::info!(seconds, "the clocks of PostgreSQL and this host agree again");
            }
        } else if told.is_none_or(|at| at.elapsed() >= AGAIN) {
            *told = Some(Instant::now());
            tracing::warn!(
                seconds,
                "PostgreSQL's clock is this far ahead of this host's: set both by NTP"
            );
        }
    }
}

/// The offset after a look that tells that it lies between `latest - round_trip` and `latest`, where
/// `latest` is what there would be if the answer had taken no time at all on its way here.
fn moved(before: i64, latest: i64, round_trip: i64) -> i64 {
    before.clamp(latest.saturating_sub(round_trip), latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_moves_the_offset_no_further_than_it_proves() {
        assert_eq!(moved(0, 400, 500), 0);
        assert_eq!(moved(0, 5_000, 1_000), 4_000);
        assert_eq!(moved(0, -5_000, 1_000), -5_000);
        assert_eq!(moved(4_500, 5_000, 1_000), 4_500);
    }

    #[test]
    fn half_a_round_trip_is_the_error_at_the_most() {
        for (true_offset, there, back) in [(7_000, 1, 99), (-7_000, 99, 1), (0, 50, 50)] {
            // Sent at 0 by this host; PostgreSQL reads its clock after `there`.
            let told = moved(0, true_offset + there, there + back);
            assert!((told - true_offset).abs() <= 100, "{true_offset}: {told}");
        }
    }
}
