//! Why a record cannot be used.

use thiserror::Error;

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
    /// It is sealed with a key that is not in `BUFFER_KEYS`.
    #[error("sealed with a key that BUFFER_KEYS does not have")]
    UnknownKey,
    /// The seal does not hold: another key of the same id, changed bytes, or another record's.
    #[error("the seal does not hold: wrong key, or changed bytes")]
    Seal,
}
