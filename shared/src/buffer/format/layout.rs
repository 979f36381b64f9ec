//! The tables of the buffer file.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `records` | place | the record (see `record`) |
//! | `lanes` | lane, place | nothing: the order of a lane |
//! | `lane_states` | lane | head, newest version, counts by priority ([`LaneState`]) |
//! | `ready` | 5 - priority, place of the head | the lane ([`Slot`]): what replay may take now |
//! | `waiting` | not-before, place of the head | the lane ([`Slot`]): what replay may take later |
//! | `ids` | operation id | where it is: pending, dead, quarantined, discarded |
//! | `users`, `user_totals` | user, place; user | nothing; pending operations and their bytes |
//! | `dead` | time of death, operation id | certificate and record |
//! | `quarantine` | place | the bytes of a record that cannot be read |
//! | `audit` | time, operation id | what an operator did, and who it was |
//! | `revoked`, `revoked_until` | session; until, session | until when it must not be forgotten |
//! | `ahead` | entity | the version it is known to have, if that is past this host's clocks |
//! | `scrub` | number | filler that takes up what was free, while that is overwritten (see `scrub`) |
//! | `counters`, `status` | name | totals; what the worker publishes, and whether replay is paused |
//!
//! A place is a number that grows with every append: the order of acceptance. The newest records are in
//! the `wal`, and in none of these tables yet.
//! Integers inside values are little-endian.

use redb::TableDefinition;
use serde::{Deserialize, Serialize};

use super::damage::Damage;
use super::record::Header;
use crate::domain::{MAX_PRIORITY, OperationState, Priority};

pub(in crate::buffer) type Bytes = &'static [u8];
pub(in crate::buffer) type LaneKey = &'static [u8; 17];

pub(in crate::buffer) const RECORDS: TableDefinition<u64, Bytes> = TableDefinition::new("records");
pub(in crate::buffer) const LANES: TableDefinition<(LaneKey, u64), ()> =
    TableDefinition::new("lanes");
pub(in crate::buffer) const LANE_STATES: TableDefinition<LaneKey, &'static [u8; LaneState::BYTES]> =
    TableDefinition::new("lane_states");
pub(in crate::buffer) const READY: TableDefinition<(u8, u64), &'static [u8; Slot::BYTES]> =
    TableDefinition::new("ready");
pub(in crate::buffer) const WAITING: TableDefinition<(i64, u64), &'static [u8; Slot::BYTES]> =
    TableDefinition::new("waiting");
pub(in crate::buffer) const IDS: TableDefinition<u128, (u8, u64)> = TableDefinition::new("ids");
pub(in crate::buffer) const USERS: TableDefinition<(u128, u64), ()> = TableDefinition::new("users");
pub(in crate::buffer) const USER_TOTALS: TableDefinition<u128, (u64, u64)> =
    TableDefinition::new("user_totals");
pub(in crate::buffer) const DEAD: TableDefinition<(i64, u128), Bytes> =
    TableDefinition::new("dead");
pub(in crate::buffer) const QUARANTINE: TableDefinition<u64, Bytes> =
    TableDefinition::new("quarantine");
pub(in crate::buffer) const AUDIT: TableDefinition<(i64, u128), Bytes> =
    TableDefinition::new("audit");
pub(in crate::buffer) const REVOKED: TableDefinition<u128, i64> = TableDefinition::new("revoked");
pub(in crate::buffer) const REVOKED_UNTIL: TableDefinition<(i64, u128), ()> =
    TableDefinition::new("revoked_until");
pub(in crate::buffer) const AHEAD: TableDefinition<LaneKey, u128> = TableDefinition::new("ahead");
pub(in crate::buffer) const COUNTERS: TableDefinition<&'static str, u64> =
    TableDefinition::new("counters");
pub(in crate::buffer) const STATUS: TableDefinition<&'static str, Bytes> =
    TableDefinition::new("status");
