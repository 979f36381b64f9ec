//! Dead letters: operations that replay gave up on, or that have grown too old.

use redb::ReadableTable;

use super::{Tables, keys_before, signed};
use crate::buffer::format::damage::Damage;
use crate::buffer::format::layout::{Certificate, DEAD_COUNT, Whereabouts, encode_dead};
use crate::buffer::format::record::Header;
use crate::domain::{Lane, MAX_PRIORITY, OperationState};

impl Tables<'_> {
    /// Makes a dead letter of an operation.
    pub(in crate::buffer) fn bury(
        &mut self,
        place: u64,
        state: OperationState,
        reason: &str,
        now: i64,
    ) -> Result<(), redb::Error> {
        let Some(bytes) = self.record(place)? else { return Ok(()) };
        let Ok(header) = Header::decode(place, &bytes) else {
            return self.quarantine(place, Damage::Header);
        };
        self.remove(place)?;
        let id = header.id.as_uuid().as_u128();
        let certificate = Certificate { state, reason: reason.to_owned(), place };
        self.dead.open()?.insert((now, id), encode_dead(&certificate, &bytes).as_slice())?;
        self.ids.open()?.insert(id, Whereabouts::Dead(now).encode())?;
        self.totals.add(DEAD_COUNT, 1)
    }

    /// Ends the retention of dead letters from before `cutoff` (Unix milliseconds), `limit` at the
    /// most. Returns how many there were.
    pub(in crate::buffer) fn purge_dead(
        &mut self,
        cutoff: i64,
        limit: usize,
    ) -> Result<usize, redb::Error> {
        let keys = keys_before(self.dead.open()?, cutoff, limit)?;
        for key in &keys {
            self.dead.open()?.remove(key)?;
            self.ids.open()?.remove(key.1)?;
        }
        self.totals.add(DEAD_COUNT, -signed(keys.len()))?;
        Ok(keys.len())
    }

    /// Makes dead letters of the operations queued before `cutoff` (Unix milliseconds), save those
    /// of the `spared` lanes, oldest first, `limit` at the most. Returns how many there were.
    pub(in crate::buffer) fn expire(
        &mut self,
        cutoff: i64,
        now: i64,
        limit: usize,
        spared: &dyn Fn(Lane) -> bool,
    ) -> Result<usize, redb::Error> {
        let mut old = Vec::new();
        for entry in self.records.iter()? {
            let (place, bytes) = entry?;
            let Ok(header) = Header::decode(place.value(), bytes.value()) else { continue };
            if header.queued_at >= cutoff || old.len() == limit {
                break;
            }
            // What ends a session or sets a user's rights never grows too old.
            if header.priority < MAX_PRIORITY && !spared(header.lane) {
                old.push(place.value());
            }
        }
        for place in &old {
            self.bury(*place, OperationState::Expired, "too_old", now)?;
        }
        Ok(old.len())
    }
}
