//! What an operator may do: retry and discard of dead letters, pause and resume of replay. Every act is
//! written to the audit log of the file, in the same transaction, with who did it.

use chrono::{DateTime, Utc};
use redb::ReadableTable;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::layout::{AUDIT, DEAD_COUNT, Place, decode_dead};
use super::record::{self, Header};
use super::tables::Tables;
use super::{Buffer, BufferError, unix_millis};
use crate::domain::Version;

/// The name in `status` under which a pause is kept.
const PAUSED: &str = "paused";

/// Why an operator's wish was not carried out; nothing was changed.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// The buffer does not know the operation.
    #[error("there is no such operation in this buffer")]
    NotFound,
    /// The operation is no dead letter: it is pending.
    #[error("the operation is pending, and no dead letter")]
    Pending,
    /// The operation's record cannot be read.
    #[error("the operation's record is damaged and lies in quarantine")]
    Quarantined,
    /// An operator has discarded it before.
    #[error("the operation has been discarded already")]
    AlreadyDiscarded,
    /// Replay is paused.
    #[error("replay is paused already")]
    AlreadyPaused,
    /// Replay is not paused.
    #[error("replay is not paused")]
    NotPaused,
    /// The file cannot be used.
    #[error(transparent)]
    Buffer(#[from] BufferError),
}

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
    /// `task` or `profile`.
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

/// That replay is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Since when (Unix milliseconds).
    pub since: i64,
    /// Who paused it.
    pub by: String,
}

impl Buffer {
    /// Puts a dead letter back, at the end of its lane, with all its attempts.
    ///
    /// # Errors
    /// If it is no dead letter, or the file cannot be written.
    pub async fn retry_dead(&self, id: Version, by: &str) -> Result<(), OperatorError> {
        let by = by.to_owned();
        self.write(move |tables, _| {
            let now = unix_millis();
            let (record, acted_on) = match take_dead(tables, id)? {
                Ok(taken) => taken,
                Err(refused) => return Ok(Err(refused)),
            };
            let header = Header { attempts: 0, not_before: 0, queued_at: now, ..record.header };
            tables.append(&header, &record.payload)?;
            note(tables, now, &by, ActKind::Retry, Some(acted_on))?;
            Ok(Ok(()))
        })
        .await?
    }

    /// Drops a dead letter for good. The audit log keeps what it was, without its payload.
    ///
    /// # Errors
    /// If it is no dead letter, or the file cannot be written.
    pub async fn discard_dead(&self, id: Version, by: &str) -> Result<(), OperatorError> {
        let by = by.to_owned();
        self.write(move |tables, _| {
            let now = unix_millis();
            let (_, acted_on) = match take_dead(tables, id)? {
                Ok(taken) => taken,
                Err(refused) => return Ok(Err(refused)),
            };
            tables.places.insert(id.as_uuid().as_u128(), Place::Discarded(now).encode())?;
            note(tables, now, &by, ActKind::Discard, Some(acted_on))?;
            Ok(Ok(()))
        })
        .await?
    }

    /// Stops replay until it is resumed, across restarts.
    ///
    /// # Errors
    /// If it is paused already, or the file cannot be written.
    pub async fn pause(&self, by: &str) -> Result<(), OperatorError> {
        let by = by.to_owned();
        self.write(move |tables, _| {
            if tables.status.get(PAUSED)?.is_some() {
                return Ok(Err(OperatorError::AlreadyPaused));
            }
            let paused = Paused { since: unix_millis(), by: by.clone() };
            tables.publish(PAUSED, &json(&paused)?)?;
            note(tables, paused.since, &by, ActKind::Pause, None)?;
            Ok(Ok(()))
        })
        .await?
    }

    /// Lets replay go on.
    ///
    /// # Errors
    /// If it is not paused, or the file cannot be written.
    pub async fn resume(&self, by: &str) -> Result<(), OperatorError> {
        let by = by.to_owned();
        self.write(move |tables, _| {
            if tables.status.remove(PAUSED)?.is_none() {
                return Ok(Err(OperatorError::NotPaused));
            }
            note(tables, unix_millis(), &by, ActKind::Resume, None)?;
            Ok(Ok(()))
        })
        .await?
    }

