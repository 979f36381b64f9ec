//! The tail: the newest operations, which are in the WAL, and which no table tells of yet.
//!
//! An append that changed every table would rewrite a page of each, or several, for a handful of
//! entries. So it writes its record into the WAL and nothing else, and records, indexes and counters
//! follow in one go, each in the order of its keys (`checkpoint`): when the tail has grown long or the WAL is
//! full, and before anything is done that is not an append. The counter `checkpoint` is the place where
//! the tail begins; it ends where the WAL does. A record of the tail never changes.
//!
//! Each process keeps the tail in memory, and reads only what other processes have appended.

use std::collections::HashMap;
use std::sync::Arc;

use super::file::{LENGTH, Wal};
use super::frame::{Frame, Head};
use crate::buffer::format::layout::priority_index;
use crate::buffer::format::record::{Header, lane_bytes};
use crate::domain::MAX_PRIORITY;

/// Operations that a tail has before the tables follow, at the most: the longer, the more entries
/// share a page that is rewritten, and the longer is the commit in which they follow.
pub(in crate::buffer) const LONGEST: u64 = 2048;
/// Bytes of their records, at the most: they have to fit into what room the ballast leaves.
const HEAVIEST: u64 = 1 << 20;

/// Which tail a state of the tables has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::buffer) struct Mark {
    /// The generation of the WAL that it is in.
    pub(in crate::buffer) generation: u64,
    /// The place where it begins.
    pub(in crate::buffer) from: u64,
}

/// The operations of a lane, or of a user, in the tail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::buffer) struct Group {
    /// Their places, in order.
    pub(in crate::buffer) places: Vec<u64>,
    /// The newest of their ids.
    pub(in crate::buffer) newest: u128,
    /// The bytes of their records.
    pub(in crate::buffer) bytes: u64,
}

impl Group {
    /// How many operations it has.
    pub(in crate::buffer) fn count(&self) -> u64 {
        u64::try_from(self.places.len()).unwrap_or(u64::MAX)
    }
}

/// A tail, as far as a process knows it.
#[derive(Debug, Default)]
pub(in crate::buffer) struct Tail {
    mark: Mark,
    /// Where the frames of the WAL end that it knows.
    end: u64,
    /// The last of them, and where it begins.
    last: Option<(u64, Head)>,
    records: Vec<Arc<[u8]>>,
    bytes: u64,
    ids: HashMap<u128, u64>,
    lanes: HashMap<[u8; 17], Group>,
    users: HashMap<u128, Group>,
    by_priority: [u64; MAX_PRIORITY as usize],
}

impl Tail {
    /// A tail of which nothing is known yet.
    pub(in crate::buffer) fn new(mark: Mark) -> Self {
        Self { mark, ..Self::default() }
    }

    /// Which one it is.
    pub(in crate::buffer) fn mark(&self) -> Mark {
        self.mark
    }

    /// The place after its last.
    pub(in crate::buffer) fn next(&self) -> u64 {
        self.mark.from + self.len()
    }

    /// How many operations it has.
    pub(in crate::buffer) fn len(&self) -> u64 {
        u64::try_from(self.records.len()).unwrap_or(u64::MAX)
    }

    /// The bytes of their records.
    pub(in crate::buffer) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the next frame of the WAL goes; 0 if this generation has written nothing there yet.
    pub(in crate::buffer) fn end(&self) -> u64 {
        self.end
    }

    /// Whether the tables should follow now.
    pub(in crate::buffer) fn is_long(&self) -> bool {
        self.len() >= LONGEST || self.bytes >= HEAVIEST
    }

    /// Reads what it does not know yet of the tail with this mark. False if it ends at a frame that is
    /// damaged.
    pub(in crate::buffer) fn catch_up(&mut self, wal: &Wal, mark: Mark) -> bool {
        if self.mark != mark {
            *self = Self::new(mark);
        }
        while let Some(frame) = wal.frame(self.end) {
            if frame.head.generation != mark.generation || frame.head.first > self.next() {
                break;
            }
            if !frame.is_sound {
                return false;
            }
            self.take_in(self.end, &frame);
        }
        true
    }

    /// Takes in what a frame has that is not known yet.
    pub(super) fn take_in(&mut self, at: u64, frame: &Frame) {
        for (place, record) in (frame.head.first..).zip(frame.records()) {
            if place == self.next() {
                self.push(record.into());
            }
        }
        (self.end, self.last) = (frame.head.end(at), Some((at, frame.head)));
    }

