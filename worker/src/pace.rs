//! How fast replay goes: gently after an outage, then faster, but never so fast that online writes
//! become too slow.
//!
//! Batches grow while they are quick and shrink when they are not. While there are online writes, replay
//! works one small batch at a time and rests after each. The rests grow while online writes are slowed
//! down by more than a bearable factor, and shrink while they are not.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::online::Online;

/// Operations in the first batch after an outage.
const FIRST_BATCH: usize = 50;
/// Operations in each batch while there are online writes, at the most.
const ONLINE_BATCH: usize = 100;
/// A batch that took no longer than this lets the next one be twice as large.
const QUICK: Duration = Duration::from_millis(250);
/// The slowdown of online writes up to which replay may go faster.
const BEARABLE: f64 = 1.7;
/// The longest rest, in units of the batch before it.
const LONGEST_REST: f64 = 30.0;
/// The longest rest there is.
const LONGEST: Duration = Duration::from_secs(1);

/// The pace of replay.
#[derive(Debug)]
pub struct Pace {
    most: usize,
    now: Mutex<Now>,
}

#[derive(Clone, Copy, Debug)]
struct Now {
    size: usize,
    /// In units of the batch before it.
    rest: f64,
    online: bool,
}

impl Pace {
    /// A gentle pace, growing up to batches of `most` operations.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { most, now: Mutex::new(Now::gentle(most)) }
    }

    /// Begins gently again.
    pub fn restart(&self) {
        self.update(|now| *now = Now::gentle(self.most));
    }

    /// Operations in the next batch at the most.
    #[must_use]
    pub fn size(&self) -> usize {
        let now = *self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.online { now.size.min(ONLINE_BATCH) } else { now.size }
    }

    /// True if batches are to follow one another: somebody is online.
    #[must_use]
    pub fn one_at_a_time(&self) -> bool {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).online
    }

    /// Takes note of a batch of `size` operations that `took` so long, and of how those online fare;
    /// how long to rest now.
    pub fn rest_after(&self, size: usize, took: Duration, online: Option<Online>) -> Duration {
        self.update(|now| {
            if took > QUICK {
                now.size /= 2;
            } else if size >= now.size {
                now.size *= 2;
            }
            now.size = now.size.clamp(FIRST_BATCH.min(self.most), self.most);
            now.online = online.is_some();
            now.rest = match online {
                None => 0.0,
                Some(online) if online.slowdown() > BEARABLE => {
                    (now.rest * 1.3 + 0.5).min(LONGEST_REST)
                }
                Some(_) => (now.rest * 0.7 - 0.1).max(0.0),
            };
            took.mul_f64(now.rest).min(LONGEST)
        })
    }

    fn update<T>(&self, change: impl FnOnce(&mut Now) -> T) -> T {
        change(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Now {
    fn gentle(most: usize) -> Self {
        Self { size: FIRST_BATCH.min(most), rest: 2.0, online: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    #[test]
    fn batches_grow_while_they_are_quick_and_shrink_when_they_are_not() {
        let pace = Pace::new(500);
        for expected in [100, 200, 400, 500, 500] {
            assert_eq!(pace.rest_after(pace.size(), SHORT, None), Duration::ZERO);
            assert_eq!(pace.size(), expected);
        }
        pace.rest_after(500, 2 * QUICK, None);
        assert_eq!(pace.size(), 250);
        pace.restart();
        assert_eq!(pace.size(), FIRST_BATCH);
        assert_eq!(Pace::new(10).size(), 10);
    }

    #[test]
    fn replay_rests_the_longer_the_worse_those_online_fare() {
        let pace = Pace::new(500);
        let fare = |now_us: f64| Some(Online { quiet_us: 1000.0, now_us });
        let mut rest = pace.rest_after(50, SHORT, fare(5000.0));
        assert!(pace.one_at_a_time() && pace.size() <= ONLINE_BATCH);
        for _ in 0..5 {
            let longer = pace.rest_after(50, SHORT, fare(5000.0));
            assert!(longer > rest);
            rest = longer;
        }
        for _ in 0..60 {
            rest = pace.rest_after(50, SHORT, fare(1200.0));
        }
        assert_eq!(rest, Duration::ZERO);
    }
}
