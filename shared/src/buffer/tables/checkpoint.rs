//! A checkpoint brings the tables up to the WAL: the records of the tail, and all that the indexes and counters
//! tell of them, go in in one go, each table in the order of its keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::ReadableTable;

use super::sorted::insert_sorted;
use super::{Tables, signed};
use crate::buffer::format::layout::{
    BY_PRIORITY, BYTES, LaneState, PENDING, Whereabouts, priority_index,
};
use crate::buffer::format::record::{Header, lane_bytes};
use crate::domain::MAX_PRIORITY;

impl Tables<'_> {
    /// Takes the records of the tail in, which are in the order of their places. Damaged ones are set aside.
    pub(super) fn take_in(
        &mut self,
        records: impl Iterator<Item = (u64, Arc<[u8]>)>,
    ) -> Result<(), redb::Error> {
        let (mut sound, mut headers, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        for (place, record) in records {
            match Header::decode(place, &record) {
                Ok(header) => {
                    headers.push((place, header, record.len()));
                    sound.push((place, record));
                }
                Err(damage) => damaged.push((place, damage, record)),
            }
        }
        let entries = sound.iter().map(|(place, record)| (*place, record.as_ref()));
        insert_sorted(&mut self.records, entries)?;
        self.tell_of(headers)?;
        for (place, damage, record) in damaged {
            self.set_aside(place, damage, &record)?;
        }
        Ok(())
    }

    /// Has the indexes and counters tell of records, which are in the order of their places and come
    /// after all others of their lanes.
    pub(in crate::buffer) fn tell_of(
        &mut self,
        mut headers: Vec<(u64, Header, usize)>,
    ) -> Result<(), redb::Error> {
        self.index_lanes(&headers)?;
        self.index_users(&headers)?;
        // Mostly in the order of the places already: ids are drawn from a clock.
        headers.sort_unstable_by_key(|(_, header, _)| header.id);
        let (mut counts, mut bytes) = ([0; MAX_PRIORITY as usize], 0);
        for (_, header, length) in &headers {
            counts[priority_index(header.priority)] += 1;
            bytes += signed(*length);
        }
        self.totals.add(PENDING, signed(headers.len()))?;
        self.totals.add(BYTES, bytes)?;
        for (name, count) in BY_PRIORITY.into_iter().zip(counts) {
            self.totals.add(name, count)?;
        }
        let ids = headers.iter().map(|(place, header, _)| {
            (header.id.as_uuid().as_u128(), Whereabouts::Pending(*place).encode())
        });
        insert_sorted(self.ids.open()?, ids)
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
