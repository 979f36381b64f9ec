//! A pending operation as bytes.
//!
//! ```text
//! header   format u8 · seal u8 · priority u8 · zero u8 · attempts u32 · queued_at i64 ms
//!          · not_before i64 ms · operation id 16 · user id 16 · lane kind u8 · lane id 16
//! check    CRC-32 of the place in the file (u64) and the header
//! payload  the operation as JSON
//! check    CRC-32 of the operation id and the payload
//! ```
//! Integers are little-endian. The first check binds a record to its place, the second binds a
//! payload to its header, so that neither a flipped bit nor a swapped record goes unnoticed. Only
//! the header is ever rewritten (attempts and not-before). A record of a format that this program
//! does not know is not readable for it, and therefore set aside, never dropped.

use thiserror::Error;
use uuid::Uuid;

use crate::domain::{EntityKind, Lane, Operation, Priority, Version};

/// The format this program writes.
pub(super) const FORMAT: u8 = 1;
/// The payload is protected by a checksum alone.
const SEAL_CRC: u8 = 0;

const HEADER: usize = 4 + 4 + 8 + 8 + 16 + 16 + 17;
const CHECK: usize = 4;

/// Why a record cannot be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Damage {
    /// It is too short to be a record.
    #[error("truncated")]
    Truncated,
    /// It was written by a newer program.
    #[error("unknown format {0}")]
    UnknownFormat(u8),
    /// The header does not match its checksum, or is another record's.
    #[error("header checksum mismatch")]
    Header,
    /// The payload does not match its checksum, or is another record's.
    #[error("payload checksum mismatch")]
    Payload,
    /// The checksums match and the payload is no operation.
    #[error("undecodable payload")]
    Undecodable,
}

/// What the buffer needs to know of an operation without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) priority: Priority,
    /// Attempts that were used up by the data's own fault.
    pub(super) attempts: u32,
    /// When it came into the buffer, by the wall clock (Unix milliseconds).
    pub(super) queued_at: i64,
    /// When it may be tried again (Unix milliseconds); 0: at once.
    pub(super) not_before: i64,
    pub(super) id: Version,
    pub(super) user_id: Uuid,
    pub(super) lane: Lane,
}

impl Header {
    pub(super) fn of(operation: &Operation, queued_at: i64) -> Self {
        Self {
            priority: operation.priority(),
            attempts: 0,
            queued_at,
            not_before: 0,
            id: operation.id,
            user_id: operation.actor.user_id,
            lane: operation.lane(),
        }
    }

    fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = FORMAT;
        bytes[1] = SEAL_CRC;
        bytes[2] = self.priority;
        bytes[4..8].copy_from_slice(&self.attempts.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.queued_at.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.not_before.to_le_bytes());
        bytes[24..40].copy_from_slice(self.id.as_uuid().as_bytes());
        bytes[40..56].copy_from_slice(self.user_id.as_bytes());
        bytes[56..73].copy_from_slice(&lane_bytes(self.lane));
        bytes
    }

    /// Reads and checks the header of the record at `seq`, leaving the payload alone.
    pub(super) fn decode(seq: u64, record: &[u8]) -> Result<Self, Damage> {
        let format = *record.first().ok_or(Damage::Truncated)?;
        if format != FORMAT {
            return Err(Damage::UnknownFormat(format));
        }
        let (header, rest) = record.split_at_checked(HEADER).ok_or(Damage::Truncated)?;
        let check = rest.first_chunk::<CHECK>().ok_or(Damage::Truncated)?;
        if header_check(seq, header) != *check || header[1] != SEAL_CRC {
            return Err(Damage::Header);
        }
        Ok(Self {
            priority: header[2],
            attempts: u32::from_le_bytes(array(&header[4..8])),
            queued_at: i64::from_le_bytes(array(&header[8..16])),
            not_before: i64::from_le_bytes(array(&header[16..24])),
            id: Version::from_uuid(Uuid::from_bytes(array(&header[24..40]))),
            user_id: Uuid::from_bytes(array(&header[40..56])),
            lane: lane_from_bytes(&array(&header[56..73])).ok_or(Damage::Header)?,
        })
    }

    /// The record with this header and the payload of `record`.
    pub(super) fn replace_in(&self, seq: u64, record: &[u8]) -> Vec<u8> {
        let mut bytes = record.to_vec();
        let header = self.encode();
        bytes[..HEADER].copy_from_slice(&header);
        bytes[HEADER..HEADER + CHECK].copy_from_slice(&header_check(seq, &header));
        bytes
    }
}

/// An operation's payload with its checksum: made once, before its place in the file is known.
pub(super) fn encode_payload(operation: &Operation) -> Result<Vec<u8>, serde_json::Error> {
    let mut payload = serde_json::to_vec(operation)?;
    let check = payload_check(operation.id, &payload);
    payload.extend_from_slice(&check);
    Ok(payload)
}

