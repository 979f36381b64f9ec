//! What an operator may see and do: pending operations and dead letters page by page, retry and
//! discard of dead letters, pause and resume of replay. Every act is written to the audit log of the
//! file, in the same transaction, with who did it.

use std::ops::Bound;

use chrono::{DateTime, Utc};
use redb::{ReadTransaction, ReadableTable};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::drain::Entry;
use super::layout::{AUDIT, DEAD, DEAD_COUNT, LANES, Place, RECORDS, USERS, decode_dead};
use super::record::{self, Header};
use super::tables::Tables;
use super::{Buffer, BufferError, unix_millis};
use crate::domain::{Action, Lane, Operation, OperationState, Priority, Version};

/// The name in `status` under which a pause is kept.
const PAUSED: &str = "paused";
/// Records that one page looks at in search of matching ones.
const LOOK_AT: usize = 10_000;

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

/// A part of a list, and where the next part begins.
#[derive(Clone, Debug)]
pub struct Page<T, C> {
    /// The entries.
    pub items: Vec<T>,
    /// Where to go on; `None` at the end. A page may be short, or empty, and yet have a next one:
    /// each looks at a limited number of records.
    pub next: Option<C>,
}

/// Which pending operations are asked for. What is `None` matches all.
#[derive(Clone, Copy, Debug, Default)]
pub struct PendingFilter {
    /// Of this user.
    pub user_id: Option<Uuid>,
    /// Of this entity.
    pub lane: Option<Lane>,
    /// Of this priority.
    pub priority: Option<Priority>,
    /// Of this kind of change.
    pub action: Option<Action>,
}

/// Which dead letters are asked for. What is `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct DeadFilter {
    /// Of this user.
    pub user_id: Option<Uuid>,
    /// In this state: rejected or expired.
    pub state: Option<OperationState>,
    /// With this reason.
    pub reason: Option<String>,
}

/// A dead letter in a list.
#[derive(Clone, Debug)]
pub struct DeadEntry {
    /// When replay gave up (Unix milliseconds).
    pub died_at: i64,
    /// Attempts used up.
    pub attempts: u32,
    /// `Rejected` or `Expired`.
    pub state: OperationState,
    /// Why.
    pub reason: String,
    /// The operation.
    pub operation: Operation,
}

impl Buffer {
    /// Pending operations that match, in order of acceptance, from `after` on.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn pending_page(
        &self,
        filter: PendingFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Page<Entry, u64>, BufferError> {
        self.read(move |transaction| pending_page(transaction, filter, after, limit)).await
    }

    /// Dead letters that match, oldest death first, from `after` on.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn dead_page(
        &self,
        filter: DeadFilter,
        after: Option<(i64, Version)>,
        limit: usize,
    ) -> Result<Page<DeadEntry, (i64, Version)>, BufferError> {
        self.read(move |transaction| dead_page(transaction, &filter, after, limit)).await
    }

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

fn pending_page(
    transaction: &ReadTransaction,
    filter: PendingFilter,
    after: Option<u64>,
    limit: usize,
) -> Result<Page<Entry, u64>, redb::Error> {
    let records = transaction.open_table(RECORDS)?;
    let first = after.map_or(0, |after| after.saturating_add(1));
    let mut page = Page { items: Vec::new(), next: None };
    // By the narrowest index there is; each yields places in order of acceptance.
    let (lanes, users) = (transaction.open_table(LANES)?, transaction.open_table(USERS)?);
    let places: Box<dyn Iterator<Item = Result<u64, redb::StorageError>>> =
        match (filter.lane, filter.user_id) {
            (Some(lane), _) => {
                let key = record::lane_bytes(lane);
                let range = lanes.range((&key, first)..=(&key, u64::MAX))?;
                Box::new(range.map(|entry| entry.map(|(key, _)| key.value().1)))
            }
            (None, Some(user)) => {
                let user = user.as_u128();
                let range = users.range((user, first)..=(user, u64::MAX))?;
                Box::new(range.map(|entry| entry.map(|(key, _)| key.value().1)))
            }
            (None, None) => {
                Box::new(records.range(first..)?.map(|entry| entry.map(|(key, _)| key.value())))
            }
        };
    for (looked_at, place) in places.enumerate() {
        let place = place?;
        if page.items.len() == limit || looked_at == LOOK_AT {
            page.next = Some(place.saturating_sub(1));
            break;
        }
        let Some(bytes) = records.get(place)? else { continue };
        let Ok((header, operation)) = record::decode(place, bytes.value()) else { continue };
        let matches = filter.user_id.is_none_or(|user| user == header.user_id)
            && filter.lane.is_none_or(|lane| lane == header.lane)
            && filter.priority.is_none_or(|priority| priority == header.priority)
            && filter.action.is_none_or(|action| action == operation.action());
        if matches {
            page.items.push(Entry::new(place, &header, operation));
        }
    }
    Ok(page)
}

fn dead_page(
    transaction: &ReadTransaction,
    filter: &DeadFilter,
    after: Option<(i64, Version)>,
    limit: usize,
) -> Result<Page<DeadEntry, (i64, Version)>, redb::Error> {
    let dead = transaction.open_table(DEAD)?;
    let mut page = Page { items: Vec::new(), next: None };
    let start =
        after.map_or(Bound::Unbounded, |(at, id)| Bound::Excluded((at, id.as_uuid().as_u128())));
    let mut last = after;
    for (looked_at, entry) in dead.range((start, Bound::Unbounded))?.enumerate() {
        let (key, bytes) = entry?;
        if page.items.len() == limit || looked_at == LOOK_AT {
            page.next = last;
            break;
        }
        let (died_at, id) = key.value();
        last = Some((died_at, Version::from_uuid(Uuid::from_u128(id))));
        let Ok((certificate, bytes)) = decode_dead(bytes.value()) else { continue };
        let Ok((header, operation)) = record::decode(certificate.place, bytes) else { continue };
        let matches = filter.user_id.is_none_or(|user| user == header.user_id)
            && filter.state.is_none_or(|state| state == certificate.state)
            && filter.reason.as_ref().is_none_or(|reason| *reason == certificate.reason);
        if matches {
            page.items.push(DeadEntry {
                died_at,
                attempts: header.attempts,
                state: certificate.state,
                reason: certificate.reason,
                operation,
            });
        }
    }
    Ok(page)
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
