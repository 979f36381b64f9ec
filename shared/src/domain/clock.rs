//! Versions and the hybrid logical clock that draws them.
//!
//! A version is a UUIDv7 (RFC 9562, 5.7). Its bits from the top: 48 of milliseconds since the Unix
//! epoch, 4 of format, 12 of counter, 2 of format, 14 more of counter, 48 random. Milliseconds and
//! counter come from the clock, so versions drawn by one process are strictly increasing whatever
//! the wall clock does; the random tail keeps versions of different processes apart. The counter begins
//! with the microseconds within the millisecond (RFC 9562, 6.2, method 3), so that two processes of one
//! host, which share the wall clock, draw versions in the order in which they are asked.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::metric;

/// How far ahead of this machine's clock, in milliseconds, a seen version may pull the clock.
/// A version from beyond is clamped to this bound and counted in `clock_clamped_total`.
pub const MAX_AHEAD_MS: u64 = 60_000;
/// The same for a version that a client may have made up, as what it asserts with `If-Match`, and what
/// came into a lane behind that: nobody is to move the clock that others depend on.
const NAMED_AHEAD_MS: u64 = 1000;

/// The greatest number of milliseconds that a version holds.
const LAST_MILLIS: u64 = (1 << 48) - 1;
const COUNTER_BITS: u32 = 26;
const COUNTER_LIMIT: u64 = 1 << COUNTER_BITS;
/// What a microsecond adds to the counter: 1000 of them fit.
const MICROSECOND: u64 = COUNTER_LIMIT >> 10;

/// An operation's id and at the same time the version of every field it sets: a greater one is a
/// newer write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(Uuid);

impl Version {
    /// Older than every version the clock draws: the version of a field nobody has written yet.
    pub const NONE: Version = Version(Uuid::nil());

    /// The version of the fields of a task as its create sets them: older than every version a clock
    /// draws, and the same for every create of the task, however often and on whichever node it is
    /// repeated. So no create undoes or hides an edit, and all of them hand out one ETag. Its
    /// milliseconds are zero; the rest is the task's id.
    #[must_use]
    pub const fn of_create(task_id: Uuid) -> Self {
        let tail = task_id.as_u128() & ((1 << 76) - 1);
        // The variant's bits are set in every task id that is a UUID of RFC 9562.
        Self(Uuid::from_u128(0x7 << 76 | tail))
    }

    /// True if a client that asserts this version may have been given it: not if it is from far ahead, and
    /// newer than all that this host knows of the entity.
    #[must_use]
    pub fn is_credible(self, known: Option<Version>) -> bool {
        !self.time().is_far_ahead() || Some(self) <= known
    }

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
        let millis = i64::try_from(self.time().millis).unwrap_or(i64::MAX);
        DateTime::from_timestamp_millis(millis).unwrap_or_default()
    }

    /// When it was drawn, as the clock that drew it told the time.
    #[must_use]
    pub fn time(self) -> HybridTime {
        let bits = self.0.as_u128();
        let high = (bits >> 64) as u64 & 0xFFF;
        let low = (bits >> 48) as u64 & 0x3FFF;
        HybridTime { millis: (bits >> 80) as u64, counter: high << 14 | low }
    }

    fn new(time: HybridTime) -> Self {
        let tail = Uuid::new_v4().as_u128() & ((1 << 48) - 1);
        let bits = u128::from(time.millis) << 80
            | 0x7 << 76
            | u128::from(time.counter >> 14) << 64
            | 0b10 << 62
            | u128::from(time.counter & 0x3FFF) << 48
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
pub struct HybridTime {
    /// Milliseconds since the Unix epoch.
    pub millis: u64,
    /// Grows within the millisecond: with its microseconds, and by one for each reading.
    pub counter: u64,
}

impl HybridTime {
    /// The wall clock now. Its milliseconds are at least 1, also where it is set before 1970: zero is the
    /// time of creates.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { millis, counter: u64::from(since.subsec_micros() % 1000) * MICROSECOND }
    }

    fn successor(self) -> Self {
        if self.counter + 1 < COUNTER_LIMIT {
            Self { millis: self.millis, counter: self.counter + 1 }
        } else {
            // In the year 10889 time stands still, and does not begin anew.
            Self { millis: (self.millis + 1).min(LAST_MILLIS), counter: 0 }
        }
    }

    /// True if no clock that is right may have shown it yet, nor one that others would follow.
    #[must_use]
    pub fn is_far_ahead(self) -> bool {
        self.millis > Self::now().millis.saturating_add(MAX_AHEAD_MS)
    }

    /// The next reading when the wall clock shows `now`.
    fn next(self, now: HybridTime) -> Self {
        if now > self { now } else { self.successor() }
    }

    /// This clock after having seen `other`, which may be `most` milliseconds ahead; true if it had to be
    /// clamped to that.
    fn observe(self, other: HybridTime, now: HybridTime, most: u64) -> (Self, bool) {
        let limit = HybridTime { millis: now.millis.saturating_add(most), counter: 0 };
        let clamped = other > limit;
        (self.max(if clamped { limit } else { other }), clamped)
    }
}

/// The hybrid logical clock of one process. Cheap to share behind an `Arc`.
#[derive(Debug, Default)]
pub struct Clock {
    last: Mutex<HybridTime>,
}

impl Clock {
    /// Draws a version greater than every one drawn or observed before (but see [`MAX_AHEAD_MS`]).
    pub fn next(&self) -> Version {
        let mut last = self.last();
        *last = last.next(HybridTime::now());
        Version::new(*last)
    }

