//! Looking into the buffer: what is pending for an entity or a user, how full it is, and what the
//! worker has published.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use redb::{ReadableTableMetadata, StorageError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::commit::snapshot::{Records, Snapshot};
use crate::buffer::error::BufferError;
use crate::buffer::format::keys::Keys;
use crate::buffer::format::layout::{
    AHEAD, AHEAD_COUNT, BY_PRIORITY, BYTES, DEAD_COUNT, LANE_STATES, LaneState, PENDING,
    QUARANTINED, READY, STATUS, WAITING,
};
use crate::buffer::format::record::{self, Header, unix_millis};
use crate::buffer::tables::lane_end::LaneEnd;
use crate::buffer::wal::tail::Tail;
use crate::domain::{EntityKind, Lane, Operation, Version};
use crate::metric;

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
    /// Whether the tables have pending operations that replay would not find: the file is damaged, and
    /// not repaired yet.
    pub is_stuck: bool,
}

impl Stats {
    /// Shows them as metrics.
    pub fn record(&self) {
        let gauge = |state: &'static str, count: u64| {
            metrics::gauge!(metric::BUFFER_OPERATIONS.name, "state" => state).set(count as f64);
        };
        gauge("pending", self.pending);
        gauge("dead", self.dead);
        gauge("quarantined", self.quarantined);
        metrics::gauge!(metric::BUFFER_STUCK.name).set(if self.is_stuck { 1.0 } else { 0.0 });
        metrics::gauge!(metric::BUFFER_BYTES.name).set(self.bytes as f64);
        let age = self.oldest_queued_at.map_or(0, |at| unix_millis().saturating_sub(at));
        metrics::gauge!(metric::BUFFER_OLDEST_AGE.name).set(age as f64 / 1000.0);
    }
}

/// What has to be known of lanes before anything of them goes to PostgreSQL.
#[derive(Clone, Debug, Default)]
pub struct BeforeWriting {
    /// Those with pending operations.
    pub pending: HashSet<Lane>,
    /// The versions that the host remembers of those that are ahead of its clocks.
    pub ahead: HashMap<Lane, Version>,
}

/// A lane, to be checked before something is put behind it.
#[derive(Clone, Debug)]
pub struct WholeLane {
    /// The pending operations, oldest first.
    pub operations: Vec<Operation>,
    /// Where it ends.
    pub end: LaneEnd,
    /// The version that the host remembers of its entity, if that is ahead of its clocks.
    pub ahead: Option<Version>,
}

impl WholeLane {
    /// True if a client may have been given a version of the entity: not if it is from far ahead, and
    /// this host has never seen it.
    #[must_use]
    pub fn may_have_had(&self, asserted: Version) -> bool {
        asserted.is_credible(self.end.newest.max(self.ahead))
    }
}

/// What waits in a lane.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    /// How many operations, those included that cannot be read.
    pub number: usize,
    /// The operations, oldest first.
    pub operations: Vec<Operation>,
}

