//! What happened on a line.

use std::sync::atomic::{AtomicU64, Ordering};

/// A reading of a line's counters, since the line was laid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Connections accepted.
    pub connections: u64,
    /// Connections that stand now.
    pub open: u64,
    /// Connections reset because the line was cut.
    pub severed: u64,
    /// Connections reset because the server did not take them.
    pub unreachable: u64,
    /// Times a connection had something to pass, and it was held: by a stalled or mute line, or as a
    /// write that was to be.
    pub held: u64,
    /// Acknowledgements of writes that were lost on purpose.
    pub acknowledgements_lost: u64,
    /// Bytes passed from clients to the server.
    pub bytes_up: u64,
    /// Bytes passed from the server to clients.
    pub bytes_down: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) ended: AtomicU64,
    pub(super) severed: AtomicU64,
    pub(super) unreachable: AtomicU64,
    pub(super) held: AtomicU64,
    pub(super) acknowledgements_lost: AtomicU64,
    pub(super) bytes_up: AtomicU64,
    pub(super) bytes_down: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> LineCounts {
        // Ended first: read the other way round, a connection in between would be missed.
        let ended = self.ended.load(Ordering::SeqCst);
        let connections = self.connections.load(Ordering::SeqCst);
        LineCounts {
            connections,
            open: connections - ended,
            severed: self.severed.load(Ordering::SeqCst),
            unreachable: self.unreachable.load(Ordering::SeqCst),
            held: self.held.load(Ordering::SeqCst),
            acknowledgements_lost: self.acknowledgements_lost.load(Ordering::SeqCst),
            bytes_up: self.bytes_up.load(Ordering::SeqCst),
            bytes_down: self.bytes_down.load(Ordering::SeqCst),
        }
    }
}

pub(super) fn count(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::SeqCst);
}
