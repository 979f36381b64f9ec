//! Looking into the buffer: what is pending for an entity or a user, what became of an operation,
//! how full it is, and what the worker has published.

use std::collections::HashSet;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::audit::Act;
use super::keys::Keys;
use super::layout::{
    AUDIT, BY_PRIORITY, BYTES, COUNTERS, DEAD, DEAD_COUNT, FORMAT_KEY, LANE_STATES, LANES,
    LaneState, PENDING, PLACES, Place, QUARANTINE, QUARANTINED, RECORDS, STATUS, USER_TOTALS,
    USERS, WAITING, decode_dead,
};
use super::record::{self, Header};
use super::snapshot::Snapshot;
use super::tail::{Group, Tail};
use super::{Buffer, BufferError, unix_millis};
use crate::domain::{EntityKind, Lane, Operation, OperationState, Version};

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

/// How full the buffer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Pending operations.
    pub pending: u64,
    /// Pending operations by their own priority, from 1.
    pub by_priority: [u64; 5],
    /// Bytes of pending operations.
    pub bytes: u64,
    /// Dead letters.
    pub dead: u64,
    /// Records that cannot be read.
    pub quarantined: u64,
    /// Lanes whose head waits for another attempt.
    pub waiting_lanes: u64,
    /// When the oldest pending operation was queued (Unix milliseconds).
    pub oldest_queued_at: Option<i64>,
}

impl Stats {
    /// Shows them as metrics.
    pub fn record(&self) {
        let gauge = |state: &'static str, count: u64| {
            metrics::gauge!("buffer_operations", "state" => state).set(count as f64);
        };
        gauge("pending", self.pending);
        gauge("dead", self.dead);
        gauge("quarantined", self.quarantined);
        metrics::gauge!("buffer_bytes").set(self.bytes as f64);
        let age = self.oldest_queued_at.map_or(0, |at| unix_millis().saturating_sub(at));
        metrics::gauge!("buffer_oldest_age_seconds").set(age as f64 / 1000.0);
    }
}

