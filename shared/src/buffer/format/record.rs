//! A pending operation as bytes.
//!
//! ```text
//! header   format u8 · seal u8 · priority u8 · waits u8 · attempts u32 · queued_at i64 ms
//!          · not_before i64 ms · operation id 16 · user id 16 · lane kind u8 · lane id 16
//! check    CRC-32 of the place in the file (u64) and the header
//! seal 0   payload: the operation as JSON · check: CRC-32 of the operation id and the payload
//! seal 1   the operation as JSON, sealed (see `keys`) in the context of format, seal, operation id,
//!          user id and lane
//! ```
//! Integers are little-endian. The first check binds a record to its place, the second, or the seal,
//! binds a payload to its header, so that neither a flipped bit nor a swapped record goes unnoticed.
//! Attempts, waits, not-before and queued-at are outside the seal: a retry rewrites the header alone. A
//! record of a format that this program does not know is not readable for it, and therefore set
//! aside, never dropped.

use uuid::Uuid;

use super::damage::Damage;
use super::keys::{self, Keys, Nonce};
use crate::buffer::error::BufferError;
use crate::domain::{EntityKind, Lane, Operation, Priority, Tries, Version};

/// The format this program writes.
pub(in crate::buffer) const FORMAT: u8 = 1;

const HEADER: usize = 4 + 4 + 8 + 8 + 16 + 16 + 17;
const CHECK: usize = 4;
const CONTEXT: usize = 1 + 1 + 16 + 16 + 17;

/// How a payload is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seal {
    /// By a checksum alone.
    Crc,
    /// It is sealed with a key.
    Sealed,
}

impl Seal {
    fn byte(self) -> u8 {
        match self {
            Self::Crc => 0,
            Self::Sealed => 1,
        }
    }

    fn of_byte(byte: u8) -> Option<Self> {
        [Self::Crc, Self::Sealed].into_iter().find(|seal| seal.byte() == byte)
    }
}

/// An operation as it stands behind a header.
#[derive(Clone, Debug)]
pub(in crate::buffer) struct Payload {
    seal: Seal,
    bytes: Vec<u8>,
}

impl Payload {
    /// Its length in the file.
    pub(in crate::buffer) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// What the buffer needs to know of an operation without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::buffer) struct Header {
    pub(in crate::buffer) priority: Priority,
    /// How often it was tried in vain.
    pub(in crate::buffer) tries: Tries,
    /// When it came into the buffer, by the wall clock (Unix milliseconds).
    pub(in crate::buffer) queued_at: i64,
    /// When it may be tried again (Unix milliseconds); 0: at once.
    pub(in crate::buffer) not_before: i64,
    pub(in crate::buffer) id: Version,
    pub(in crate::buffer) user_id: Uuid,
    pub(in crate::buffer) lane: Lane,
}

impl Header {
    pub(in crate::buffer) fn of(operation: &Operation, queued_at: i64) -> Self {
        Self {
            priority: operation.priority(),
            tries: Tries::default(),
            queued_at,
            not_before: 0,
            id: operation.id,
            user_id: operation.actor.user_id,
            lane: operation.lane(),
        }
    }

    fn encode(&self, seal: u8) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = FORMAT;
        bytes[1] = seal;
        bytes[2] = self.priority;
        bytes[3] = self.tries.waits;
        bytes[4..8].copy_from_slice(&self.tries.attempts.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.queued_at.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.not_before.to_le_bytes());
        bytes[24..40].copy_from_slice(self.id.as_uuid().as_bytes());
        bytes[40..56].copy_from_slice(self.user_id.as_bytes());
        bytes[56..73].copy_from_slice(&lane_bytes(self.lane));
        bytes
    }

    /// Reads and checks the header of the record at `place`, leaving the payload alone.
    pub(in crate::buffer) fn decode(place: u64, record: &[u8]) -> Result<Self, Damage> {
        let format = *record.first().ok_or(Damage::Truncated)?;
        if format != FORMAT {
            return Err(Damage::UnknownFormat(format));
        }
        let (header, rest) = record.split_at_checked(HEADER).ok_or(Damage::Truncated)?;
        let check = rest.first_chunk::<CHECK>().ok_or(Damage::Truncated)?;
        if header_check(place, header) != *check || Seal::of_byte(header[1]).is_none() {
            return Err(Damage::Header);
        }
        Ok(Self {
            priority: header[2],
            tries: Tries { attempts: u32::from_le_bytes(array(&header[4..8])), waits: header[3] },
            queued_at: i64::from_le_bytes(array(&header[8..16])),
            not_before: i64::from_le_bytes(array(&header[16..24])),
            id: Version::from_uuid(Uuid::from_bytes(array(&header[24..40]))),
            user_id: Uuid::from_bytes(array(&header[40..56])),
            lane: lane_from_bytes(&array(&header[56..73])).ok_or(Damage::Header)?,
        })
    }

    /// The record with this header and the payload of `record`.
    pub(in crate::buffer) fn replace_in(&self, place: u64, record: &[u8]) -> Vec<u8> {
        let mut bytes = record.to_vec();
        let header = self.encode(bytes[1]);
        bytes[..HEADER].copy_from_slice(&header);
        bytes[HEADER..HEADER + CHECK].copy_from_slice(&header_check(place, &header));
        bytes
    }
}

