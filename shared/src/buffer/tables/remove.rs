//! Taking operations out of the tables, one or many: what leaves a table leaves it in the order of its
//! keys, in one go.

use std::collections::BTreeMap;

use redb::ReadableTable;

use super::sorted::remove_sorted;
use super::{Tables, header_at, signed};
use crate::buffer::format::layout::{BY_PRIORITY, LaneState, priority_index};
use crate::buffer::format::record::{Header, lane_bytes};

/// An operation whose record has been taken out.
struct Removed {
    place: u64,
    header: Header,
    length: usize,
}

/// Lanes, each with the operations that leave it, in order.
type Leaving<'a> = BTreeMap<[u8; 17], Vec<&'a Removed>>;

impl Tables<'_> {
    /// Takes an operation out of the buffer. One that is not there is no error: it was taken out before.
    pub(in crate::buffer) fn remove(&mut self, place: u64) -> Result<Option<Vec<u8>>, redb::Error> {
        Ok(self.remove_all(vec![place])?.pop().map(|(_, record)| record))
    }

    /// Takes operations out of the buffer. Returns the places and records of those that were there.
    pub(in crate::buffer) fn remove_all(
        &mut self,
        mut places: Vec<u64>,
    ) -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
        places.sort_unstable();
        places.dedup();
        let mut records = Vec::with_capacity(places.len());
        // Side by side, since what lies between would have to be read, and may be large.
        for run in places.chunk_by(|place, next| next - place == 1) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            self.records.retain_in::<u64, _>(first..=last, |place, record| {
                records.push((place, record.to_vec()));
                false
            })?;
        }
        let (mut sound, mut unreadable) = (Vec::with_capacity(records.len()), Vec::new());
        for (place, record) in &records {
            let (place, length) = (*place, record.len());
            match Header::decode(place, record) {
                Ok(header) => sound.push(Removed { place, header, length }),
                Err(_) => unreadable.push((place, length)),
            }
        }
        if !sound.is_empty() {
            self.unlink(&sound)?;
        }
        for (place, length) in unreadable {
            self.unlink_unreadable(place, length)?;
        }
        Ok(records)
    }

    /// Takes operations, whose records are gone, out of the indexes and sums.
    fn unlink(&mut self, operations: &[Removed]) -> Result<(), redb::Error> {
        let mut ids: Vec<_> =
            operations.iter().map(|gone| gone.header.id.as_uuid().as_u128()).collect();
        ids.sort_unstable();
        remove_sorted(self.ids.open()?, &ids, |_, _| true)?;
        let mut of_users: Vec<_> =
            operations.iter().map(|gone| (gone.header.user_id.as_u128(), gone.place)).collect();
        of_users.sort_unstable();
        remove_sorted(self.users.open()?, &of_users, |_, ()| true)?;
        let mut leaving = Leaving::new();
        for gone in operations {
            let user = gone.header.user_id.as_u128();
            self.totals.add_to_user(user, -1, -signed(gone.length))?;
            self.uncount(gone.length)?;
            self.totals.add(BY_PRIORITY[priority_index(gone.header.priority)], -1)?;
            leaving.entry(lane_bytes(gone.header.lane)).or_default().push(gone);
        }
        let rows: Vec<_> = leaving
            .iter()
            .flat_map(|(lane, gone)| gone.iter().map(move |gone| (*lane, gone.place)))
            .collect();
        remove_sorted(self.lanes.open()?, &rows, |_, ()| true)?;
        let going_on = self.end_lanes(&leaving)?;
        for (lane, before) in going_on {
            let after = self.shortened(&lane, &before, &leaving[&lane])?;
            self.reindex(&lane, Some(&before), after.as_ref())?;
        }
        Ok(())
    }

    /// Takes out the ready lanes that nothing is left of. Returns the others, with their states before.
    fn end_lanes(
        &mut self,
        leaving: &Leaving<'_>,
    ) -> Result<Vec<([u8; 17], LaneState)>, redb::Error> {
        let (mut ended, mut going_on) = (Vec::new(), Vec::new());
        let lanes: Vec<_> = leaving.keys().copied().collect();
        remove_sorted(self.lane_states.open()?, &lanes, |lane, state| {
            let state = LaneState::decode(state);
            let gone = leaving.get(lane).map_or(&[][..], Vec::as_slice);
            let is_over = counted_out(&state, gone).len() == 0 && has_head(&state, gone);
            let ends = is_over && state.not_before == 0;
            if ends {
                ended.push(state.rank());
            } else {
                going_on.push((*lane, state));
            }
            ends
        })?;
        ended.sort_unstable();
        remove_sorted(self.ready.open()?, &ended, |_, _| true)?;
        Ok(going_on)
    }

    /// The state of a lane without these operations; none if nothing is left of it.
    fn shortened(
        &mut self,
        lane: &[u8; 17],
        before: &LaneState,
        gone: &[&Removed],
    ) -> Result<Option<LaneState>, redb::Error> {
        let after = counted_out(before, gone);
        if !has_head(before, gone) {
            return Ok(Some(after));
        }
        let Some(head) = self.first_of(lane)? else { return Ok(None) };
        let (queued_at, not_before) = header_at(&self.records, head)?
            .map_or((before.queued_at, 0), |header| (header.queued_at, header.not_before));
        Ok(Some(LaneState { head, queued_at, not_before, ..after }))
    }

    fn first_of(&mut self, lane: &[u8; 17]) -> Result<Option<u64>, redb::Error> {
        let mut range = self.lanes.open()?.range((lane, 0)..=(lane, u64::MAX))?;
        Ok(range.next().transpose()?.map(|(key, _)| key.value().1))
    }
}

/// A lane's state with these operations counted out.
fn counted_out(state: &LaneState, gone: &[&Removed]) -> LaneState {
    let mut after = *state;
    for gone in gone {
        let count = after.count(gone.header.priority);
        *count = count.saturating_sub(1);
    }
    after
}

/// Whether a lane's head is among these operations.
fn has_head(state: &LaneState, gone: &[&Removed]) -> bool {
    gone.iter().any(|gone| gone.place == state.head)
}