    /// As [`Tail::catch_up`], for who does not have the write turn. Returns the generation of the first
    /// frame there is afterwards. If it is a later one, the WAL has been emptied since, and something
    /// else was written there: then there may have been more that belonged to this tail.
    pub(in crate::buffer) fn follow(&mut self, wal: &Wal) -> Option<u64> {
        self.catch_up(wal, self.mark);
        // The first thing that a later generation writes.
        wal.head(0).map(|head| head.generation)
    }

    /// Whether the last frame that it was read from is still there: one that could not be synced is taken
    /// back, and another comes in its place.
    pub(in crate::buffer) fn is_in(&self, wal: &Wal) -> bool {
        self.last.is_none_or(|(at, head)| wal.head(at) == Some(head))
    }

    /// Nothing more goes into this generation of the WAL.
    pub(in crate::buffer) fn close(&mut self) {
        self.end = LENGTH;
    }

    /// Tells of where the WAL ends now that what was appended is in it.
    pub(in crate::buffer) fn logged(&mut self, end: u64) {
        self.end = end;
    }

    /// Forgets the operations before a place: the tables have them.
    pub(in crate::buffer) fn advance(&mut self, from: u64) {
        let gone = usize::try_from(from.saturating_sub(self.mark.from)).unwrap_or(usize::MAX);
        let left = self.records.split_off(gone.min(self.records.len()));
        *self = Self { end: self.end, last: self.last, ..Self::new(Mark { from, ..self.mark }) };
        for record in left {
            self.push(record);
        }
    }

    /// Takes an operation in, whose record is the last in the tail, or is going to be.
    pub(in crate::buffer) fn push(&mut self, record: Arc<[u8]>) {
        // One with a damaged header is set aside when the tables follow; until then nothing finds it.
        if let Ok(header) = Header::decode(self.next(), &record) {
            self.note(&header, record);
        } else {
            self.keep(record);
        }
    }

    /// Stands in for records that are missing before a place.
    pub(in crate::buffer) fn pad(&mut self, place: u64) {
        while self.next() < place {
            self.push([].into());
        }
    }

    /// As [`Tail::push`], with the record's header.
    pub(in crate::buffer) fn note(&mut self, header: &Header, record: Arc<[u8]>) {
        let (place, id) = (self.next(), header.id.as_uuid().as_u128());
        let lane = self.lanes.entry(lane_bytes(header.lane)).or_default();
        let user = self.users.entry(header.user_id.as_u128()).or_default();
        for group in [lane, user] {
            group.places.push(place);
            group.newest = group.newest.max(id);
            group.bytes += u64::try_from(record.len()).unwrap_or(u64::MAX);
        }
        self.ids.insert(id, place);
        self.by_priority[priority_index(header.priority)] += 1;
        self.keep(record);
    }

    fn keep(&mut self, record: Arc<[u8]>) {
        self.bytes += u64::try_from(record.len()).unwrap_or(u64::MAX);
        self.records.push(record);
    }

    /// The record at a place.
    pub(in crate::buffer) fn record(&self, place: u64) -> Option<&Arc<[u8]>> {
        let position = place.checked_sub(self.mark.from)?;
        self.records.get(usize::try_from(position).ok()?)
    }

    /// The records from a place on.
    pub(in crate::buffer) fn records_from(&self, place: u64) -> &[Arc<[u8]>] {
        let position = place.saturating_sub(self.mark.from);
        usize::try_from(position).ok().and_then(|at| self.records.get(at..)).unwrap_or_default()
    }

    /// The place of an operation.
    pub(in crate::buffer) fn place(&self, id: u128) -> Option<u64> {
        self.ids.get(&id).copied()
    }

    /// The operations of a lane.
    pub(in crate::buffer) fn lane(&self, lane: &[u8; 17]) -> Option<&Group> {
        self.lanes.get(lane)
    }

    /// All lanes, with their operations.
    pub(in crate::buffer) fn lanes(&self) -> impl Iterator<Item = (&[u8; 17], &Group)> {
        self.lanes.iter()
    }

    /// The operations of a user.
    pub(in crate::buffer) fn user(&self, user: u128) -> Option<&Group> {
        self.users.get(&user)
    }

    /// How many operations it has of each priority, from 1.
    pub(in crate::buffer) fn by_priority(&self) -> [u64; MAX_PRIORITY as usize] {
        self.by_priority
    }
}
