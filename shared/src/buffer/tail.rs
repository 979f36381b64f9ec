//! The tail: the newest operations, whose records are in the file and which no index tells of yet.
//!
//! An append that changed every index would rewrite a page of each, or several, for a handful of
//! entries. So it writes its record and nothing else, and the indexes and counters follow in one go,
//! each index in the order of its keys (`Tables::index`): when the tail has grown long, and before
//! anything is done that is not an append. The counter `indexed` is the place where the tail begins;
//! it ends where the records do. A record of the tail never changes.
//!
//! What the indexes do not tell of the tail is told by its records. Each process keeps it in memory
//! as well, and reads of those records only what other processes have appended.

use std::collections::{BTreeMap, HashMap};

use redb::{ReadableTable, StorageError};

use super::layout::{
    BY_PRIORITY, BYTES, Bytes, INDEXED, LaneState, PENDING, Place, priority_index,
};
use super::record::{Header, lane_bytes};
use super::sorted::insert_sorted;
use super::tables::{Tables, signed};
use crate::domain::MAX_PRIORITY;

/// Operations that a tail has before the indexes follow, at the most: the longer, the more entries
/// share a page that is rewritten, and the longer is the commit in which they follow.
pub(super) const LONGEST: u64 = 4096;
/// Bytes of their records, at the most: who does not know a tail yet reads all of it.
const HEAVIEST: u64 = 4 << 20;

/// The operations of a lane, or of a user, in the tail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    /// Their places, in order.
    pub(super) places: Vec<u64>,
    /// The newest of their ids.
    pub(super) newest: u128,
    /// The bytes of their records.
    pub(super) bytes: u64,
}

impl Group {
    /// How many operations it has.
    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.places.len()).unwrap_or(u64::MAX)
    }
}

/// What a process knows of the tail.
#[derive(Debug, Default)]
pub(super) struct Tail {
    from: u64,
    next: u64,
    bytes: u64,
    ids: HashMap<u128, u64>,
    lanes: HashMap<[u8; 17], Group>,
    users: HashMap<u128, Group>,
    by_priority: [u64; MAX_PRIORITY as usize],
}

impl Tail {
    /// Where it begins.
    pub(super) fn from(&self) -> u64 {
        self.from
    }

    /// The place after its last.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// How many operations it has.
    pub(super) fn len(&self) -> u64 {
        self.next - self.from
    }

    /// The bytes of their records.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the indexes should follow now.
    pub(super) fn is_long(&self) -> bool {
        self.len() >= LONGEST || self.bytes >= HEAVIEST
    }

    /// Forgets everything: a tail begins here.
    fn begin(&mut self, from: u64) {
        (self.from, self.next, self.bytes) = (from, from, 0);
        self.ids.clear();
        self.lanes.clear();
        self.users.clear();
        self.by_priority = [0; MAX_PRIORITY as usize];
    }

    /// Reads what it does not know yet of a tail that begins at a place.
    pub(super) fn catch_up(
        &mut self,
        records: &impl ReadableTable<u64, Bytes>,
        from: u64,
    ) -> Result<(), StorageError> {
        if self.from != from {
            self.begin(from);
        }
        let next = records.last()?.map_or(0, |(last, _)| last.value() + 1);
        if self.next >= next {
            return Ok(());
        }
        for entry in records.range(self.next..next)? {
            let (place, record) = entry?;
            // One with a damaged header is set aside when the indexes follow; until then nothing
            // finds it here.
            match Header::decode(place.value(), record.value()) {
                Ok(header) => self.note(place.value(), &header, record.value().len()),
                Err(_) => self.extend(place.value(), record.value().len()),
            }
        }
        Ok(())
    }

    /// Takes an operation in, whose record is the last in the tail, or is going to be.
    pub(super) fn note(&mut self, place: u64, header: &Header, length: usize) {
        let id = header.id.as_uuid().as_u128();
        let lane = self.lanes.entry(lane_bytes(header.lane)).or_default();
        let user = self.users.entry(header.user_id.as_u128()).or_default();
        for group in [lane, user] {
            group.places.push(place);
            group.newest = group.newest.max(id);
            group.bytes += u64::try_from(length).unwrap_or(u64::MAX);
        }
        self.ids.insert(id, place);
        self.by_priority[priority_index(header.priority)] += 1;
        self.extend(place, length);
    }

    fn extend(&mut self, place: u64, length: usize) {
        self.next = place + 1;
        self.bytes += u64::try_from(length).unwrap_or(u64::MAX);
    }

    /// The place of an operation.
    pub(super) fn place(&self, id: u128) -> Option<u64> {
        self.ids.get(&id).copied()
    }

    /// The id of the operation at a place, if this process has read it before.
    fn id_at(&self, place: u64) -> Option<u128> {
        self.ids.iter().find(|(_, at)| **at == place).map(|(id, _)| *id)
    }

    /// The operations of a lane.
    pub(super) fn lane(&self, lane: &[u8; 17]) -> Option<&Group> {
        self.lanes.get(lane)
    }

    /// All lanes, with their operations.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (&[u8; 17], &Group)> {
        self.lanes.iter()
    }

    /// The operations of a user.
    pub(super) fn user(&self, user: u128) -> Option<&Group> {
        self.users.get(&user)
    }

    /// How many operations it has of each priority, from 1.
    pub(super) fn by_priority(&self) -> [u64; MAX_PRIORITY as usize] {
        self.by_priority
    }
}