pub(in crate::buffer) const SCRUB: TableDefinition<u64, Bytes> = TableDefinition::new("scrub");

/// The format of these tables, kept in `counters` under [`FORMAT_KEY`]. It grows with each change that a
/// program of before would misread, a new table included. A file of another format is refused, and a
/// process that meets one when it writes takes nothing in or out any more.
pub(in crate::buffer) const FORMAT: u64 = 1;
pub(in crate::buffer) const FORMAT_KEY: &str = "format";
/// The place from which on records are in the tail, and in no table yet.
pub(in crate::buffer) const CHECKPOINT: &str = "checkpoint";
/// The generation of the WAL that the tail is in.
pub(in crate::buffer) const WAL_GENERATION: &str = "wal_generation";
/// 1 if the WAL had its whole length when its generation began: only then it may have frames.
pub(in crate::buffer) const WAL_LAID: &str = "wal_laid";
/// Pending operations that the tables have.
pub(in crate::buffer) const PENDING: &str = "pending";
/// Bytes of their records.
pub(in crate::buffer) const BYTES: &str = "bytes";
/// Entries of `ahead`.
pub(in crate::buffer) const AHEAD_COUNT: &str = "ahead";
pub(in crate::buffer) const DEAD_COUNT: &str = "dead";
pub(in crate::buffer) const QUARANTINED: &str = "quarantined";
/// Pending operations that the tables have, by their own priority, from 1.
pub(in crate::buffer) const BY_PRIORITY: [&str; MAX_PRIORITY as usize] =
    ["pending_1", "pending_2", "pending_3", "pending_4", "pending_5"];

/// Where a priority stands in an array that has something of each.
pub(in crate::buffer) fn priority_index(priority: Priority) -> usize {
    usize::from(priority.clamp(1, MAX_PRIORITY)) - 1
}

/// Where the `ids` table says an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::buffer) enum Whereabouts {
    /// In `records`, at this place.
    Pending(u64),
    /// In `dead`, since this moment (Unix milliseconds).
    Dead(i64),
    /// In `quarantine`, under this place.
    Quarantined(u64),
    /// Nowhere any more: an operator dropped it at this moment (Unix milliseconds).
    Discarded(i64),
}

impl Whereabouts {
    pub(in crate::buffer) fn encode(self) -> (u8, u64) {
        match self {
            Self::Pending(place) => (0, place),
            Self::Dead(at) => (1, at.cast_unsigned()),
            Self::Quarantined(place) => (2, place),
            Self::Discarded(at) => (3, at.cast_unsigned()),
        }
    }

    pub(in crate::buffer) fn decode((kind, at): (u8, u64)) -> Option<Self> {
        match kind {
            0 => Some(Self::Pending(at)),
            1 => Some(Self::Dead(at.cast_signed())),
            2 => Some(Self::Quarantined(at)),
            3 => Some(Self::Discarded(at.cast_signed())),
            _ => None,
        }
    }
}

/// What is known of a lane with pending operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::buffer) struct LaneState {
    pub(in crate::buffer) head: u64,
    pub(in crate::buffer) queued_at: i64,
    pub(in crate::buffer) not_before: i64,
    pub(in crate::buffer) newest: u128,
    pub(in crate::buffer) counts: [u32; MAX_PRIORITY as usize],
}

impl LaneState {
    /// A lane whose head this is; nothing is counted yet.
    pub(in crate::buffer) fn beginning(head: u64, header: &Header) -> Self {
        let (queued_at, not_before) = (header.queued_at, header.not_before);
        Self { head, queued_at, not_before, ..Self::default() }
    }

    /// Counts an operation of the lane.
    pub(in crate::buffer) fn note(&mut self, header: &Header) {
        self.newest = self.newest.max(header.id.as_uuid().as_u128());
        *self.count(header.priority) += 1;
    }

    pub(in crate::buffer) const BYTES: usize = 8 + 8 + 8 + 16 + 4 * MAX_PRIORITY as usize;

