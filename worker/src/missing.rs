//! How long an operation waits for an entity that is missing. Another host may still hold the entity's
//! create.
//!
//! The wait ends by time, not by a number of attempts:
//!
//! - It lasts at least `MISSING_RETRY_SECONDS`. Only time with PostgreSQL up counts, so that other hosts
//!   can report and replay what they have.
//! - After that it lasts while another host may have something older pending.
//! - It ends when the operation is as old as a pending operation may be.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use shared::store::OtherHosts;

/// How far the clocks of hosts may be apart, what is known of that being considered.
const CLOCKS: TimeDelta = TimeDelta::seconds(60);

/// How long such operations wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// At least, with PostgreSQL up.
    pub least: Duration,
    /// Beyond that, until they are so old at the most.
    pub most: Duration,
}

/// An operation whose entity is not there.
#[derive(Clone, Copy, Debug)]
pub struct Missing {
    /// When it was accepted, by PostgreSQL's clock.
    pub accepted_at: DateTime<Utc>,
    /// How long ago it was queued.
    pub queued_for: Duration,
    /// For how long of that PostgreSQL has been up in all: a line that breaks every few minutes must not
    /// make it wait for ever.
    pub up_for: Duration,
}

/// True if the entity will not come any more. `others` is what other hosts have said; `None` if that is
/// not known, and an unanswered question is no answer.
#[must_use]
pub fn is_gone(missing: &Missing, patience: Patience, others: Option<OtherHosts>) -> bool {
    let has_waited = missing.queued_for.min(missing.up_for) >= patience.least;
    let nobody_holds_it = || others.is_some_and(|others| !may_hold_older(others, missing));
    has_waited && (missing.queued_for >= patience.most || nobody_holds_it())
}

/// Whether another host may have something pending that is older. One that has not been heard of since
/// may have, whatever it said before.
fn may_hold_older(others: OtherHosts, missing: &Missing) -> bool {
    let is_older = |at: Option<DateTime<Utc>>| {
        at.is_some_and(|at| at.signed_duration_since(missing.accepted_at) <= CLOCKS)
    };
    is_older(others.least_heartbeat_at) || is_older(others.oldest_pending_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { least: Duration::from_secs(300), most: Duration::from_secs(86_400) };

    fn missing(queued_for: u64, up_for: u64) -> Missing {
        Missing {
            accepted_at: DateTime::UNIX_EPOCH,
            queued_for: Duration::from_secs(queued_for),
            up_for: Duration::from_secs(up_for),
        }
    }

    /// Seconds after the operation was accepted.
    fn after(seconds: i64) -> Option<DateTime<Utc>> {
        Some(DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds))
    }

    fn others(heartbeat: i64, pending: Option<i64>) -> Option<OtherHosts> {
        let oldest_pending_at = pending.and_then(after);
        Some(OtherHosts { least_heartbeat_at: after(heartbeat), oldest_pending_at })
    }

    #[test]
    fn nothing_is_gone_before_postgresql_was_up_for_long_enough() {
        let nobody = Some(OtherHosts::default());
        for (queued_for, up_for, gone) in
            [(299, 86_000, false), (86_000, 299, false), (300, 300, true), (200_000, 299, false)]
        {
            let missing = missing(queued_for, up_for);
            assert_eq!(is_gone(&missing, PATIENCE, nobody), gone, "{missing:?}");
        }
    }

    #[test]
    fn nothing_is_gone_while_another_host_may_hold_something_older() {
        for (others, gone) in [
            (Some(OtherHosts::default()), true),
            (None, false),
            (others(61, None), true),
            (others(60, None), false),
            (others(-3600, None), false),
            (others(61, Some(61)), true),
            (others(400, Some(60)), false),
            (others(400, Some(-5)), false),
        ] {
            assert_eq!(is_gone(&missing(400, 400), PATIENCE, others), gone, "{others:?}");
            assert!(is_gone(&missing(86_400, 400), PATIENCE, others), "{others:?}");
        }
    }
}
