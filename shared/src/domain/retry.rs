//! How often an operation was tried, when it is tried again, and which lane goes first.

use std::time::Duration;

use super::{MAX_PRIORITY, Priority};

/// How often an operation was tried in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// By its own fault: these count against `MAX_RETRY_ATTEMPTS`.
    pub attempts: u32,
    /// For what another host had yet to bring; no more than 255 are counted.
    pub waits: u8,
}

impl Tries {
    /// One more by its own fault.
    #[must_use]
    pub fn failed(self) -> Self {
        Self { attempts: self.attempts.saturating_add(1), ..self }
    }

    /// One more for what another host has yet to bring.
    #[must_use]
    pub fn waited(self) -> Self {
        Self { waits: self.waits.saturating_add(1), ..self }
    }

    /// All of them.
    #[must_use]
    pub fn in_all(self) -> u32 {
        self.attempts.saturating_add(u32::from(self.waits))
    }
}

/// How long to wait after attempt number `attempt` (from 1): full jitter over an exponentially
/// growing, capped span, `random(0 ..= min(cap, base * 2^(attempt - 1)))`, the rule of "Exponential
/// Backoff And Jitter" (AWS Architecture Blog, 2015). `random` is uniform in `[0, 1)`.
#[must_use]
pub fn backoff(attempt: u32, base: Duration, cap: Duration, random: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(31);
    base.saturating_mul(1 << doublings).min(cap).mul_f64(random.clamp(0.0, 1.0))
}

/// A lane's priority once its head has waited for `waited`: the highest of its operations, plus one
/// for each `aging` of waiting, to [`MAX_PRIORITY`] at most, so that low priorities are not starved.
#[must_use]
pub fn aged_priority(priority: Priority, waited: Duration, aging: Duration) -> Priority {
    let steps = waited.as_millis() / aging.as_millis().max(1);
    let steps = Priority::try_from(steps).unwrap_or(MAX_PRIORITY);
    priority.saturating_add(steps).min(MAX_PRIORITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_raises_a_lane_step_by_step_to_the_top() {
        let aging = Duration::from_secs(60);
        assert_eq!(aged_priority(2, Duration::from_secs(59), aging), 2);
        assert_eq!(aged_priority(2, Duration::from_secs(60), aging), 3);
        assert_eq!(aged_priority(1, Duration::from_secs(240), aging), 5);
        assert_eq!(aged_priority(4, Duration::from_secs(1 << 40), aging), 5);
    }

    #[test]
    fn the_span_doubles_up_to_the_cap_and_jitter_fills_it() {
        let (base, cap) = (Duration::from_secs(1), Duration::from_secs(300));
        assert_eq!(backoff(1, base, cap, 1.0), Duration::from_secs(1));
        assert_eq!(backoff(4, base, cap, 1.0), Duration::from_secs(8));
        assert_eq!(backoff(4, base, cap, 0.25), Duration::from_secs(2));
        assert_eq!(backoff(10, base, cap, 1.0), cap);
        assert_eq!(backoff(u32::MAX, base, cap, 1.0), cap);
        assert_eq!(backoff(3, base, cap, 0.0), Duration::ZERO);
    }
}
