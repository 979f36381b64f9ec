//! The tables of the buffer file.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `records` | place | the record (see `record`) |
//! | `lanes` | lane, place | nothing: the order of a lane |
//! | `lane_states` | lane | head, newest version, counts by priority ([`LaneState`]) |
//! | `ready` | 5 - priority, place of the head | the lane ([`Slot`]): what replay may take now |
//! | `waiting` | not-before, place of the head | the lane ([`Slot`]): what replay may take later |
//! | `places` | operation id | where it is: pending, dead, quarantined, discarded |
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
//! the `log`, and in none of these tables yet.
//! Integers inside values are little-endian.

use redb::TableDefinition;
use serde::{Deserialize, Serialize};

use super::record::{Damage, Header};
use crate::domain::{MAX_PRIORITY, OperationState, Priority};

pub(super) type Bytes = &'static [u8];
pub(super) type LaneKey = &'static [u8; 17];

pub(super) const RECORDS: TableDefinition<u64, Bytes> = TableDefinition::new("records");
pub(super) const LANES: TableDefinition<(LaneKey, u64), ()> = TableDefinition::new("lanes");
pub(super) const LANE_STATES: TableDefinition<LaneKey, &'static [u8; LaneState::BYTES]> =
    TableDefinition::new("lane_states");
pub(super) const READY: TableDefinition<(u8, u64), &'static [u8; Slot::BYTES]> =
    TableDefinition::new("ready");
pub(super) const WAITING: TableDefinition<(i64, u64), &'static [u8; Slot::BYTES]> =
    TableDefinition::new("waiting");
pub(super) const PLACES: TableDefinition<u128, (u8, u64)> = TableDefinition::new("places");
pub(super) const USERS: TableDefinition<(u128, u64), ()> = TableDefinition::new("users");
pub(super) const USER_TOTALS: TableDefinition<u128, (u64, u64)> =
    TableDefinition::new("user_totals");
pub(super) const DEAD: TableDefinition<(i64, u128), Bytes> = TableDefinition::new("dead");
pub(super) const QUARANTINE: TableDefinition<u64, Bytes> = TableDefinition::new("quarantine");
pub(super) const AUDIT: TableDefinition<(i64, u128), Bytes> = TableDefinition::new("audit");
pub(super) const REVOKED: TableDefinition<u128, i64> = TableDefinition::new("revoked");
pub(super) const REVOKED_UNTIL: TableDefinition<(i64, u128), ()> =
    TableDefinition::new("revoked_until");
pub(super) const AHEAD: TableDefinition<LaneKey, u128> = TableDefinition::new("ahead");
pub(super) const COUNTERS: TableDefinition<&'static str, u64> = TableDefinition::new("counters");
pub(super) const STATUS: TableDefinition<&'static str, Bytes> = TableDefinition::new("status");
pub(super) const SCRUB: TableDefinition<u64, Bytes> = TableDefinition::new("scrub");

/// The layout of these tables, kept in `counters` under [`FORMAT_KEY`].
///
/// 1 had no tail: its indexes tell of every record. In 2 the counters told of the tail as well. 3 was
/// written by processes whose redb (before 4.5) must not share a file with later ones, 4 by such as do
/// not know the lane of the cache and would set its records aside. 2 to 5 knew no log: the newest records
/// were in `records` alone, without indexes. 6 had no table `ahead`. A process of an earlier format that still runs takes nothing
/// in or out any more. A table more is a format more: tables are made when a file is opened that has an
/// earlier one.
pub(super) const FORMAT: u64 = 7;
pub(super) const FORMAT_KEY: &str = "format";
/// The place from which on records are in the tail, and in no table yet.
pub(super) const INDEXED: &str = "indexed";
/// The generation of the log that the tail is in.
pub(super) const LOG_GENERATION: &str = "log_generation";
/// 1 if the log had its whole length when its generation began: only then it may have frames.
pub(super) const LOG_LAID: &str = "log_laid";
/// Pending operations that the tables have.
pub(super) const PENDING: &str = "pending";
/// Bytes of their records.
pub(super) const BYTES: &str = "bytes";
/// Entries of `ahead`.
pub(super) const AHEAD_COUNT: &str = "ahead";
pub(super) const DEAD_COUNT: &str = "dead";
pub(super) const QUARANTINED: &str = "quarantined";
/// Pending operations that the tables have, by their own priority, from 1.
pub(super) const BY_PRIORITY: [&str; MAX_PRIORITY as usize] =
    ["pending_1", "pending_2", "pending_3", "pending_4", "pending_5"];