impl Tables<'_> {
    /// Brings the indexes up to the end of the records, or over so many of them at the most. The tail
    /// begins there then.
    pub(super) fn index(&mut self, most: u64) -> Result<(), redb::Error> {
        self.write_appended()?;
        let (from, next) = (self.tail.from(), self.tail.next());
        let to = next.min(from.saturating_add(most));
        if from == to {
            return Ok(());
        }
        let (mut sound, mut damaged) = (Vec::new(), Vec::new());
        for entry in self.records.range(from..to)? {
            let (place, record) = entry?;
            match Header::decode(place.value(), record.value()) {
                Ok(header) => sound.push((place.value(), header, record.value().len())),
                Err(damage) => damaged.push((place.value(), damage)),
            }
        }
        self.index_lanes(&sound)?;
        self.index_users(&sound)?;
        // Mostly in the order of the places already: ids are drawn from a clock.
        sound.sort_unstable_by_key(|(_, header, _)| header.id);
        let (mut counts, mut bytes) = ([0; MAX_PRIORITY as usize], 0);
        for (_, header, length) in &sound {
            counts[priority_index(header.priority)] += 1;
            bytes += signed(*length);
        }
        self.totals.add(PENDING, signed(sound.len()))?;
        self.totals.add(BYTES, bytes)?;
        for (name, count) in BY_PRIORITY.into_iter().zip(counts) {
            self.totals.add(name, count)?;
        }
        let places = sound.iter().map(|(place, header, _)| {
            (header.id.as_uuid().as_u128(), Place::Pending(*place).encode())
        });
        insert_sorted(self.places.open()?, places)?;
        let known: Vec<_> = damaged.iter().map(|(place, _)| self.tail.id_at(*place)).collect();
        self.totals.set(INDEXED, to);
        for ((place, damage), id) in damaged.into_iter().zip(known) {
            let Some(record) = self.records.remove(place)?.map(|record| record.value().to_vec())
            else {
                continue;
            };
            if let Some(id) = id {
                self.places.open()?.insert(id, Place::Quarantined(place).encode())?;
            }
            self.set_aside(place, damage, &record)?;
        }
        Ok(self.tail.catch_up(&self.records, to)?)
    }

    /// Puts operations, in the order of their places, at the ends of their lanes.
    fn index_lanes(&mut self, operations: &[(u64, Header, usize)]) -> Result<(), redb::Error> {
        let mut lanes: BTreeMap<[u8; 17], Vec<(u64, &Header)>> = BTreeMap::new();
        for (place, header, _) in operations {
            lanes.entry(lane_bytes(header.lane)).or_default().push((*place, header));
        }
        let rows = lanes.iter().flat_map(|(lane, operations)| {
            operations.iter().map(move |(place, _)| ((lane, *place), ()))
        });
        insert_sorted(self.lanes.open()?, rows)?;
        let mut fresh = Vec::new();
        let (mut kind, mut last) = (None, None);
        for (lane, operations) in &lanes {
            // Lanes of new entities come after all others of their kind, unless a client named them:
            // they need not be looked for.
            if kind != Some(lane[0]) {
                (kind, last) = (Some(lane[0]), self.last_lane(lane[0])?);
            }
            let before = if Some(*lane) > last { None } else { self.lane_state(lane)? };
            let mut after = before;
            for (place, header) in operations {
                after.get_or_insert_with(|| LaneState::beginning(*place, header)).note(header);
            }
            match after.filter(|after| before.is_none() && after.not_before == 0) {
                Some(after) => fresh.push((lane, after)),
                None => self.reindex(lane, before.as_ref(), after.as_ref())?,
            }
        }
        self.begin_lanes(fresh)
    }

    /// The last of the lanes of a kind.
    fn last_lane(&mut self, kind: u8) -> Result<Option<[u8; 17]>, redb::Error> {
        let (mut first, mut last) = ([0; 17], [u8::MAX; 17]);
        (first[0], last[0]) = (kind, kind);
        let lane =
            self.lane_states.open()?.range::<&[u8; 17]>(&first..=&last)?.next_back().transpose()?;
        Ok(lane.map(|(lane, _)| *lane.value()))
    }

    /// Puts lanes, in their order, where lanes belong that had nothing pending and are ready.
    fn begin_lanes(&mut self, lanes: Vec<(&[u8; 17], LaneState)>) -> Result<(), redb::Error> {
        let states: Vec<_> = lanes.iter().map(|(lane, state)| (*lane, state.encode())).collect();
        let entries = states.iter().map(|(lane, state)| (*lane, state));
        insert_sorted(self.lane_states.open()?, entries)?;
        let mut slots: Vec<_> =
            lanes.iter().map(|(lane, state)| (state.rank(), state.slot(lane).encode())).collect();
        slots.sort_unstable();
        let entries = slots.iter().map(|(rank, slot)| (*rank, slot));
        insert_sorted(self.ready.open()?, entries)
    }

    fn index_users(&mut self, operations: &[(u64, Header, usize)]) -> Result<(), redb::Error> {
        let mut users: Vec<_> = operations
            .iter()
            .map(|(place, header, length)| (header.user_id.as_u128(), *place, *length))
            .collect();
        users.sort_unstable();
        for (user, _, length) in &users {
            self.totals.add_to_user(*user, 1, signed(*length))?;
        }
        insert_sorted(
            self.users.open()?,
            users.iter().map(|(user, place, _)| ((*user, *place), ())),
        )
    }
}