/// An operation's payload, sealed with the newest key or, without keys, with a checksum: made once,
/// before its place in the file is known.
pub(in crate::buffer) fn encode_payload(
    operation: &Operation,
    keys: &Keys,
) -> Result<Payload, BufferError> {
    let nonce = keys.newest().map_or(Ok(Nonce::default()), |_| keys::nonce());
    let nonce = nonce.map_err(|error| BufferError::Unavailable(error.to_string()))?;
    seal_with(nonce, operation, keys)
}

/// Bytes that most payloads do not exceed.
const USUAL: usize = 768;

/// Like [`encode_payload`], with this nonce, which must never come twice under one key.
pub(in crate::buffer) fn seal_with(
    nonce: Nonce,
    operation: &Operation,
    keys: &Keys,
) -> Result<Payload, BufferError> {
    let refused = || BufferError::Unavailable("an operation cannot be encoded".to_owned());
    let mut payload = Vec::with_capacity(USUAL);
    serde_json::to_writer(&mut payload, operation).map_err(|_| refused())?;
    let context = context(&Header::of(operation, 0));
    if let Some(bytes) = keys.seal(nonce, &payload, &context).map_err(|_| refused())? {
        return Ok(Payload { seal: Seal::Sealed, bytes });
    }
    let check = payload_check(operation.id, &payload);
    payload.extend_from_slice(&check);
    Ok(Payload { seal: Seal::Crc, bytes: payload })
}

/// The whole record at `place`.
pub(in crate::buffer) fn encode(place: u64, header: &Header, payload: &Payload) -> Vec<u8> {
    let fixed = header.encode(payload.seal.byte());
    let mut record = Vec::with_capacity(HEADER + CHECK + payload.len());
    record.extend_from_slice(&fixed);
    record.extend_from_slice(&header_check(place, &fixed));
    record.extend_from_slice(&payload.bytes);
    record
}

/// Reads and checks the whole record at `place`.
pub(in crate::buffer) fn decode(
    place: u64,
    record: &[u8],
    keys: &Keys,
) -> Result<(Header, Operation), Damage> {
    let header = Header::decode(place, record)?;
    let bytes = &record[HEADER + CHECK..];
    let operation: Operation = match Seal::of_byte(record[1]).ok_or(Damage::Header)? {
        Seal::Crc => {
            let (payload, check) = bytes.split_last_chunk::<CHECK>().ok_or(Damage::Truncated)?;
            if payload_check(header.id, payload) != *check {
                return Err(Damage::Payload);
            }
            serde_json::from_slice(payload)
        }
        Seal::Sealed => serde_json::from_slice(&keys.open(bytes, &context(&header))?),
    }
    .map_err(|_| Damage::Undecodable)?;
    let user_id = operation.actor.user_id;
    if operation.id != header.id || user_id != header.user_id || operation.lane() != header.lane {
        return Err(Damage::Payload);
    }
    Ok((header, operation))
}

/// The id of the key that a record says it is sealed with.
pub(in crate::buffer) fn key_id(record: &[u8]) -> Option<&str> {
    let seal = record.get(1).copied().and_then(Seal::of_byte)?;
    match seal {
        Seal::Crc => None,
        Seal::Sealed => keys::key_id(record.get(HEADER + CHECK..)?),
    }
}

/// What a seal is bound to besides the key: what of a header is never rewritten and says whose the
/// payload is.
fn context(header: &Header) -> [u8; CONTEXT] {
    let mut bytes = [0; CONTEXT];
    bytes[..2].copy_from_slice(&[FORMAT, Seal::Sealed.byte()]);
    bytes[2..18].copy_from_slice(header.id.as_uuid().as_bytes());
    bytes[18..34].copy_from_slice(header.user_id.as_bytes());
    bytes[34..].copy_from_slice(&lane_bytes(header.lane));
    bytes
}

/// A lane as a key of fixed width.
pub(in crate::buffer) fn lane_bytes(lane: Lane) -> [u8; 17] {
    let mut bytes = [0; 17];
    bytes[0] = lane.kind.byte();
    bytes[1..].copy_from_slice(lane.id.as_bytes());
    bytes
}