impl Buffer {
    /// What has to be known of these lanes before anything of them goes to PostgreSQL.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn before_writing(&self, lanes: Vec<Lane>) -> Result<BeforeWriting, BufferError> {
        self.read(move |snapshot| {
            let states = snapshot.open_table(LANE_STATES)?;
            let pending = {
                let tail = snapshot.tail();
                let in_tail = |lane: &&Lane| tail.lane(&record::lane_bytes(**lane)).is_some();
                lanes.iter().filter(in_tail).copied().collect()
            };
            let mut before = BeforeWriting { pending, ahead: HashMap::new() };
            for lane in &lanes {
                if states.get(&record::lane_bytes(*lane))?.is_some() {
                    before.pending.insert(*lane);
                }
            }
            let [some_are_ahead] = snapshot.counters([AHEAD_COUNT])?;
            for lane in lanes.into_iter().filter(|_| some_are_ahead > 0) {
                if let Some(version) = ahead_of(snapshot, lane)? {
                    before.ahead.insert(lane, version);
                }
            }
            Ok(before)
        })
        .await
    }

    /// A lane's pending operations, oldest first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn lane(&self, lane: Lane) -> Result<Vec<Operation>, BufferError> {
        Ok(self.lanes(vec![lane]).await?.pop().unwrap_or_default().operations)
    }

    /// A lane's pending operations, where it ends, and what else this host knows of its versions.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn lane_to_its_end(&self, lane: Lane) -> Result<WholeLane, BufferError> {
        // The semaphore is never closed; if it were, there would be no limit, and no harm.
        let _turn = self.decoding.acquire().await;
        let keys = Arc::clone(&self.keys);
        self.read(move |snapshot| {
            // The end first: what comes in between is then among the operations, and behind the end.
            let end = snapshot.lane_end(lane)?;
            let places = snapshot.places_of_lanes(&[lane])?.pop().unwrap_or_default();
            let records = snapshot.records()?;
            let operations = operations_at(&records, places.into_iter().map(Ok), &keys)?;
            Ok(WholeLane { operations, end, ahead: ahead_of(snapshot, lane)? })
        })
        .await
    }

    /// The pending operations of each of these lanes, oldest first, in one look.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn lanes(&self, lanes: Vec<Lane>) -> Result<Vec<Waiting>, BufferError> {
        // The semaphore is never closed; if it were, there would be no limit, and no harm.
        let _turn = self.decoding.acquire().await;
        let keys = Arc::clone(&self.keys);
        self.read(move |snapshot| {
            let records = snapshot.records()?;
            let read = |places: Vec<u64>| {
                let number = places.len();
                let operations = operations_at(&records, places.into_iter().map(Ok), &keys)?;
                Ok(Waiting { number, operations })
            };
            snapshot.places_of_lanes(&lanes)?.into_iter().map(read).collect()
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
            let records = snapshot.records()?;
            let bound = |id: Uuid| record::lane_bytes(Lane { kind, id });
            let (first, last) = (bound(Uuid::nil()), bound(Uuid::max()));
            let mut heads = Vec::new();
            let mut look = |place: u64| {
                if let Some(record) = records.get(place)?.filter(|_| !known.contains(&place))
                    && let Ok((_, operation)) = record::decode(place, &record, &keys)
                {
                    heads.push((place, operation));
                }
                Ok::<_, redb::Error>(heads.len() < limit)
            };
            for entry in states.range::<&[u8; 17]>(&first..=&last)? {
                if !look(LaneState::decode(entry?.1.value()).head)? {
                    return Ok(heads);
                }
            }
            let in_tail = heads_of(&snapshot.tail(), first[0]);
            for (lane, place) in in_tail {
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
            let records = snapshot.records()?;
            operations_at(&records, snapshot.places_of_user(user_id, 0)?, &keys)
        })
        .await
    }

    /// How full the buffer is.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn stats(&self) -> Result<Stats, BufferError> {
        self.read(|snapshot| {
            let first = snapshot.records()?.from(0)?.next().transpose()?;
            let oldest = first.and_then(|(place, record)| {
                Header::decode(place, &record).ok().map(|header| header.queued_at)
            });
            let tail = snapshot.tail();
            let mut by_priority = tail.by_priority();
            for (count, indexed) in by_priority.iter_mut().zip(snapshot.counters(BY_PRIORITY)?) {
                *count += indexed;
            }
            let [indexed, indexed_bytes, dead, quarantined] =
                snapshot.counters([PENDING, BYTES, DEAD_COUNT, QUARANTINED])?;
            let waiting_lanes = snapshot.open_table(WAITING)?.len()?;
            let found_lanes = waiting_lanes + snapshot.open_table(READY)?.len()?;
            let lanes = snapshot.open_table(LANE_STATES)?.len()?;
            Ok(Stats {
                pending: indexed + tail.len(),
                by_priority,
                bytes: indexed_bytes + tail.bytes(),
                dead,
                quarantined,
                waiting_lanes,
                is_stuck: lanes != found_lanes || indexed > 0 && found_lanes == 0,
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

/// The version that the host remembers of a lane's entity.
fn ahead_of(snapshot: &Snapshot, lane: Lane) -> Result<Option<Version>, redb::Error> {
    let version = snapshot.open_table(AHEAD)?.get(&record::lane_bytes(lane))?;
    Ok(version.map(|version| Version::from_uuid(Uuid::from_u128(version.value()))))
}

/// The lanes of a kind in the tail, each with the place of its first operation there.
fn heads_of(tail: &Tail, kind: u8) -> Vec<([u8; 17], u64)> {
    let of_kind = tail.lanes().filter(|(lane, _)| lane[0] == kind);
    of_kind.filter_map(|(lane, group)| Some((*lane, *group.places.first()?))).collect()
}

fn operations_at(
    records: &Records<'_>,
    places: impl Iterator<Item = Result<u64, StorageError>>,
    keys: &Keys,
) -> Result<Vec<Operation>, redb::Error> {
    let mut operations = Vec::new();
    for place in places {
        let place = place?;
        let Some(record) = records.get(place)? else { continue };
        // A damaged record is not a reader's to set aside; here it is just not seen.
        if let Ok((_, operation)) = record::decode(place, &record, keys) {
            operations.push(operation);
        }
    }
    Ok(operations)
}
