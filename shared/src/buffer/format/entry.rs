//! A pending operation as callers see it.

use super::record::Header;
use crate::domain::{Operation, Tries};

/// A pending operation and its place.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place in the file.
    pub place: u64,
    /// How often it was tried in vain.
    pub tries: Tries,
    /// When it was queued (Unix milliseconds).
    pub queued_at: i64,
    /// When it may be tried again (Unix milliseconds); 0: at once.
    pub not_before: i64,
    /// The operation.
    pub operation: Operation,
}

impl Entry {
    pub(in crate::buffer) fn new(place: u64, header: &Header, operation: Operation) -> Self {
        Self {
            place,
            tries: header.tries,
            queued_at: header.queued_at,
            not_before: header.not_before,
            operation,
        }
    }
}