    /// Whether replay is paused, since when and by whom.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn paused(&self) -> Result<Option<Paused>, BufferError> {
        self.published(PAUSED).await
    }

    /// The latest entries of the audit log, newest first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn audit(&self, limit: usize) -> Result<Vec<Act>, BufferError> {
        self.read(move |transaction| {
            let audit = transaction.open_table(AUDIT)?;
            let mut acts = Vec::new();
            for entry in audit.iter()?.rev().take(limit) {
                acts.extend(serde_json::from_slice::<Act>(entry?.1.value()).ok());
            }
            Ok(acts)
        })
        .await
    }
}

/// A record taken out of the dead letters.
struct Taken {
    header: Header,
    payload: Vec<u8>,
}

/// Takes a dead letter out; the inner error says why that cannot be.
fn take_dead(
    tables: &mut Tables<'_>,
    id: Version,
) -> Result<Result<(Taken, ActedOn), OperatorError>, BufferError> {
    let died_at = match tables.place(id)? {
        Some(Place::Dead(at)) => at,
        Some(Place::Pending(_)) => return Ok(Err(OperatorError::Pending)),
        Some(Place::Quarantined(_)) => return Ok(Err(OperatorError::Quarantined)),
        Some(Place::Discarded(_)) => return Ok(Err(OperatorError::AlreadyDiscarded)),
        None => return Ok(Err(OperatorError::NotFound)),
    };
    let key = (died_at, id.as_uuid().as_u128());
    let Some(bytes) = tables.dead.get(key)?.map(|bytes| bytes.value().to_vec()) else {
        return Ok(Err(OperatorError::NotFound));
    };
    let read = decode_dead(&bytes).and_then(|(certificate, bytes)| {
        let (header, operation) = record::decode(certificate.place, bytes)?;
        Ok((certificate, header, record::payload_of(bytes).to_vec(), operation))
    });
    let Ok((certificate, header, payload, operation)) = read else {
        return Ok(Err(OperatorError::Quarantined));
    };
    tables.dead.remove(key)?;
    tables.places.remove(key.1)?;
    tables.add(DEAD_COUNT, -1)?;
    let lane = operation.lane();
    let acted_on = ActedOn {
        id: id.as_uuid(),
        user_id: operation.actor.user_id,
        entity: lane.kind.as_str().to_owned(),
        entity_id: lane.id,
        action: operation.action().as_str().to_owned(),
        accepted_at: operation.accepted_at,
        reason: certificate.reason,
    };
    Ok(Ok((Taken { header, payload }, acted_on)))
}

/// Writes an entry of the audit log, and a line of the process's log.
fn note(
    tables: &mut Tables<'_>,
    at: i64,
    by: &str,
    kind: ActKind,
    operation: Option<ActedOn>,
) -> Result<(), BufferError> {
    let id = operation.as_ref().map_or_else(Uuid::now_v7, |operation| operation.id);
    tracing::warn!(by, act = ?kind, operation_id = ?operation.as_ref().map(|o| o.id), "an operator acted");
    let act = Act { at, by: by.to_owned(), kind, operation };
    tables.audit.insert((at, id.as_u128()), json(&act)?.as_slice())?;
    Ok(())
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, BufferError> {
    serde_json::to_vec(value)
        .map_err(|_| BufferError::Unavailable("an act cannot be encoded".to_owned()))
}

/// Removes entries of the audit log from before `cutoff` (Unix milliseconds), `limit` at the most,
/// and what they say of discarded operations. Returns how many there were.
pub(super) fn purge_audit(
    tables: &mut Tables<'_>,
    cutoff: i64,
    limit: usize,
) -> Result<usize, redb::Error> {
    let keys: Vec<(i64, u128)> = tables
        .audit
        .range(..(cutoff, 0))?
        .take(limit)
        .map(|entry| entry.map(|(key, _)| key.value()))
        .collect::<Result<_, _>>()?;
    for (at, id) in &keys {
        tables.audit.remove((*at, *id))?;
        let place = tables.place(Version::from_uuid(Uuid::from_u128(*id)))?;
        if place == Some(Place::Discarded(*at)) {
            tables.places.remove(*id)?;
        }
    }
    Ok(keys.len())
}