impl Buffer {
    /// Which of these lanes have pending operations.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn pending_lanes(&self, lanes: Vec<Lane>) -> Result<HashSet<Lane>, BufferError> {
        self.read(move |snapshot| {
            let states = snapshot.open_table(LANE_STATES)?;
            let mut pending: HashSet<Lane> = snapshot.tail(|tail| {
                let in_tail = |lane: &&Lane| tail.lane(&record::lane_bytes(**lane)).is_some();
                lanes.iter().filter(in_tail).copied().collect()
            })?;
            for lane in lanes {
                if states.get(&record::lane_bytes(lane))?.is_some() {
                    pending.insert(lane);
                }
            }
            Ok(pending)
        })
        .await
    }

    /// A lane's pending operations, oldest first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn lane(&self, lane: Lane) -> Result<Vec<Operation>, BufferError> {
        Ok(self.lanes(vec![lane]).await?.pop().unwrap_or_default())
    }

    /// The pending operations of each of these lanes, oldest first, in one look.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn lanes(&self, lanes: Vec<Lane>) -> Result<Vec<Vec<Operation>>, BufferError> {
        // The semaphore is never closed; if it were, there would be no limit, and no harm.
        let _turn = self.decoding.acquire().await;
        let keys = Arc::clone(&self.keys);
        self.read(move |snapshot| {
            let states = snapshot.open_table(LANE_STATES)?;
            let mut found = Vec::with_capacity(lanes.len());
            for lane in lanes {
                let key = record::lane_bytes(lane);
                let mut places = Vec::new();
                if states.get(&key)?.is_some() {
                    for entry in snapshot.open_table(LANES)?.range((&key, 0)..=(&key, u64::MAX))? {
                        places.push(entry?.0.value().1);
                    }
                }
                places.extend(snapshot.tail(|tail| places_of(tail.lane(&key)))?);
                found.push(operations_at(snapshot, &places, &keys)?);
            }
            Ok(found)
        })
        .await
    }

    /// The oldest pending operation of each entity of a kind, with its place: of `limit` entities at
    /// the most, those at the places in `known` left out.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn heads(
        &self,
        kind: EntityKind,
        known: HashSet<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Operation)>, BufferError> {
        let keys = Arc::clone(&self.keys);
        self.read(move |snapshot| {
            let states = snapshot.open_table(LANE_STATES)?;
            let records = snapshot.open_table(RECORDS)?;
            let bound = |id: Uuid| record::lane_bytes(Lane { kind, id });
            let (first, last) = (bound(Uuid::nil()), bound(Uuid::max()));
            let mut heads = Vec::new();
            let mut look = |place: u64| {
                if let Some(record) = records.get(place)?.filter(|_| !known.contains(&place))
                    && let Ok((_, operation)) = record::decode(place, record.value(), &keys)
                {
                    heads.push((place, operation));
                }
                Ok::<_, redb::Error>(heads.len() < limit)
            };
            for entry in states.range(&first..=&last)? {
                if !look(LaneState::decode(entry?.1.value()).head)? {
                    return Ok(heads);
                }
            }
            for (lane, place) in snapshot.tail(|tail| heads_of(tail, first[0]))? {
                if states.get(&lane)?.is_none() && !look(place)? {
                    break;
                }
            }
            Ok(heads)
        })
        .await
    }

    /// A user's pending operations, oldest first; there are at most `BUFFER_USER_SHARE`, of at
    /// most `BUFFER_USER_BYTES`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn of_user(&self, user_id: Uuid) -> Result<Vec<Operation>, BufferError> {
        // The semaphore is never closed; if it were, there would be no limit, and no harm.
        let _turn = self.decoding.acquire().await;
        let keys = Arc::clone(&self.keys);
        self.read(move |snapshot| {
            let user = user_id.as_u128();
            let mut places = Vec::new();
            if snapshot.open_table(USER_TOTALS)?.get(user)?.is_some() {
                for entry in snapshot.open_table(USERS)?.range((user, 0)..=(user, u64::MAX))? {
                    places.push(entry?.0.value().1);
                }
            }
            places.extend(snapshot.tail(|tail| places_of(tail.user(user)))?);
            operations_at(snapshot, &places, &keys)
        })
        .await
    }

    /// Where an operation is, if this host's buffer knows it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn find(&self, id: Version) -> Result<Option<Found>, BufferError> {
        let keys = Arc::clone(&self.keys);
        self.read(move |snapshot| find(snapshot, id, &keys)).await
    }

    /// How full the buffer is.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn stats(&self) -> Result<Stats, BufferError> {
        self.read(|snapshot| {
            let counters = snapshot.open_table(COUNTERS)?;
            let counter = |name: &str| -> Result<u64, redb::Error> {
                Ok(counters.get(name)?.map_or(0, |v| v.value()))
            };
            let oldest = snapshot.open_table(RECORDS)?.first()?.and_then(|(place, bytes)| {
                Header::decode(place.value(), bytes.value()).ok().map(|header| header.queued_at)
            });
            let mut by_priority = snapshot.tail(Tail::by_priority)?;
            for (count, name) in by_priority.iter_mut().zip(BY_PRIORITY) {
                *count += counter(name)?;
            }
            Ok(Stats {
                pending: counter(PENDING)?,
                by_priority,
                waiting_lanes: snapshot.open_table(WAITING)?.len()?,
                bytes: counter(BYTES)?,
                dead: counter(DEAD_COUNT)?,
                quarantined: counter(QUARANTINED)?,
                oldest_queued_at: oldest,
            })
        })
        .await
    }

    /// Publishes a value to all processes on the file, under a name.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn publish<T: Serialize>(
        &self,
        name: &'static str,
        value: &T,
    ) -> Result<(), BufferError> {
        let bytes = serde_json::to_vec(value)
            .map_err(|_| BufferError::Unavailable("a status cannot be encoded".to_owned()))?;
        self.write(move |tables, _| Ok(tables.publish(name, &bytes)?)).await
    }

    /// What was last published under a name. A value of another shape counts as none.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn published<T: DeserializeOwned + Send + 'static>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, BufferError> {
        self.read(move |snapshot| {
            let status = snapshot.open_table(STATUS)?;
            let bytes = status.get(name)?;
            Ok(bytes.and_then(|bytes| serde_json::from_slice(bytes.value()).ok()))
        })
        .await
    }
}

