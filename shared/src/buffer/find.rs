//! Where one operation is, and what became of it as far as this host's buffer knows.

use std::sync::Arc;

use uuid::Uuid;

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::commit::job::{OnFullDisk, Room};
use crate::buffer::commit::snapshot::Snapshot;
use crate::buffer::error::BufferError;
use crate::buffer::format::keys::Keys;
use crate::buffer::format::layout::{AUDIT, DEAD, IDS, QUARANTINE, Whereabouts, decode_dead};
use crate::buffer::format::record::{self, Header};
use crate::buffer::tables::audit::Act;
use crate::buffer::tables::intake::Intake;
use crate::domain::{Lane, Operation, OperationState, Version};

/// Where an operation was found.
#[derive(Clone, Debug)]
pub enum Found {
    /// It is pending.
    Pending {
        /// The operation.
        operation: Operation,
        /// Attempts used up so far.
        attempts: u32,
        /// When it may be tried again (Unix milliseconds); `None`: at once.
        not_before: Option<i64>,
    },
    /// It is a dead letter.
    Dead(Letter),
    /// Its record cannot be read: it is set aside.
    Quarantined {
        /// Whose it is and of which entity, if at least that can be read.
        of: Option<(Uuid, Lane)>,
    },
    /// An operator has dropped it.
    Discarded(Act),
}

/// A dead letter.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The operation.
    pub operation: Operation,
    /// Attempts used up.
    pub attempts: u32,
    /// `Rejected` or `Expired`.
    pub state: OperationState,
    /// Why replay gave up.
    pub reason: String,
}

impl Buffer {
    /// Where an operation is, if this host's buffer knows it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn find(&self, id: Version) -> Result<Option<Found>, BufferError> {
        let keys = Arc::clone(&self.keys);
        self.read(move |snapshot| find(snapshot, id, &keys)).await
    }

    /// Whether an operation is pending and on the disk. What reads show may not be there yet.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn is_kept(&self, id: Version) -> Result<bool, BufferError> {
        let look = move |intake: &mut Intake<'_>, _: &Room| {
            Ok(matches!(intake.find(id)?, Some(Whereabouts::Pending(_))))
        };
        self.take_in(look, OnFullDisk::Refuse).await
    }
}

fn find(snapshot: &Snapshot, id: Version, keys: &Keys) -> Result<Option<Found>, redb::Error> {
    let key = id.as_uuid().as_u128();
    let indexed = snapshot.open_table(IDS)?.get(key)?.and_then(|p| Whereabouts::decode(p.value()));
    let whereabouts = match indexed {
        Some(known) => Some(known),
        None => snapshot.tail().place(key).map(Whereabouts::Pending),
    };
    match whereabouts {
        None => Ok(None),
        Some(Whereabouts::Quarantined(place)) => {
            let quarantine = snapshot.open_table(QUARANTINE)?;
            let record = quarantine.get(place)?;
            let bytes = record.as_ref().map_or::<&[u8], _>(&[], |record| record.value());
            Ok(Some(unreadable(place, bytes)))
        }
        Some(Whereabouts::Discarded(at)) => {
            let audit = snapshot.open_table(AUDIT)?;
            let act = audit.get((at, key))?;
            Ok(act.and_then(|act| serde_json::from_slice(act.value()).ok()).map(Found::Discarded))
        }
        Some(Whereabouts::Pending(place)) => {
            let record = snapshot.records()?.get(place)?;
            Ok(record.map(|record| match record::decode(place, &record, keys) {
                Ok((header, operation)) => Found::Pending {
                    operation,
                    attempts: header.tries.in_all(),
                    not_before: Some(header.not_before).filter(|at| *at > 0),
                },
                Err(_) => unreadable(place, &record),
            }))
        }
        Some(Whereabouts::Dead(at)) => {
            let dead = snapshot.open_table(DEAD)?;
            let letter = dead.get((at, key))?;
            Ok(letter.map(|bytes| {
                decode_dead(bytes.value())
                    .and_then(|(certificate, record)| {
                        let (header, operation) = record::decode(certificate.place, record, keys)?;
                        Ok(Found::Dead(Letter {
                            operation,
                            attempts: header.tries.in_all(),
                            state: certificate.state,
                            reason: certificate.reason,
                        }))
                    })
                    .unwrap_or(Found::Quarantined { of: None })
            }))
        }
    }
}

fn unreadable(place: u64, record: &[u8]) -> Found {
    let header = Header::decode(place, record).ok();
    Found::Quarantined { of: header.map(|header| (header.user_id, header.lane)) }
}
