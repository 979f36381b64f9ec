//! Setting aside records that cannot be read: with all their bytes, and with every trace of them in
//! the other tables put right. Where a header is damaged its traces are looked for by place, which
//! reads whole tables: damage is rare and may cost.

use redb::ReadableTable;

use super::{Tables, header_at, signed};
use crate::buffer::format::damage::Damage;
use crate::buffer::format::layout::{BY_PRIORITY, LaneState, QUARANTINED, Whereabouts};
use crate::buffer::format::record::{self, Header};
use crate::metric;

impl Tables<'_> {
    /// Sets a record aside that cannot be read, with all its bytes.
    pub(in crate::buffer) fn quarantine(
        &mut self,
        place: u64,
        damage: Damage,
    ) -> Result<(), redb::Error> {
        let Some(bytes) = self.remove(place)? else { return Ok(()) };
        if let Ok(header) = Header::decode(place, &bytes) {
            let id = header.id.as_uuid().as_u128();
            self.ids.open()?.insert(id, Whereabouts::Quarantined(place).encode())?;
        }
        self.set_aside(place, damage, &bytes)
    }

    /// Keeps the bytes of a record that is not in `records` any more.
    pub(super) fn set_aside(
        &mut self,
        place: u64,
        damage: Damage,
        bytes: &[u8],
    ) -> Result<(), redb::Error> {
        self.quarantine.open()?.insert(place, bytes)?;
        let key = record::key_id(bytes).unwrap_or("none");
        tracing::error!(place = place, %damage, key, "a buffered record cannot be read: quarantined");
        metrics::counter!(metric::QUARANTINED.name).increment(1);
        self.totals.add(QUARANTINED, 1)
    }

    /// Finds a record's traces by its place when its header cannot say where they are.
    pub(super) fn unlink_unreadable(
        &mut self,
        place: u64,
        length: usize,
    ) -> Result<(), redb::Error> {
        let mut id = None;
        for entry in self.ids.open()?.iter()? {
            let (key, found) = entry?;
            if Whereabouts::decode(found.value()) == Some(Whereabouts::Pending(place)) {
                id = Some(key.value());
            }
        }
        if let Some(id) = id {
            self.ids.open()?.insert(id, Whereabouts::Quarantined(place).encode())?;
        }
        let mut user = None;
        for entry in self.users.open()?.iter()? {
            let (key, _) = entry?;
            if key.value().1 == place {
                user = Some(key.value().0);
            }
        }
        if let Some(user) = user {
            self.users.open()?.remove((user, place))?;
            self.totals.add_to_user(user, -1, -signed(length))?;
        }
        let mut lane = None;
        for entry in self.lanes.open()?.iter()? {
            let (key, _) = entry?;
            if key.value().1 == place {
                lane = Some(*key.value().0);
            }
        }
        self.uncount(length)?;
        let Some(lane) = lane else { return Ok(()) };
        self.lanes.open()?.remove((&lane, place))?;
        self.rebuild_lane(&lane)
    }

    /// Works a lane's state out anew from its records. Those that cannot be read count as least urgent:
    /// a lane goes on while it has any.
    fn rebuild_lane(&mut self, lane: &[u8; 17]) -> Result<(), redb::Error> {
        let before = self.lane_state(lane)?;
        let (mut after, mut unread): (Option<LaneState>, u32) = (None, 0);
        let places: Vec<u64> = self
            .lanes
            .open()?
            .range((lane, 0)..=(lane, u64::MAX))?
            .map(|entry| entry.map(|(key, _)| key.value().1))
            .collect::<Result<_, _>>()?;
        for place in &places {
            let place = *place;
            let Some(header) = header_at(&self.records, place)? else {
                unread += 1;
                continue;
            };
            after.get_or_insert(LaneState::beginning(place, &header)).note(&header);
        }
        // A lane of which nothing can be read yet must be found all the same, to be set aside.
        if let (None, Some(head), Some(old)) = (&after, places.first(), &before) {
            let (head, counts) = (*head, LaneState::default().counts);
            after = Some(LaneState { head, counts, not_before: 0, ..*old });
        }
        if let Some(after) = &mut after {
            *after.count(1) += unread;
        }
        let counts = |state: Option<LaneState>| state.unwrap_or_default().counts;
        for (name, (old, new)) in
            BY_PRIORITY.into_iter().zip(counts(before).into_iter().zip(counts(after)))
        {
            self.totals.add(name, i64::from(new) - i64::from(old))?;
        }
        self.reindex(lane, before.as_ref(), after.as_ref())
    }
}
