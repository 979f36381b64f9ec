//! Ending sessions in Redis, for users who logged out while it was away.
//!
//! That is done before the operation goes to PostgreSQL, where just its ledger row is left to write,
//! and as often as it takes: a session can be ended twice. With PostgreSQL away and Redis there,
//! sessions are ended all the same, and their operations stay in the buffer for their ledger rows.

use std::collections::HashSet;
use std::time::Duration;

use shared::buffer::{BufferError, Entry, Settlement, Verdict, unix_millis};
use shared::domain::{EntityKind, Refusal};
use shared::sessions::Revocation;

use crate::context::Context;
use crate::verdict::give_up;

/// How long an operation waits for a Redis that is away.
const WAIT: Duration = Duration::from_secs(2);
/// Sessions that are ended in one go at the most while PostgreSQL is away.
const LOOK: usize = 1000;

/// Ends the sessions that entries of a batch are about. Returns the entries that PostgreSQL is to
/// see, and what is to become of the others: one waits, without using up an attempt, until Redis is
/// there.
pub async fn end(context: &Context, entries: Vec<Entry>) -> (Vec<Entry>, Vec<Settlement>) {
    let (mut ended, mut settlements, mut away) = (Vec::new(), Vec::new(), false);
    for entry in entries {
        let lane = entry.operation.lane();
        if lane.kind != EntityKind::Session {
            ended.push(entry);
            continue;
        }
        let user_id = entry.operation.actor.user_id;
        let verdict = match away {
            false => match context.sessions.revoke(user_id, lane.id).await {
                Ok(Revocation::Revoked | Revocation::Absent) => None,
                Ok(Revocation::Foreign) => Some(give_up(
                    &entry.operation,
                    Refusal::NotOwner(lane.kind),
                    entry.tries.failed(),
                )),
                Err(_) => {
                    away = true;
                    Some(wait_for_redis(&entry))
                }
            },
            true => Some(wait_for_redis(&entry)),
        };
        match verdict {
            None => ended.push(entry),
            Some(verdict) => settlements.push(Settlement { place: entry.place, verdict }),
        }
    }
    (ended, settlements)
}

/// An operation waits for Redis, without using up an attempt.
pub(crate) fn wait_for_redis(entry: &Entry) -> Verdict {
    let wait = i64::try_from(WAIT.as_millis()).unwrap_or(i64::MAX);
    let not_before = unix_millis().saturating_add(wait);
    Verdict::Retry { tries: entry.tries, not_before }
}

/// Ends the sessions that wait in the buffer, while PostgreSQL is away. `ended` are the places of the
/// operations that were carried out before.
///
/// # Errors
/// If the buffer cannot be read.
pub async fn end_early(context: &Context, ended: &mut HashSet<u64>) -> Result<(), BufferError> {
    let waiting = context.buffer.heads(EntityKind::Session, ended.clone(), LOOK).await?;
    for (place, operation) in waiting {
        let user_id = operation.actor.user_id;
        if context.sessions.revoke(user_id, operation.lane().id).await.is_err() {
            break;
        }
        ended.insert(place);
    }
    Ok(())
}