/// The file's format; `None` for one that has just been made.
pub(super) fn format(database: &Database) -> Result<Option<u64>, redb::Error> {
    match database.begin_read()?.open_table(COUNTERS) {
        Ok(counters) => Ok(counters.get(FORMAT_KEY)?.map(|value| value.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The places of a lane, or of a user, in the tail.
pub(super) fn places_of(group: Option<&Group>) -> Vec<u64> {
    group.map_or_else(Vec::new, |group| group.places.clone())
}

/// The lanes of a kind in the tail, each with the place of its first operation there.
fn heads_of(tail: &Tail, kind: u8) -> Vec<([u8; 17], u64)> {
    let of_kind = tail.lanes().filter(|(lane, _)| lane[0] == kind);
    of_kind.filter_map(|(lane, group)| Some((*lane, *group.places.first()?))).collect()
}

fn operations_at(
    snapshot: &Snapshot,
    places: &[u64],
    keys: &Keys,
) -> Result<Vec<Operation>, redb::Error> {
    let records = snapshot.open_table(RECORDS)?;
    let mut operations = Vec::with_capacity(places.len());
    for place in places {
        let place = *place;
        let Some(record) = records.get(place)? else { continue };
        // A damaged record is the worker's to set aside; here it is just not seen.
        if let Ok((_, operation)) = record::decode(place, record.value(), keys) {
            operations.push(operation);
        }
    }
    Ok(operations)
}

fn find(snapshot: &Snapshot, id: Version, keys: &Keys) -> Result<Option<Found>, redb::Error> {
    let key = id.as_uuid().as_u128();
    let indexed = snapshot.open_table(PLACES)?.get(key)?.and_then(|p| Place::decode(p.value()));
    let place = match indexed {
        Some(place) => Some(place),
        None => snapshot.tail(|tail| tail.place(key))?.map(Place::Pending),
    };
    match place {
        None => Ok(None),
        Some(Place::Quarantined(place)) => {
            let quarantine = snapshot.open_table(QUARANTINE)?;
            let record = quarantine.get(place)?;
            let bytes = record.as_ref().map_or::<&[u8], _>(&[], |record| record.value());
            Ok(Some(unreadable(place, bytes)))
        }
        Some(Place::Discarded(at)) => {
            let audit = snapshot.open_table(AUDIT)?;
            let act = audit.get((at, key))?;
            Ok(act.and_then(|act| serde_json::from_slice(act.value()).ok()).map(Found::Discarded))
        }
        Some(Place::Pending(place)) => {
            let records = snapshot.open_table(RECORDS)?;
            let record = records.get(place)?;
            Ok(record.map(|record| match record::decode(place, record.value(), keys) {
                Ok((header, operation)) => Found::Pending {
                    operation,
                    attempts: header.attempts,
                    not_before: Some(header.not_before).filter(|at| *at > 0),
                },
                Err(_) => unreadable(place, record.value()),
            }))
        }
        Some(Place::Dead(at)) => {
            let dead = snapshot.open_table(DEAD)?;
            let letter = dead.get((at, key))?;
            Ok(letter.map(|bytes| {
                decode_dead(bytes.value())
                    .and_then(|(certificate, record)| {
                        let (header, operation) = record::decode(certificate.place, record, keys)?;
                        Ok(Found::Dead(Letter {
                            operation,
                            attempts: header.attempts,
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
