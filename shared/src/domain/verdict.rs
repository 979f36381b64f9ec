//! What is to become of an operation that replay has brought to PostgreSQL.
//!
//! [`judge`] decides, and touches nothing. The worker carries the decision out, and the property tests
//! of lanes and conflicts replay by the same one.

use std::time::Duration;

use super::{Outcome, Refusal, Tries, backoff};

/// The greatest span of the wait for something that another host may bring: once it is there, the
/// operation is to follow soon.
const AWAITED_MAX: Duration = Duration::from_secs(10);

/// What is to become of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// PostgreSQL has it, or its ledger row: it leaves the buffer.
    Done,
    /// It is tried again: time may mend what was wrong.
    Retry {
        /// How often it was tried in vain, this time included.
        tries: Tries,
        /// When it may be tried again (Unix milliseconds).
        not_before: i64,
    },
    /// It is tried again: its entity, or the asserted version of it, is not there, and another host may
    /// still bring it.
    Awaits {
        /// How often it was tried in vain, this time included.
        tries: Tries,
        /// When it may be tried again (Unix milliseconds).
        not_before: i64,
    },
    /// It becomes a dead letter.
    Dead {
        /// How often it was tried in vain, this time included.
        tries: Tries,
        /// Why.
        refusal: Refusal,
    },
    /// Its user has been erased. The erasure takes it out of the buffer with everything else of the user.
    Erased,
}

/// The rules by which an operation is tried again.
#[derive(Clone, Copy, Debug)]
pub struct RetryRules {
    /// Attempts by its own fault after which an operation becomes a dead letter.
    pub max_attempts: u32,
    /// The span of the first wait before another attempt.
    pub base: Duration,
    /// The greatest span of such a wait.
    pub cap: Duration,
    /// Jitter: uniform in `[0, 1)`, drawn for each operation.
    pub random: f64,
    /// The wall clock (Unix milliseconds).
    pub now: i64,
}

impl RetryRules {
    /// When the try after number `number` (from 1) may come, if waits have this cap.
    fn later(&self, number: u32, cap: Duration) -> i64 {
        let wait = backoff(number, self.base, cap, self.random);
        self.now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
    }
}

/// What is to become of an operation that came to this outcome and had been tried `tries` times in vain
/// before. `may_come`: another host may still bring what [`Refusal::waits_for_others`] waits for. That
/// wait ends by time, so its tries serve the backoff alone and never use up the attempts.
#[must_use]
pub fn judge(outcome: Outcome, tries: Tries, may_come: bool, rules: &RetryRules) -> Fate {
    let refusal = match outcome {
        Outcome::Refused(refusal) => refusal,
        Outcome::Applied
        | Outcome::Merged
        | Outcome::Superseded
        | Outcome::Gone
        | Outcome::Duplicate => return Fate::Done,
    };
    if refusal == Refusal::Erased {
        return Fate::Erased;
    }
    if refusal.waits_for_others() {
        let tries = tries.waited();
        if !may_come {
            return Fate::Dead { tries, refusal };
        }
        let not_before = rules.later(u32::from(tries.waits), rules.cap.min(AWAITED_MAX));
        return Fate::Awaits { tries, not_before };
    }
    let is_fault = refusal.uses_an_attempt();
    let tries = if is_fault { tries.failed() } else { tries };
    let may_retry = !is_fault || tries.attempts < rules.max_attempts;
    if refusal.is_retried() && may_retry {
        let not_before = rules.later(tries.attempts.max(1), rules.cap);
        return Fate::Retry { tries, not_before };
    }
    Fate::Dead { tries, refusal }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EntityKind;

    const RULES: RetryRules = RetryRules {
        max_attempts: 3,
        base: Duration::from_secs(1),
        cap: Duration::from_secs(300),
        random: 1.0,
        now: 1_000_000,
    };

    fn tried(attempts: u32, waits: u8) -> Tries {
        Tries { attempts, waits }
    }

    fn refused(refusal: Refusal, tries: Tries, may_come: bool) -> Fate {
        judge(Outcome::Refused(refusal), tries, may_come, &RULES)
    }

    #[test]
    fn what_the_ledger_has_leaves_the_buffer_however_often_it_was_tried() {
        for outcome in [
            Outcome::Applied,
            Outcome::Merged,
            Outcome::Superseded,
            Outcome::Gone,
            Outcome::Duplicate,
        ] {
            assert_eq!(judge(outcome, tried(9, 9), false, &RULES), Fate::Done, "{outcome:?}");
        }
    }

    #[test]
    fn i7_faults_use_up_the_attempts_and_locks_do_not() {
        let fault = Refusal::Internal(*b"XX000");
        let retry = |tries, not_before| Fate::Retry { tries, not_before };
        assert_eq!(refused(fault, tried(0, 7), true), retry(tried(1, 7), 1_001_000));
        assert_eq!(refused(fault, tried(1, 0), true), retry(tried(2, 0), 1_002_000));
        let dead = Fate::Dead { tries: tried(3, 0), refusal: fault };
        assert_eq!(refused(fault, tried(2, 0), true), dead);
        let many = tried(u32::MAX, 0);
        assert_eq!(refused(Refusal::Busy, many, false), retry(many, 1_300_000));
        assert_eq!(refused(Refusal::Busy, tried(0, 0), false), retry(tried(0, 0), 1_001_000));
    }

    #[test]
    fn i9_what_another_host_may_bring_is_awaited_however_often_and_then_given_up_at_once() {
        for refusal in
            [Refusal::NotFound(EntityKind::Task), Refusal::VersionNotFound(EntityKind::Task)]
        {
            let awaits = |tries, not_before| Fate::Awaits { tries, not_before };
            assert_eq!(refused(refusal, tried(2, 0), true), awaits(tried(2, 1), 1_001_000));
            assert_eq!(refused(refusal, tried(9, 255), true), awaits(tried(9, 255), 1_010_000));
            let dead = Fate::Dead { tries: tried(0, 1), refusal };
            assert_eq!(refused(refusal, tried(0, 0), false), dead);
        }
    }

    #[test]
    fn refusals_that_time_does_not_mend_are_given_up_at_once_and_those_of_the_erased_left_alone() {
        for refusal in [
            Refusal::NotOwner(EntityKind::Task),
            Refusal::NotAllowed,
            Refusal::Suspended,
            Refusal::PreconditionFailed(EntityKind::Task),
            Refusal::Data(*b"22P02"),
        ] {
            let dead = Fate::Dead { tries: tried(1, 4), refusal };
            assert_eq!(refused(refusal, tried(0, 4), true), dead);
        }
        assert_eq!(refused(Refusal::Erased, tried(0, 0), true), Fate::Erased);
    }
}
