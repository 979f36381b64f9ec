//! Effects outside PostgreSQL: on sessions and the cache in Redis, and on what the buffer holds of
//! erased users. This file decides which changes have such an effect, and when. Other modules carry it
//! out.
//!
//! Effects in Redis come before PostgreSQL, which then writes just the ledger row. A crash in between
//! repeats the effect, which does no harm. Effects in the buffer come last, after PostgreSQL has
//! committed the erasure of a user.

use std::collections::BTreeSet;
use std::time::Duration;

use shared::buffer::{Entry, Settlement, Verdict, unix_millis};
use shared::domain::{
    CacheChange, Change, Lane, Operation, Outcome, Refusal, SessionChange, UserChange,
};
use shared::redis::RedisAway;
use shared::store::Effect;
use uuid::Uuid;

use crate::context::Context;
use crate::{erasure, sessions};

/// How long an operation waits for a Redis that is away.
const WAIT: Duration = Duration::from_secs(2);

/// Where a change takes effect besides PostgreSQL.
enum Outside {
    /// Nowhere.
    Nowhere,
    /// In Redis: a session ends.
    Session(Uuid),
    /// In Redis: the cache is emptied.
    Cache,
    /// In the buffer, after PostgreSQL: nothing of this user is kept.
    Buffer(Uuid),
}

impl Outside {
    fn of(change: &Change) -> Self {
        match change {
            Change::Session(SessionChange::Revoke { session_id }) => Self::Session(*session_id),
            Change::Cache(CacheChange::Invalidate) => Self::Cache,
            Change::User(UserChange::Erase { user_id }) => Self::Buffer(*user_id),
            Change::User(UserChange::SetStanding { .. }) | Change::Task(_) | Change::Profile(_) => {
                Self::Nowhere
            }
        }
    }
}

/// Does what the entries of a batch ask of Redis. Returns the entries that PostgreSQL is to see, and what
/// is to become of others: one waits, without using up an attempt, until Redis is there.
///
/// Of those that empty the cache only the oldest is carried out. The others are in neither list and come
/// again: whoever found one in the buffer counts on the next to be carried out later than that
/// ([`EntityCache::changed`]).
///
/// [`EntityCache::changed`]: shared::cache::EntityCache::changed
pub async fn before_postgres(
    context: &Context,
    entries: Vec<Entry>,
) -> (Vec<Entry>, Vec<Settlement>) {
    let (mut rest, mut settlements) = (Vec::new(), Vec::new());
    let (mut sessions_are_away, mut cache_had_its_turn) = (false, false);
    for entry in entries {
        let done = match Outside::of(&entry.operation.change) {
            Outside::Nowhere | Outside::Buffer(_) => Ok(None),
            Outside::Session(_) if sessions_are_away => Err(RedisAway),
            Outside::Session(id) => {
                let done = sessions::end(context, &entry, id).await;
                sessions_are_away = done.is_err();
                done
            }
            Outside::Cache if cache_had_its_turn => continue,
            Outside::Cache => {
                cache_had_its_turn = true;
                context.cache.empty().await.map(|()| None)
            }
        };
        match done.unwrap_or_else(|_| Some(wait_for_redis(&entry))) {
            None => rest.push(entry),
            Some(verdict) => settlements.push(Settlement { place: entry.place, verdict }),
        }
    }
    (rest, settlements)
}

/// An operation waits for Redis, without using up an attempt.
fn wait_for_redis(entry: &Entry) -> Verdict {
    let wait = i64::try_from(WAIT.as_millis()).unwrap_or(i64::MAX);
    let not_before = unix_millis().saturating_add(wait);
    Verdict::Retry { tries: entry.tries, not_before }
}

/// Empties the cache, as a damaged record may have asked for it, and takes those that do ask out of
/// `entries`: whoever finds two of them counts on their coming one after the other. False if neither Redis
/// nor the buffer takes it.
pub async fn after_damage(context: &Context, entries: &mut Vec<Entry>) -> bool {
    if context.cache.empty().await.is_err() && !context.cache.distrust(&context.buffer).await {
        return false;
    }
    entries.retain(|entry| entry.operation.lane() != Lane::CACHE);
    true
}

/// Does what operations, now that PostgreSQL has dealt with them, ask of the buffer. To be called before
/// they are settled there, so that a crash in between repeats it.
///
/// # Errors
/// If PostgreSQL or the buffer does not do it.
pub async fn after_postgres(
    context: &Context,
    operations: &[Operation],
    effects: &[Effect],
) -> anyhow::Result<()> {
    let pairs = operations.iter().zip(effects);
    let erased: BTreeSet<Uuid> =
        pairs.filter_map(|(operation, effect)| erased_user(operation, effect.outcome?)).collect();
    erasure::carry_out(context, &erased).await
}

/// The user whose erasure an operation has brought about, or has met.
fn erased_user(operation: &Operation, outcome: Outcome) -> Option<Uuid> {
    match outcome {
        Outcome::Refused(Refusal::Erased) => Some(operation.actor.user_id),
        Outcome::Refused(_) => None,
        Outcome::Applied
        | Outcome::Merged
        | Outcome::Superseded
        | Outcome::Gone
        | Outcome::Duplicate => match Outside::of(&operation.change) {
            Outside::Buffer(user_id) => Some(user_id),
            Outside::Nowhere | Outside::Session(_) | Outside::Cache => None,
        },
    }
}
