//! What follows from the data of the new file is made from it: where settled operations are, how long
//! revocations last, and the indexes.

use redb::{ReadableDatabase, ReadableTable, Value};

use super::recover::Recovery;
use super::rows::{ROWS, Rows, put, u128_key};
use crate::buffer::format::layout::{
    AUDIT, DEAD, IDS, QUARANTINE, RECORDS, REVOKED, REVOKED_UNTIL, Whereabouts,
};
use crate::buffer::format::record::Header;
use crate::buffer::tables::Tables;
use crate::buffer::tables::audit::{Act, ActKind};

impl Recovery<'_> {
    /// Tells where dead letters are, what is in quarantine and what was discarded, by its id, and how
    /// long revocations last.
    pub(super) fn settled(&self) -> Result<(), redb::Error> {
        let read = self.target.begin_read()?;
        let mut rows = Rows::default();
        let mut tell = |id: u128, place: Whereabouts| {
            rows.push(u128_key(id), <(u8, u64)>::as_bytes(&place.encode()).to_vec());
            if rows.are_many() { put(self.target, IDS, rows.take()) } else { Ok(()) }
        };
        for entry in read.open_table(DEAD)?.iter()? {
            let (at, id) = entry?.0.value();
            tell(id, Whereabouts::Dead(at))?;
        }
        for entry in read.open_table(QUARANTINE)?.iter()? {
            let (place, record) = entry?;
            if let Ok(header) = Header::decode(place.value(), record.value()) {
                tell(header.id.as_uuid().as_u128(), Whereabouts::Quarantined(place.value()))?;
            }
        }
        for entry in read.open_table(AUDIT)?.iter()?.rev() {
            let (key, act) = entry?;
            let act = serde_json::from_slice::<Act>(act.value()).ok();
            if act.is_some_and(|act| matches!(act.kind, ActKind::Discard | ActKind::Erase)) {
                let (at, id) = key.value();
                tell(id, Whereabouts::Discarded(at))?;
            }
        }
        put(self.target, IDS, rows.take())?;
        for entry in read.open_table(REVOKED)?.iter()? {
            let (session, until) = entry?;
            let key = <(i64, u128)>::as_bytes(&(until.value(), session.value())).to_vec();
            rows.push(key, Vec::new());
            if rows.are_many() {
                put(self.target, REVOKED_UNTIL, rows.take())?;
            }
        }
        put(self.target, REVOKED_UNTIL, rows.take())
    }

    /// Has the indexes tell of the records from a place on.
    pub(super) fn build_indexes(&self, mut from: u64) -> Result<(), redb::Error> {
        loop {
            let mut headers = Vec::new();
            let records = self.target.begin_read()?.open_table(RECORDS)?;
            for entry in records.range(from..)?.take(ROWS) {
                let (place, record) = entry?;
                if let Ok(header) = Header::decode(place.value(), record.value()) {
                    headers.push((place.value(), header, record.value().len()));
                }
            }
            let Some((last, _, _)) = headers.last() else { return Ok(()) };
            from = last + 1;
            let transaction = self.target.begin_write()?;
            let mut tables = Tables::of_new_file(&transaction)?;
            tables.tell_of(headers)?;
            tables.close()?;
            transaction.commit()?;
        }
    }
}
