//! Ends sessions in Redis, for users who logged out while Redis was away.
//!
//! This comes before the operation goes to PostgreSQL, which then writes just its ledger row. It may
//! happen more than once: ending a session twice does no harm. If Redis is up and PostgreSQL is away,
//! sessions are ended all the same. Their operations stay in the buffer until PostgreSQL can write their
//! ledger rows.

use std::collections::HashSet;

use shared::buffer::{BufferError, Entry, Verdict};
use shared::domain::{EntityKind, Refusal};
use shared::redis::RedisAway;
use shared::sessions::Revocation;
use uuid::Uuid;

use crate::context::Context;
use crate::verdict::give_up;

/// Sessions that are ended in one go at the most while PostgreSQL is away.
const LOOK: usize = 1000;

/// Ends the session that an entry is about. Returns what is to become of the entry if PostgreSQL is not
/// to see it: the session is somebody else's.
///
/// # Errors
/// If Redis is away.
pub async fn end(
    context: &Context,
    entry: &Entry,
    session_id: Uuid,
) -> Result<Option<Verdict>, RedisAway> {
    let user_id = entry.operation.actor.user_id;
    match context.sessions.revoke(user_id, session_id).await? {
        Revocation::Revoked | Revocation::Absent => Ok(None),
        Revocation::Foreign => {
            let refusal = Refusal::NotOwner(EntityKind::Session);
            Ok(Some(give_up(&entry.operation, refusal, entry.tries.failed())))
        }
    }
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