/// Where a priority stands in an array that has something of each.
pub(super) fn priority_index(priority: Priority) -> usize {
    usize::from(priority.clamp(1, MAX_PRIORITY)) - 1
}

/// Where the `places` table says an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In `records`, at this place.
    Pending(u64),
    /// In `dead`, since this moment (Unix milliseconds).
    Dead(i64),
    /// In `quarantine`, under this place.
    Quarantined(u64),
    /// Nowhere any more: an operator dropped it at this moment (Unix milliseconds).
    Discarded(i64),
}

impl Place {
    pub(super) fn encode(self) -> (u8, u64) {
        match self {
            Self::Pending(seq) => (0, seq),
            Self::Dead(at) => (1, at.cast_unsigned()),
            Self::Quarantined(seq) => (2, seq),
            Self::Discarded(at) => (3, at.cast_unsigned()),
        }
    }

    pub(super) fn decode((kind, at): (u8, u64)) -> Option<Self> {
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
pub(super) struct LaneState {
    pub(super) head: u64,
    pub(super) queued_at: i64,
    pub(super) not_before: i64,
    pub(super) newest: u128,
    pub(super) counts: [u32; MAX_PRIORITY as usize],
}

impl LaneState {
    /// A lane whose head this is; nothing is counted yet.
    pub(super) fn beginning(head: u64, header: &Header) -> Self {
        let (queued_at, not_before) = (header.queued_at, header.not_before);
        Self { head, queued_at, not_before, ..Self::default() }
    }

    /// Counts an operation of the lane.
    pub(super) fn note(&mut self, header: &Header) {
        self.newest = self.newest.max(header.id.as_uuid().as_u128());
        *self.count(header.priority) += 1;
    }

    pub(super) const BYTES: usize = 8 + 8 + 8 + 16 + 4 * MAX_PRIORITY as usize;

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
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

    pub(super) fn decode(bytes: &[u8; Self::BYTES]) -> Self {
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

    pub(super) fn count(&mut self, priority: Priority) -> &mut u32 {
        &mut self.counts[priority_index(priority)]
    }

    /// How many operations of the lane are pending.
    pub(super) fn len(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// The highest priority among the lane's pending operations.
    pub(super) fn priority(&self) -> Priority {
        (1..=MAX_PRIORITY)
            .rev()
            .find(|priority| self.counts[priority_index(*priority)] > 0)
            .unwrap_or(1)
    }

    /// Its place among the lanes that are ready: the key in [`READY`].
    pub(super) fn rank(&self) -> (u8, u64) {
        (MAX_PRIORITY - self.priority(), self.head)
    }

    pub(super) fn slot(&self, lane: &[u8; 17]) -> Slot {
        Slot { lane: *lane, priority: self.priority(), queued_at: self.queued_at }
    }
}

/// A lane as `ready` and `waiting` hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) lane: [u8; 17],
    pub(super) priority: Priority,
    pub(super) queued_at: i64,
}

impl Slot {
    pub(super) const BYTES: usize = 17 + 1 + 8;

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..17].copy_from_slice(&self.lane);
        bytes[17] = self.priority;
        bytes[18..].copy_from_slice(&self.queued_at.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        Self {
            lane: array(&bytes[..17]),
            priority: bytes[17],
            queued_at: i64::from_le_bytes(array(&bytes[18..])),
        }
    }
}

/// Why and when an operation became a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Certificate {
    pub(super) state: OperationState,
    pub(super) reason: String,
    pub(super) place: u64,
}

/// A dead letter as bytes: the length of the certificate (u32), the certificate as JSON, the record.
pub(super) fn encode_dead(certificate: &Certificate, record: &[u8]) -> Vec<u8> {
    // A certificate is two strings and a number, which serde_json always writes.
    let json = serde_json::to_vec(certificate).unwrap_or_default();
    let length = u32::try_from(json.len()).unwrap_or(0);
    [&length.to_le_bytes(), json.as_slice(), record].concat()
}

/// Reads a dead letter: its certificate and its record.
pub(super) fn decode_dead(bytes: &[u8]) -> Result<(Certificate, &[u8]), Damage> {
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