pub(in crate::buffer) fn lane_from_bytes(bytes: &[u8; 17]) -> Option<Lane> {
    let kind = EntityKind::of_byte(bytes[0])?;
    Some(Lane { kind, id: Uuid::from_bytes(array(&bytes[1..])) })
}

fn header_check(place: u64, header: &[u8]) -> [u8; CHECK] {
    crc(&place.to_le_bytes(), header)
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

/// The wall clock in Unix milliseconds, as records hold it.
#[must_use]
pub fn unix_millis() -> i64 {
    chrono::Utc::now().timestamp_millis()
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
    use crate::domain::{Actor, Change, Clock, Role, TaskChange};

    /// A newer key and an older one.
    fn keys() -> Keys {
        let list = "new:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=,\
                    old:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
        Keys::parse(Some(&list.into())).unwrap()
    }

    /// Without keys, and with them.
    fn both() -> [Keys; 2] {
        [Keys::default(), keys()]
    }

    fn sample() -> Operation {
        let user_id = Uuid::from_u128(0xA);
        Operation {
            id: Clock::default().next(),
            actor: Actor { user_id, role: Role::User, session_id: None },
            change: Change::Task(TaskChange::Delete {
                task_id: Uuid::from_u128(0xB),
                if_match: None,
            }),
            accepted_at: chrono::DateTime::UNIX_EPOCH,
            request_id: Uuid::from_u128(0xC),
            traceparent: None,
        }
    }

    #[test]
    fn every_single_flipped_bit_and_every_truncation_is_found() {
        for keys in both() {
            let operation = sample();
            let header = Header::of(&operation, 5);
            let record = encode(9, &header, &encode_payload(&operation, &keys).unwrap());
            assert_eq!(decode(9, &record, &keys).unwrap(), (header, operation));
            for bit in 0..record.len() * 8 {
                let mut flipped = record.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(9, &flipped, &keys).is_err(), "bit {bit}");
            }
            for length in 0..record.len() {
                assert!(decode(9, &record[..length], &keys).is_err(), "length {length}");
            }
        }
    }

    #[test]
    fn a_record_in_another_place_and_a_payload_under_another_header_are_found() {
        for (keys, damage) in both().into_iter().zip([Damage::Payload, Damage::Seal]) {
            let (one, other) = (sample(), sample());
            let payload = |operation| encode_payload(operation, &keys).unwrap();
            let record = encode(9, &Header::of(&one, 5), &payload(&one));
            assert_eq!(decode(8, &record, &keys), Err(Damage::Header));
            let swapped = encode(9, &Header::of(&one, 5), &payload(&other));
            assert_eq!(decode(9, &swapped, &keys), Err(damage));
            let elsewhere = Lane { kind: EntityKind::Profile, id: Uuid::from_u128(0xB) };
            for header in [
                Header { user_id: Uuid::from_u128(0xD), ..Header::of(&one, 5) },
                Header { lane: elsewhere, ..Header::of(&one, 5) },
            ] {
                let record = encode(9, &header, &payload(&one));
                assert!(decode(9, &record, &keys).is_err(), "{header:?}");
            }
        }
    }

    #[test]
    fn a_newer_format_and_an_unknown_key_are_told_apart_from_damage() {
        let (operation, keys) = (sample(), keys());
        let mut record =
            encode(9, &Header::of(&operation, 5), &encode_payload(&operation, &keys).unwrap());
        assert_eq!(key_id(&record), Some("new"));
        assert_eq!(decode(9, &record, &Keys::default()), Err(Damage::UnknownKey));
        record[0] = FORMAT + 1;
        assert_eq!(decode(9, &record, &keys), Err(Damage::UnknownFormat(FORMAT + 1)));
    }

    #[test]
    fn a_sealed_payload_shows_nothing_and_an_unsealed_one_stays_readable() {
        let operation = sample();
        let plain = encode(
            9,
            &Header::of(&operation, 5),
            &encode_payload(&operation, &Keys::default()).unwrap(),
        );
        assert_eq!(
            (key_id(&plain), decode(9, &plain, &keys()).unwrap().1),
            (None, operation.clone())
        );
        let sealed = encode_payload(&operation, &keys()).unwrap();
        assert!(!sealed.bytes.windows(11).any(|window| window == b"task_delete"));
    }

    #[test]
    fn a_retried_record_keeps_its_payload() {
        for keys in both() {
            let operation = sample();
            let header = Header::of(&operation, 5);
            let record = encode(9, &header, &encode_payload(&operation, &keys).unwrap());
            let retried =
                Header { tries: Tries { attempts: 2, waits: 9 }, not_before: 77, ..header };
            let again = retried.replace_in(9, &record);
            assert_eq!(decode(9, &again, &keys).unwrap(), (retried, operation));
        }
    }
}
