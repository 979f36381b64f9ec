//! Versions and the hybrid logical clock that draws them.
//!
//! A version is a UUIDv7 (RFC 9562, 5.7). Its bits from the top: 48 of milliseconds since the Unix
//! epoch, 4 of format, 12 of counter, 2 of format, 14 more of counter, 48 random. Milliseconds and
//! counter come from the clock, so versions drawn by one process are strictly increasing whatever
//! the wall clock does; the random tail keeps versions of different processes apart.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How far ahead of this machine's clock, in milliseconds, a seen version may pull the clock.
/// A version from beyond is clamped to this bound and counted in `clock_clamped_total`.
pub const MAX_AHEAD_MS: u64 = 60_000;

const COUNTER_BITS: u32 = 26;
const COUNTER_LIMIT: u64 = 1 << COUNTER_BITS;

/// An operation's id and at the same time the version of every field it sets: a greater one is a
/// newer write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(Uuid);

impl Version {
    /// Older than every version the clock draws: the version of a field nobody has written yet.
    pub const NONE: Version = Version(Uuid::nil());

    /// Wraps an id read from a place that only ever held versions.
    #[must_use]
    pub const fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The id as a plain UUID.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }

    /// The moment the version was drawn, as its clock told it (milliseconds).
    #[must_use]
    pub fn timestamp(self) -> DateTime<Utc> {
        let millis = i64::try_from(self.tick().millis).unwrap_or(i64::MAX);
        DateTime::from_timestamp_millis(millis).unwrap_or_default()
    }

    fn tick(self) -> Tick {
        let bits = self.0.as_u128();
        let high = (bits >> 64) as u64 & 0xFFF;
        let low = (bits >> 48) as u64 & 0x3FFF;
        Tick { millis: (bits >> 80) as u64, counter: high << 14 | low }
    }

    fn new(tick: Tick) -> Self {
        let tail = Uuid::new_v4().as_u128() & ((1 << 48) - 1);
        let bits = u128::from(tick.millis) << 80
            | 0x7 << 76
            | u128::from(tick.counter >> 14) << 64
            | 0b10 << 62
            | u128::from(tick.counter & 0x3FFF) << 48
            | tail;
        Self(Uuid::from_u128(bits))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Version {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// A reading of the hybrid clock, ordered as time is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Tick {
    millis: u64,
    counter: u64,
}

impl Tick {
    fn successor(self) -> Self {
        if self.counter + 1 < COUNTER_LIMIT {
            Self { millis: self.millis, counter: self.counter + 1 }
        } else {
            Self { millis: self.millis + 1, counter: 0 }
        }
    }

    /// The next reading when the wall clock shows `now` milliseconds.
    fn next(self, now: u64) -> Self {
        if now > self.millis { Self { millis: now, counter: 0 } } else { self.successor() }
    }

    /// This clock after having seen `other`; true if `other` had to be clamped.
    fn observe(self, other: Tick, now: u64) -> (Self, bool) {
        let limit = Tick { millis: now.saturating_add(MAX_AHEAD_MS), counter: 0 };
        let clamped = other > limit;
        (self.max(if clamped { limit } else { other }), clamped)
    }
}

/// The hybrid logical clock of one process. Cheap to share behind an `Arc`.
#[derive(Debug, Default)]
pub struct Clock {
    last: Mutex<Tick>,
}

impl Clock {
    /// Draws a version greater than every one drawn or observed before (but see [`MAX_AHEAD_MS`]).
    pub fn next(&self) -> Version {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = last.next(wall_millis());
        Version::new(*last)
    }

    /// Takes note of a version read from PostgreSQL or the buffer, so that later ones exceed it.
    pub fn observe(&self, seen: Version) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (advanced, clamped) = last.observe(seen.tick(), wall_millis());
        *last = advanced;
        if clamped {
            metrics::counter!("clock_clamped_total").increment(1);
        }
    }

    /// A version just past `found`, for a write that must win over it even if `found` was drawn by
    /// a clock so far ahead that [`Clock::observe`] clamps it. Does not move this clock beyond the clamp.
    pub fn after(&self, found: Version) -> Version {
        self.observe(found);
        let next = self.next();
        if next > found { next } else { Version::new(found.tick().successor()) }
    }
}

fn wall_millis() -> u64 {
    // A wall clock set before 1970 reads as zero: the counter still advances.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Event {
        Draw,
        Jump(u64),
        See { millis: u64, counter: u64 },
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => Just(Event::Draw),
            1 => (0..10_000_000u64).prop_map(Event::Jump),
            1 => (0..10_000_000u64, 0..COUNTER_LIMIT)
                .prop_map(|(millis, counter)| Event::See { millis, counter }),
        ]
    }

    proptest! {
        #[test]
        fn drawn_versions_increase_under_jumps_in_either_direction(
            events in prop::collection::vec(event(), 1..200)
        ) {
            let (mut last, mut now) = (Tick::default(), 5_000_000);
            let mut greatest = Version::NONE;
            for event in events {
                match event {
                    Event::Draw => {
                        last = last.next(now);
                        let drawn = Version::new(last);
                        prop_assert!(drawn > greatest, "{drawn} after {greatest}");
                        greatest = drawn;
                    }
                    Event::Jump(to) => now = to,
                    Event::See { millis, counter } => {
                        let seen = Tick { millis, counter };
                        let (after, clamped) = last.observe(seen, now);
                        prop_assert!(after >= last);
                        if clamped {
                            prop_assert!(millis >= now + MAX_AHEAD_MS);
                            prop_assert!(after.millis <= last.millis.max(now + MAX_AHEAD_MS));
                        } else {
                            greatest = greatest.max(Version::new(seen));
                        }
                        last = after;
                    }
                }
            }
        }

        #[test]
        fn a_version_carries_its_tick(millis in 0..1u64 << 48, counter in 0..COUNTER_LIMIT) {
            let tick = Tick { millis, counter };
            let version = Version::new(tick);
            prop_assert_eq!(version.tick(), tick);
            prop_assert_eq!(version.as_uuid().get_version_num(), 7);
            prop_assert_eq!(version.as_uuid().get_variant(), uuid::Variant::RFC4122);
        }
    }

    #[test]
    fn the_counter_overflows_into_the_next_millisecond() {
        let full = Tick { millis: 7, counter: COUNTER_LIMIT - 1 };
        assert_eq!(full.next(7), Tick { millis: 8, counter: 0 });
    }

    #[test]
    fn a_version_after_a_far_future_one_exceeds_it_without_dragging_the_clock_along() {
        let clock = Clock::default();
        let ahead = wall_millis() + 10 * 24 * 3_600_000;
        let found = Version::new(Tick { millis: ahead, counter: 3 });
        assert!(clock.after(found) > found);
        assert!(clock.next() < found);
    }

    #[test]
    fn threads_share_one_clock_without_drawing_a_version_twice() {
        let clock = Clock::default();
        let drawn: Vec<Version> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..10_000).map(|_| clock.next()).collect::<Vec<_>>()))
                .collect();
            handles.into_iter().flat_map(|h| h.join().unwrap()).collect()
        });
        let ticks: std::collections::BTreeSet<_> = drawn.iter().map(|v| v.tick()).collect();
        assert_eq!(ticks.len(), drawn.len());
    }
}
