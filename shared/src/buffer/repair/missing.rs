//! What of a damaged file its trees did not give: records and dead letters that other pages have, and what
//! is in the WAL.

use std::collections::HashMap;

use redb::{ReadableDatabase, ReadableTable, Value};

use super::recover::{Recovery, States};
use super::rows::{Kept, Rows, place_of, put, u128_of};
use crate::buffer::format::damage::Damage;
use crate::buffer::format::generation::is_of_same_file;
use crate::buffer::format::layout::{
    CHECKPOINT, DEAD, IDS, QUARANTINE, RECORDS, WAL_GENERATION, Whereabouts, decode_dead,
};
use crate::buffer::format::record::{self, Header};
use crate::buffer::wal::file::Wal;
use crate::buffer::wal::salvage::{State, look_through};
use crate::buffer::wal::tail::Mark;

/// What `ids` said of an operation.
type Known = HashMap<u128, Whereabouts>;

impl Recovery<'_> {
    /// Looks for records and dead letters that their trees did not give. Returns the operations of
    /// which `ids` tells and whose records are not where that says.
    pub(super) fn look_for_missing(
        &mut self,
        is_whole: bool,
        is_dead_whole: bool,
    ) -> Result<Vec<(u128, u64)>, redb::Error> {
        let mut known = Known::new();
        let read = self.target.begin_read()?;
        let (records, quarantine) = (read.open_table(RECORDS)?, read.open_table(QUARANTINE)?);
        let has_ids = self.walk(IDS, States::Newest, |pair| {
            let (id, place) = (u128_of(pair.key), <(u8, u64)>::from_bytes(pair.value));
            let Some(place) = Whereabouts::decode(place).filter(|_| pair.is_sound) else {
                return Ok(());
            };
            let is_there = match place {
                Whereabouts::Pending(at) => records.get(at)?.is_some(),
                Whereabouts::Quarantined(at) => {
                    quarantine.get(at)?.is_some_and(|it| Header::decode(at, it.value()).is_ok())
                }
                Whereabouts::Dead(_) => is_dead_whole,
                Whereabouts::Discarded(_) => is_whole,
            };
            if !is_there {
                known.entry(id).or_insert(place);
            }
            Ok(())
        })?;
        drop((records, quarantine, read));
        if !is_dead_whole {
            self.scan_dead(&known, has_ids)?;
        }
        if !is_whole {
            self.scan_records(&known)?;
        }
        let at = |place| match place {
            Whereabouts::Pending(at) | Whereabouts::Quarantined(at) => Some(at),
            Whereabouts::Dead(_) | Whereabouts::Discarded(_) => None,
        };
        Ok(known.into_iter().filter_map(|(id, place)| Some((id, at(place)?))).collect())
    }

    /// Sets aside what little is known of operations whose records are nowhere.
    pub(super) fn mourn(&mut self, missing: Vec<(u128, u64)>) -> Result<(), redb::Error> {
        if missing.is_empty() {
            return Ok(());
        }
        let end = if self.has_counters { self.counter(CHECKPOINT) } else { self.next };
        let transaction = self.target.begin_write()?;
        {
            let records = transaction.open_table(RECORDS)?;
            let mut quarantine = transaction.open_table(QUARANTINE)?;
            let mut ids = transaction.open_table(IDS)?;
            for (id, at) in missing {
                if at >= end || records.get(at)?.is_some() || ids.get(id)?.is_some() {
                    continue;
                }
                if quarantine.get(at)?.is_none() {
                    quarantine.insert(at, &[][..])?;
                }
                ids.insert(id, Whereabouts::Quarantined(at).encode())?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn scan_records(&mut self, known: &Known) -> Result<(), redb::Error> {
        let (target, keys, mut kept) = (self.target, self.keys, Kept::default());
        let gone = target.begin_read()?.open_table(IDS)?;
        let mut look = |place: u64, value: &[u8]| {
            let Ok(header) = Header::decode(place, value) else { return Ok(false) };
            let id = header.id.as_uuid().as_u128();
            let may_be = match known.get(&id) {
                Some(known) => *known == Whereabouts::Pending(place),
                // It may have been settled, which the ledger knows; or `ids` has lost it, and a commit
                // has given what is left a sound checksum.
                None => true,
            };
            let is_sound =
                matches!(record::decode(place, value, keys), Ok(_) | Err(Damage::UnknownKey));
            if may_be && is_sound && gone.get(id)?.is_none() {
                kept.push(place, value.into());
                kept.put_some(target)?;
            }
            Ok::<bool, redb::Error>(true)
        };
        self.pages.scan(8, &mut |key, value| look(place_of(key), value))?;
        // The WAL has what it had before it was emptied, until that is written over.
        let generation = self.counter(WAL_GENERATION);
        for (found, place, record) in self.wal.map(Wal::all_records).unwrap_or_default() {
            if !self.has_counters || is_of_same_file(found, generation) && found < generation {
                look(place, &record)?;
            }
        }
        self.keep(kept)
    }

    fn scan_dead(&self, known: &Known, has_ids: bool) -> Result<(), redb::Error> {
        let mut rows = Rows::default();
        let gone = self.target.begin_read()?.open_table(IDS)?;
        self.pages.scan(24, &mut |key, value| {
            let Ok((certificate, record)) = decode_dead(value) else { return Ok(false) };
            let Ok(header) = Header::decode(certificate.place, record) else { return Ok(false) };
            let (at, id) = <(i64, u128)>::from_bytes(key);
            let may_be = match known.get(&id) {
                Some(known) => *known == Whereabouts::Dead(at),
                None => !has_ids,
            };
            if may_be && header.id.as_uuid().as_u128() == id && gone.get(id)?.is_none() {
                rows.push(key.into(), value.into());
            }
            if rows.are_many() {
                put(self.target, DEAD, rows.take())?;
            }
            Ok::<bool, redb::Error>(true)
        })?;
        put(self.target, DEAD, rows.take())?;
        self.settled()
    }

    /// Takes the records of the WAL in. Returns the place of the first.
    pub(super) fn take_wal_in(&mut self) -> Result<u64, redb::Error> {
        let Some(wal) = self.wal else { return Ok(self.next) };
        let (generation, from) = if self.has_counters {
            (self.counter(WAL_GENERATION), self.counter(CHECKPOINT))
        } else if let Some((generation, first)) = wal.newest() {
            self.counters.insert(WAL_GENERATION.to_owned(), generation);
            (generation, first)
        } else {
            return Ok(self.next);
        };
        let (state, tail) = look_through(wal, Mark { generation, from });
        if state == State::Foreign {
            return Ok(from);
        }
        let mut kept = Kept::default();
        let read = self.target.begin_read()?;
        let (ids, records) = (read.open_table(IDS)?, read.open_table(RECORDS)?);
        for (place, record) in (from..).zip(tail.records_from(from)) {
            let header = Header::decode(place, record);
            let id = header.as_ref().map_or(0, |header| header.id.as_uuid().as_u128());
            // In the counters' absence it may have been settled since.
            let may_be = self.has_counters || ids.get(id)?.is_none();
            if may_be && records.get(place)?.is_none() {
                kept.push(place, record.to_vec());
            }
        }
        drop((ids, records, read));
        self.next = self.next.max(tail.next());
        self.keep(kept)?;
        Ok(from)
    }
}