/// The whole record at `seq`.
pub(super) fn encode(seq: u64, header: &Header, payload: &[u8]) -> Vec<u8> {
    let fixed = header.encode();
    let mut record = Vec::with_capacity(HEADER + CHECK + payload.len());
    record.extend_from_slice(&fixed);
    record.extend_from_slice(&header_check(seq, &fixed));
    record.extend_from_slice(payload);
    record
}

/// Reads and checks the whole record at `seq`.
pub(super) fn decode(seq: u64, record: &[u8]) -> Result<(Header, Operation), Damage> {
    let header = Header::decode(seq, record)?;
    let sealed = &record[HEADER + CHECK..];
    let (payload, check) = sealed.split_last_chunk::<CHECK>().ok_or(Damage::Truncated)?;
    if payload_check(header.id, payload) != *check {
        return Err(Damage::Payload);
    }
    let operation: Operation = serde_json::from_slice(payload).map_err(|_| Damage::Undecodable)?;
    let user_id = operation.actor.user_id;
    if operation.id != header.id || user_id != header.user_id || operation.lane() != header.lane {
        return Err(Damage::Payload);
    }
    Ok((header, operation))
}

/// The payload of a record that has been read, with its checksum.
pub(super) fn payload_of(record: &[u8]) -> &[u8] {
    record.get(HEADER + CHECK..).unwrap_or_default()
}

/// A lane as a key of fixed width.
pub(super) fn lane_bytes(lane: Lane) -> [u8; 17] {
    let mut bytes = [0; 17];
    bytes[0] = match lane.kind {
        EntityKind::Task => 1,
        EntityKind::Profile => 2,
    };
    bytes[1..].copy_from_slice(lane.id.as_bytes());
    bytes
}

pub(super) fn lane_from_bytes(bytes: &[u8; 17]) -> Option<Lane> {
    let kind = match bytes[0] {
        1 => EntityKind::Task,
        2 => EntityKind::Profile,
        _ => return None,
    };
    Some(Lane { kind, id: Uuid::from_bytes(array(&bytes[1..])) })
}

fn header_check(seq: u64, header: &[u8]) -> [u8; CHECK] {
    crc(&seq.to_le_bytes(), header)
}

fn payload_check(id: Version, payload: &[u8]) -> [u8; CHECK] {
    crc(id.as_uuid().as_bytes(), payload)
}

fn crc(context: &[u8], bytes: &[u8]) -> [u8; CHECK] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(context);
    hasher.update(bytes);
    hasher.finalize().to_le_bytes()
}

/// Copies a slice whose length the caller took from the layout above.
fn array<const N: usize>(slice: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(slice);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Actor, Change, Clock, Role};

    fn sample() -> Operation {
        let user_id = Uuid::from_u128(0xA);
        Operation {
            id: Clock::default().next(),
            actor: Actor { user_id, role: Role::User, session_id: None },
            change: Change::TaskDelete { task_id: Uuid::from_u128(0xB), if_match: None },
            accepted_at: chrono::DateTime::UNIX_EPOCH,
            request_id: Uuid::from_u128(0xC),
            traceparent: None,
        }
    }

    #[test]
    fn every_single_flipped_bit_and_every_truncation_is_found() {
        let operation = sample();
        let header = Header::of(&operation, 5);
        let record = encode(9, &header, &encode_payload(&operation).unwrap());
        assert_eq!(decode(9, &record).unwrap(), (header, operation));
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(9, &flipped).is_err(), "bit {bit}");
        }
        for length in 0..record.len() {
            assert!(decode(9, &record[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn a_record_in_another_place_and_a_payload_under_another_header_are_found() {
        let (one, other) = (sample(), sample());
        let record = encode(9, &Header::of(&one, 5), &encode_payload(&one).unwrap());
        assert_eq!(decode(8, &record), Err(Damage::Header));
        let swapped = encode(9, &Header::of(&one, 5), &encode_payload(&other).unwrap());
        assert_eq!(decode(9, &swapped), Err(Damage::Payload));
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let operation = sample();
        let mut record =
            encode(9, &Header::of(&operation, 5), &encode_payload(&operation).unwrap());
        record[0] = FORMAT + 1;
        assert_eq!(decode(9, &record), Err(Damage::UnknownFormat(FORMAT + 1)));
    }

    #[test]
    fn a_retried_record_keeps_its_payload() {
        let operation = sample();
        let header = Header::of(&operation, 5);
        let record = encode(9, &header, &encode_payload(&operation).unwrap());
        let retried = Header { attempts: 2, not_before: 77, ..header };
        assert_eq!(decode(9, &retried.replace_in(9, &record)).unwrap(), (retried, operation));
    }
}