    pub(in crate::buffer) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.head.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.queued_at.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.not_before.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.newest.to_le_bytes());
        for (chunk, count) in bytes[40..].chunks_exact_mut(4).zip(self.counts) {
            chunk.copy_from_slice(&count.to_le_bytes());
        }
        bytes
    }

    pub(in crate::buffer) fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let mut counts = [0; MAX_PRIORITY as usize];
        for (count, chunk) in counts.iter_mut().zip(bytes[40..].chunks_exact(4)) {
            *count = u32::from_le_bytes(array(chunk));
        }
        Self {
            head: u64::from_le_bytes(array(&bytes[..8])),
            queued_at: i64::from_le_bytes(array(&bytes[8..16])),
            not_before: i64::from_le_bytes(array(&bytes[16..24])),
            newest: u128::from_le_bytes(array(&bytes[24..40])),
            counts,
        }
    }

    pub(in crate::buffer) fn count(&mut self, priority: Priority) -> &mut u32 {
        &mut self.counts[priority_index(priority)]
    }

    /// How many operations of the lane are pending.
    pub(in crate::buffer) fn len(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// The highest priority among the lane's pending operations.
    pub(in crate::buffer) fn priority(&self) -> Priority {
        (1..=MAX_PRIORITY)
            .rev()
            .find(|priority| self.counts[priority_index(*priority)] > 0)
            .unwrap_or(1)
    }

    /// Its place among the lanes that are ready: the key in [`READY`].
    pub(in crate::buffer) fn rank(&self) -> (u8, u64) {
        (MAX_PRIORITY - self.priority(), self.head)
    }

    pub(in crate::buffer) fn slot(&self, lane: &[u8; 17]) -> Slot {
        Slot { lane: *lane, priority: self.priority(), queued_at: self.queued_at }
    }
}

/// A lane as `ready` and `waiting` hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::buffer) struct Slot {
    pub(in crate::buffer) lane: [u8; 17],
    pub(in crate::buffer) priority: Priority,
    pub(in crate::buffer) queued_at: i64,
}

impl Slot {
    pub(in crate::buffer) const BYTES: usize = 17 + 1 + 8;

    pub(in crate::buffer) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..17].copy_from_slice(&self.lane);
        bytes[17] = self.priority;
        bytes[18..].copy_from_slice(&self.queued_at.to_le_bytes());
        bytes
    }

    pub(in crate::buffer) fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        Self {
            lane: array(&bytes[..17]),
            priority: bytes[17],
            queued_at: i64::from_le_bytes(array(&bytes[18..])),
        }
    }
}

/// Why and when an operation became a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::buffer) struct Certificate {
    pub(in crate::buffer) state: OperationState,
    pub(in crate::buffer) reason: String,
    pub(in crate::buffer) place: u64,
}

/// A dead letter as bytes: the length of the certificate (u32), the certificate as JSON, the record.
pub(in crate::buffer) fn encode_dead(certificate: &Certificate, record: &[u8]) -> Vec<u8> {
    // A certificate is two strings and a number, which serde_json always writes.
    let json = serde_json::to_vec(certificate).unwrap_or_default();
    let length = u32::try_from(json.len()).unwrap_or(0);
    [&length.to_le_bytes(), json.as_slice(), record].concat()
}

/// Reads a dead letter: its certificate and its record.
pub(in crate::buffer) fn decode_dead(bytes: &[u8]) -> Result<(Certificate, &[u8]), Damage> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(Damage::Truncated)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Damage::Truncated)?;
    let (json, record) = rest.split_at_checked(length).ok_or(Damage::Truncated)?;
    let certificate = serde_json::from_slice(json).map_err(|_| Damage::Undecodable)?;
    Ok((certificate, record))
}

/// Copies a slice whose length the caller took from the layouts above.
fn array<const N: usize>(slice: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(slice);
    bytes
}
