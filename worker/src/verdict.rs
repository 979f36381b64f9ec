//! Carries out what is to become of an operation after PostgreSQL has dealt with it: it leaves the
//! buffer, is tried again, or becomes a dead letter. [`shared::domain::judge`] decides which.

use std::time::Duration;

use shared::buffer::{Entry, Verdict, unix_millis};
use shared::domain::{Fate, Operation, Outcome, Refusal, RetryRules, Tries, judge};
use shared::store::Effect;

use crate::context::Context;
use crate::hosts;
use crate::metric;
use crate::settings::WorkerSettings;

/// What replay remembers of an entry that it has claimed, while PostgreSQL has the operation.
pub(crate) struct Claim {
    pub(crate) place: u64,
    pub(crate) tries: Tries,
    pub(crate) queued_at: i64,
}

impl Claim {
    pub(crate) fn of(entry: Entry) -> (Self, Operation) {
        let Entry { place, tries, queued_at, operation, .. } = entry;
        (Self { place, tries, queued_at }, operation)
    }
}

/// Takes note of what is to become of an operation, and tells the buffer's part of it; `None` if the
/// buffer leaves it as it is: it was held back, or has left with everything else of its user.
pub(crate) fn verdict(
    context: &Context,
    claim: &Claim,
    operation: &Operation,
    effect: &Effect,
) -> Option<Verdict> {
    let outcome = effect.outcome?;
    let may_come = match outcome {
        Outcome::Refused(refusal) if refusal.waits_for_others() => {
            !hosts::is_given_up(context, operation, claim.queued_at)
        }
        Outcome::Refused(_)
        | Outcome::Applied
        | Outcome::Merged
        | Outcome::Superseded
        | Outcome::Gone
        | Outcome::Duplicate => false,
    };
    let fate = judge(outcome, claim.tries, may_come, &rules(&context.settings));
    match fate {
        Fate::Awaits { .. } => context.hosts.waits(operation.lane()),
        Fate::Done | Fate::Retry { .. } | Fate::Dead { .. } | Fate::Erased => {
            context.hosts.goes_on(operation.lane());
        }
    }
    match fate {
        Fate::Done => Some(Verdict::Done),
        Fate::Erased => None,
        Fate::Retry { tries, not_before } | Fate::Awaits { tries, not_before } => {
            metrics::counter!(metric::REPLAY_OPERATIONS.name, "outcome" => "retried").increment(1);
            Some(Verdict::Retry { tries, not_before })
        }
        Fate::Dead { tries, refusal } => {
            metrics::counter!(metric::REPLAY_OPERATIONS.name, "outcome" => "rejected").increment(1);
            Some(give_up(operation, refusal, tries))
        }
    }
}

/// Tells people that an operation is given up.
pub(crate) fn give_up(operation: &Operation, refusal: Refusal, tries: Tries) -> Verdict {
    let reason = refusal.reason();
    tracing::error!(
        operation_id = %operation.id, lane = %operation.lane(), request_id = %operation.request_id,
        reason, "an operation was given up: it is a dead letter now"
    );
    metrics::counter!(metric::DEAD_LETTERS.name, "reason" => reason.clone()).increment(1);
    Verdict::Dead { tries, reason }
}

/// The rules of retrying, for one operation now.
fn rules(settings: &WorkerSettings) -> RetryRules {
    RetryRules {
        max_attempts: settings.max_retry_attempts,
        base: Duration::from_millis(settings.retry_base_ms),
        cap: Duration::from_millis(settings.retry_max_ms),
        random: random(),
        now: unix_millis(),
    }
}

/// Uniform in `[0, 1)`, from the randomness that hash maps are seeded with: jitter needs no better.
fn random() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(unix_millis()) >> 11) as f64 / (1_u64 << 53) as f64
}
