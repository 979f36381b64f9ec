//! What is to become of an operation that PostgreSQL has dealt with: it leaves the buffer, is tried again,
//! or becomes a dead letter.

use std::time::Duration;

use shared::buffer::{Entry, Tries, Verdict, unix_millis};
use shared::domain::{Operation, Outcome, Refusal, backoff};
use shared::store::Effect;

use crate::context::Context;
use crate::hosts;
use crate::metric;
use crate::settings::WorkerSettings;

/// The greatest span of the wait for what another host may bring: once that is there, the change of it
/// is to follow soon.
const MISSING_MAX_MS: u64 = 10_000;

/// What replay remembers of an entry while its operation is at the store.
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) tries: Tries,
    pub(crate) queued_at: i64,
}

impl Place {
    pub(crate) fn of(entry: Entry) -> (Self, Operation) {
        let Entry { place, tries, queued_at, operation, .. } = entry;
        (Self { seq: place, tries, queued_at }, operation)
    }
}

/// What is to become of an operation; `None` if it was held back and stays as it is.
pub(crate) fn judge(
    context: &Context,
    place: &Place,
    operation: &Operation,
    effect: &Effect,
) -> Option<Verdict> {
    let outcome = effect.outcome?;
    if let Outcome::Refused(refusal) = outcome
        && refusal.waits_for_others()
    {
        return Some(wait_or_give_up(context, place, operation, refusal));
    }
    context.hosts.goes_on(operation.lane());
    let Outcome::Refused(refusal) = outcome else { return Some(Verdict::Done) };
    if refusal == Refusal::Erased {
        // It has left the buffer with everything else of its user.
        return None;
    }
    let settings = &context.settings;
    let is_fault = refusal.uses_an_attempt();
    let tries = if is_fault { place.tries.failed() } else { place.tries };
    let may_retry = !is_fault || tries.attempts < settings.max_retry_attempts;
    if refusal.is_retried() && may_retry {
        metrics::counter!(metric::REPLAY_OPERATIONS.name, "outcome" => "retried").increment(1);
        let not_before = later(settings, tries.attempts.max(1), settings.retry_max_ms);
        return Some(Verdict::Retry { tries, not_before });
    }
    metrics::counter!(metric::REPLAY_OPERATIONS.name, "outcome" => "rejected").increment(1);
    Some(give_up(operation, refusal, tries))
}

/// What is to become of an operation whose entity, or the version of it that is asserted, is not there.
/// These waits are counted for the backoff.
fn wait_or_give_up(
    context: &Context,
    place: &Place,
    operation: &Operation,
    refusal: Refusal,
) -> Verdict {
    let (settings, tries) = (&context.settings, place.tries.waited());
    if hosts::is_given_up(context, operation, place.queued_at) {
        context.hosts.goes_on(operation.lane());
        metrics::counter!(metric::REPLAY_OPERATIONS.name, "outcome" => "rejected").increment(1);
        return give_up(operation, refusal, tries);
    }
    context.hosts.waits(operation.lane());
    metrics::counter!(metric::REPLAY_OPERATIONS.name, "outcome" => "retried").increment(1);
    let not_before =
        later(settings, u32::from(tries.waits), settings.retry_max_ms.min(MISSING_MAX_MS));
    Verdict::Retry { tries, not_before }
}

pub(crate) fn give_up(operation: &Operation, refusal: Refusal, tries: Tries) -> Verdict {
    let reason = refusal.reason();
    tracing::error!(
        operation_id = %operation.id, lane = %operation.lane(), request_id = %operation.request_id,
        reason, "an operation was given up: it is a dead letter now"
    );
    metrics::counter!(metric::DEAD_LETTERS.name, "reason" => reason.clone()).increment(1);
    Verdict::Dead { tries, reason }
}

/// When attempt number `attempts` may be followed by another (Unix milliseconds): `max_ms` is the
/// greatest span of the wait.
fn later(settings: &WorkerSettings, attempts: u32, max_ms: u64) -> i64 {
    let base = Duration::from_millis(settings.retry_base_ms);
    let cap = Duration::from_millis(max_ms);
    let wait = backoff(attempts, base, cap, random());
    unix_millis().saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
}

/// Uniform in `[0, 1)`, from the randomness that hash maps are seeded with: jitter needs no better.
fn random() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(unix_millis()) >> 11) as f64 / (1_u64 << 53) as f64
}