    /// Takes note of a version read from PostgreSQL or the buffer, so that later ones exceed it. True
    /// if it is from so far ahead that it was clamped, and later ones do not.
    pub fn observe(&self, seen: Version) -> bool {
        let mut last = self.last();
        let (advanced, clamped) = last.observe(seen.time(), HybridTime::now(), MAX_AHEAD_MS);
        *last = advanced;
        if clamped {
            metrics::counter!(metric::CLOCK_CLAMPED.name).increment(1);
        }
        clamped
    }

    /// A version just past `found`, which is first observed, for a write that must win over it even if
    /// it was clamped. Does not move this clock beyond the clamp.
    pub fn after(&self, found: Version) -> Version {
        self.observe(found);
        self.next_past(found)
    }

    /// A version just past one that a client may have made up: it hardly moves this clock.
    pub fn past(&self, named: Version) -> Version {
        {
            let mut last = self.last();
            (*last, _) = last.observe(named.time(), HybridTime::now(), NAMED_AHEAD_MS);
        }
        self.next_past(named)
    }

    fn next_past(&self, other: Version) -> Version {
        let next = self.next();
        if next > other { next } else { Version::new(other.time().successor()) }
    }

    /// The newest reading.
    pub fn time(&self) -> HybridTime {
        *self.last()
    }

    /// Goes on from a reading of another clock of this host, however far ahead it is.
    pub fn go_on_from(&self, time: HybridTime) {
        let mut last = self.last();
        *last = time.max(*last);
    }

    fn last(&self) -> MutexGuard<'_, HybridTime> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    fn at(millis: u64) -> HybridTime {
        HybridTime { millis, counter: 0 }
    }

    proptest! {
        #[test]
        fn drawn_versions_increase_under_jumps_in_either_direction(
            events in prop::collection::vec(event(), 1..200)
        ) {
            let (mut last, mut now) = (HybridTime::default(), at(5_000_000));
            let mut greatest = Version::NONE;
            for event in events {
                match event {
                    Event::Draw => {
                        last = last.next(now);
                        let drawn = Version::new(last);
                        prop_assert!(drawn > greatest, "{drawn} after {greatest}");
                        greatest = drawn;
                    }
                    Event::Jump(to) => now = at(to),
                    Event::See { millis, counter } => {
                        let seen = HybridTime { millis, counter };
                        let (after, clamped) = last.observe(seen, now, MAX_AHEAD_MS);
                        prop_assert!(after >= last);
                        if clamped {
                            prop_assert!(millis >= now.millis + MAX_AHEAD_MS);
                            prop_assert!(after.millis <= last.millis.max(now.millis + MAX_AHEAD_MS));
                        } else {
                            greatest = greatest.max(Version::new(seen));
                        }
                        last = after;
                    }
                }
            }
        }

        #[test]
        fn a_version_carries_its_time(millis in 0..1u64 << 48, counter in 0..COUNTER_LIMIT) {
            let time = HybridTime { millis, counter };
            let version = Version::new(time);
            prop_assert_eq!(version.time(), time);
            prop_assert_eq!(version.as_uuid().get_version_num(), 7);
            prop_assert_eq!(version.as_uuid().get_variant(), uuid::Variant::RFC4122);
        }
    }

    #[test]
    fn the_counter_overflows_into_the_next_millisecond() {
        let full = HybridTime { millis: 7, counter: COUNTER_LIMIT - 1 };
        assert_eq!(full.next(at(7)), HybridTime { millis: 8, counter: 0 });
    }

    #[test]
    fn the_last_version_of_all_is_not_followed_by_the_first() {
        let last = HybridTime { millis: LAST_MILLIS, counter: COUNTER_LIMIT - 1 };
        assert_eq!(Version::new(last.successor()).time().millis, LAST_MILLIS);
        assert!(last.is_far_ahead() && !HybridTime::now().is_far_ahead());
    }

    #[test]
    fn a_version_after_a_far_future_one_exceeds_it_without_dragging_the_clock_along() {
        let clock = Clock::default();
        let ahead = HybridTime::now().millis + 10 * 24 * 3_600_000;
        let found = Version::new(HybridTime { millis: ahead, counter: 3 });
        assert!(clock.after(found) > found);
        assert!(clock.next() < found);
    }

    #[test]
    fn a_version_that_a_client_named_is_exceeded_and_hardly_moves_the_clock() {
        let clock = Clock::default();
        let named =
            Version::new(HybridTime { millis: HybridTime::now().millis + 30_000, counter: 9 });
        assert!(clock.past(named) > named);
        assert!(clock.next() < named);
        assert!(clock.after(named) > named);
        assert!(clock.next() > named);
    }

    #[test]
    fn every_create_of_a_task_has_one_version_which_is_older_than_any_that_is_drawn() {
        let clock = Clock::default();
        for task in [Uuid::now_v7(), Uuid::new_v5(&Uuid::nil(), b"key")] {
            let created = Version::of_create(task);
            assert!(Version::NONE < created && created < clock.next());
            assert_eq!(created, Version::of_create(task));
            assert_eq!(created.as_uuid().get_version_num(), 7);
            assert_eq!(created.as_uuid().get_variant(), uuid::Variant::RFC4122);
            assert_eq!(created.time().millis, 0);
        }
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
        let times: std::collections::BTreeSet<_> = drawn.iter().map(|v| v.time()).collect();
        assert_eq!(times.len(), drawn.len());
    }
}
