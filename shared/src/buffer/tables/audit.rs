//! The audit log of the file: what operators did, and who it was, without payloads. An entry is
//! written in the transaction of the act.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Tables, keys_before};
use crate::buffer::error::BufferError;
use crate::buffer::format::layout::Whereabouts;
use crate::buffer::format::record::Header;
use crate::domain::{Operation, Version};

/// What an operator did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActKind {
    /// Put a dead letter back among the pending operations.
    Retry,
    /// Dropped a dead letter.
    Discard,
    /// Stopped replay.
    Pause,
    /// Let replay go on.
    Resume,
    /// Sealed everything with the newest key.
    Rekey,
    /// Erased an operation of a user, with its payload.
    Erase,
    /// Had the file made anew from its records.
    Repair,
    /// Took operations in that were written out before.
    Import,
}

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// When (Unix milliseconds).
    pub at: i64,
    /// Who: a user's id, or the account that ran the command.
    pub by: String,
    /// What.
    pub kind: ActKind,
    /// To which operation, without its payload.
    pub operation: Option<ActedOn>,
}

/// The operation an operator acted on, without its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActedOn {
    /// The operation's id.
    pub id: Uuid,
    /// Whose it was.
    pub user_id: Uuid,
    /// `task`, `profile`, `session` or `cache`.
    pub entity: String,
    /// Of which entity.
    pub entity_id: Uuid,
    /// What it would have done.
    pub action: String,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// Why it was a dead letter.
    pub reason: String,
}

impl ActedOn {
    /// What is known of an operation that could be read.
    pub(in crate::buffer) fn read(operation: &Operation, reason: &str) -> Self {
        let lane = operation.lane();
        Self {
            id: operation.id.as_uuid(),
            user_id: operation.actor.user_id,
            entity: lane.kind.as_str().to_owned(),
            entity_id: lane.id,
            action: operation.action().as_str().to_owned(),
            accepted_at: operation.accepted_at,
            reason: reason.to_owned(),
        }
    }

    /// What is known of an operation of which the header alone could be read.
    pub(in crate::buffer) fn unread(header: &Header, reason: &str) -> Self {
        Self {
            id: header.id.as_uuid(),
            user_id: header.user_id,
            entity: header.lane.kind.as_str().to_owned(),
            entity_id: header.lane.id,
            action: "unknown".to_owned(),
            accepted_at: DateTime::from_timestamp_millis(header.queued_at).unwrap_or_default(),
            reason: reason.to_owned(),
        }
    }
}

/// Writes an entry of the audit log, and a line of the process's log.
pub(in crate::buffer) fn note(
    tables: &mut Tables<'_>,
    at: i64,
    by: &str,
    kind: ActKind,
    operation: Option<ActedOn>,
) -> Result<(), BufferError> {
    let id = operation.as_ref().map_or_else(Uuid::now_v7, |operation| operation.id);
    tracing::warn!(by, act = ?kind, operation_id = ?operation.as_ref().map(|o| o.id), "an operator acted");
    let act = Act { at, by: by.to_owned(), kind, operation };
    tables.audit.open()?.insert((at, id.as_u128()), json(&act)?.as_slice())?;
    Ok(())
}

pub(in crate::buffer) fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, BufferError> {
    serde_json::to_vec(value)
        .map_err(|_| BufferError::Unavailable("an act cannot be encoded".to_owned()))
}

/// Removes entries of the audit log from before `cutoff` (Unix milliseconds), `limit` at the most,
/// and what they say of discarded operations. Returns how many there were.
pub(in crate::buffer) fn purge_audit(
    tables: &mut Tables<'_>,
    cutoff: i64,
    limit: usize,
) -> Result<usize, redb::Error> {
    let keys = keys_before(tables.audit.open()?, cutoff, limit)?;
    for (at, id) in &keys {
        tables.audit.open()?.remove((*at, *id))?;
        let place = tables.find(Version::from_uuid(Uuid::from_u128(*id)))?;
        if place == Some(Whereabouts::Discarded(*at)) {
            tables.ids.open()?.remove(*id)?;
        }
    }
    Ok(keys.len())
}
