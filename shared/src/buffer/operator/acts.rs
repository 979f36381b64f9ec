//! What an operator may do: retry and discard of dead letters, retry of what can be read again, pause
//! and resume of replay. Every act is written to the audit log (`audit`), with who did it.

use std::sync::Arc;

use redb::ReadableTable;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::commit::job::{OnFullDisk, Room};
use crate::buffer::error::BufferError;
use crate::buffer::format::keys::Keys;
use crate::buffer::format::layout::{DEAD_COUNT, QUARANTINED, Whereabouts, decode_dead};
use crate::buffer::format::record::{self, Header, unix_millis};
use crate::buffer::tables::Tables;
use crate::buffer::tables::audit::{ActKind, ActedOn, json, note};
use crate::buffer::tables::intake::Intake;
use crate::domain::{Operation, Tries, Version};

/// The name in `status` under which a pause is kept.
const PAUSED: &str = "paused";

/// Why an operator's wish was not carried out; nothing was changed, unless the buffer does not know.
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

/// That replay is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Since when (Unix milliseconds).
    pub since: i64,
    /// Who paused it.
    pub by: String,
}

impl Buffer {
    /// Puts a dead letter back, at the end of its lane, with all its attempts; or a quarantined
    /// operation whose record can be read by now.
    ///
    /// # Errors
    /// If it is neither, or the file cannot be written.
    pub async fn retry_dead(&self, id: Version, by: &str) -> Result<(), OperatorError> {
        let (by, keys) = (by.to_owned(), Arc::clone(&self.keys));
        let retry = move |intake: &mut Intake<'_>, _: &Room| {
            let (now, tables) = (unix_millis(), intake.checkpoint()?);
            let Taken { header, operation, acted_on } = match take_back(tables, id, &keys)? {
                Ok(taken) => taken,
                Err(refused) => return Ok(Err(refused)),
            };
            let header =
                Header { tries: Tries::default(), not_before: 0, queued_at: now, ..header };
            note(tables, now, &by, ActKind::Retry, Some(acted_on))?;
            // Sealed anew: what it was sealed with may be on its way out.
            intake.append(&header, &record::encode_payload(&operation, &keys)?);
            Ok(Ok(()))
        };
        self.take_in(retry, OnFullDisk::MakeRoom).await?
    }

    /// Drops a dead letter for good. The audit log keeps what it was, without its payload.
    ///
    /// # Errors
    /// If it is no dead letter, or the file cannot be written.
    pub async fn discard_dead(&self, id: Version, by: &str) -> Result<(), OperatorError> {
        let (by, keys) = (by.to_owned(), Arc::clone(&self.keys));
        self.write(move |tables, _| {
            let now = unix_millis();
            let acted_on = match take_dead(tables, id, &keys)? {
                Ok(taken) => taken.acted_on,
                Err(refused) => return Ok(Err(refused)),
            };
            tables
                .ids
                .open()?
                .insert(id.as_uuid().as_u128(), Whereabouts::Discarded(now).encode())?;
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
            if tables.status.open()?.get(PAUSED)?.is_some() {
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
            if tables.status.open()?.remove(PAUSED)?.is_none() {
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
}

/// An operation taken out from where it was set aside.
struct Taken {
    header: Header,
    operation: Operation,
    acted_on: ActedOn,
}

/// Takes a dead letter out, or a quarantined operation whose record can be read by now (its key is
/// back); the inner error says why that cannot be.
fn take_back(
    tables: &mut Tables<'_>,
    id: Version,
    keys: &Keys,
) -> Result<Result<Taken, OperatorError>, BufferError> {
    let Some(Whereabouts::Quarantined(place)) = tables.find(id)? else {
        return take_dead(tables, id, keys);
    };
    let read = tables
        .quarantine
        .open()?
        .get(place)?
        .map(|bytes| record::decode(place, bytes.value(), keys));
    let Some(Ok((header, operation))) = read else {
        return Ok(Err(OperatorError::Quarantined));
    };
    tables.quarantine.open()?.remove(place)?;
    tables.ids.open()?.remove(id.as_uuid().as_u128())?;
    tables.totals.add(QUARANTINED, -1)?;
    let acted_on = ActedOn::read(&operation, "quarantined");
    Ok(Ok(Taken { header, operation, acted_on }))
}

/// Takes a dead letter out; the inner error says why that cannot be.
fn take_dead(
    tables: &mut Tables<'_>,
    id: Version,
    keys: &Keys,
) -> Result<Result<Taken, OperatorError>, BufferError> {
    let died_at = match tables.find(id)? {
        Some(Whereabouts::Dead(at)) => at,
        Some(Whereabouts::Pending(_)) => return Ok(Err(OperatorError::Pending)),
        Some(Whereabouts::Quarantined(_)) => return Ok(Err(OperatorError::Quarantined)),
        Some(Whereabouts::Discarded(_)) => return Ok(Err(OperatorError::AlreadyDiscarded)),
        None => return Ok(Err(OperatorError::NotFound)),
    };
    let key = (died_at, id.as_uuid().as_u128());
    let Some(bytes) = tables.dead.open()?.get(key)?.map(|bytes| bytes.value().to_vec()) else {
        return Ok(Err(OperatorError::NotFound));
    };
    let read = decode_dead(&bytes).and_then(|(certificate, bytes)| {
        Ok((record::decode(certificate.place, bytes, keys)?, certificate))
    });
    let Ok(((header, operation), certificate)) = read else {
        return Ok(Err(OperatorError::Quarantined));
    };
    tables.dead.open()?.remove(key)?;
    tables.ids.open()?.remove(key.1)?;
    tables.totals.add(DEAD_COUNT, -1)?;
    let acted_on = ActedOn::read(&operation, &certificate.reason);
    Ok(Ok(Taken { header, operation, acted_on }))
}
