//! What can be had of a damaged buffer file, in a new one.
//!
//! Records, dead letters and what operators did are copied, as far as they can be read; everything
//! that tells of them (lanes, what is ready, ids, users, counters) is made anew from them. The
//! damaged file is only read, page by page (`pages`), never walked or changed by redb.
//!
//! - Of each table: what its tree has; where that is damaged, what the tree of the state before has.
//! - Of `records` and `dead` also, where their trees are damaged: what other pages of the file hold and
//!   their own checks say is sound. Such a page may be an old one, and the operation settled long
//!   ago; the ledger knows those. What is known to be dead or discarded does not come back.
//! - What a record's header cannot vouch for goes to quarantine, with its bytes, under its place. So
//!   does the place of an operation of which there is nothing left.
//! - The WAL's records, as ever (`salvage`).
//!
//! Rows go into the new file in many transactions, each of a limited size.

use std::collections::HashMap;

use redb::{
    Database, Key, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, Value,
};

use super::rows::{Kept, ROWS, Rows, place_of, put, u128_key};
use crate::buffer::disk::pages::Pages;
use crate::buffer::disk::walk::{Pair, Trees};
use crate::buffer::error::BufferError;
use crate::buffer::format::generation::next_generation;
use crate::buffer::format::keys::Keys;
use crate::buffer::format::layout::{
    AHEAD, AHEAD_COUNT, AUDIT, BY_PRIORITY, BYTES, CHECKPOINT, COUNTERS, DEAD, DEAD_COUNT, FORMAT,
    FORMAT_KEY, IDS, PENDING, QUARANTINE, QUARANTINED, RECORDS, REVOKED, REVOKED_UNTIL, STATUS,
    WAL_GENERATION, WAL_LAID, Whereabouts, decode_dead,
};
use crate::buffer::format::record::Header;
use crate::buffer::tables::Tables;
use crate::buffer::tables::audit::{Act, ActKind};
use crate::buffer::wal::file::Wal;

/// By how much places go on beyond what was found if it cannot be told which were given out: a batch on
/// its way may yet settle by them.
const JUMP: u64 = 1 << 32;
/// Counters that follow from the tables.
const DERIVED: [&str; 9] = [
    FORMAT_KEY,
    CHECKPOINT,
    WAL_GENERATION,
    WAL_LAID,
    PENDING,
    BYTES,
    AHEAD_COUNT,
    DEAD_COUNT,
    QUARANTINED,
];

/// What came of reading a damaged file.
#[derive(Clone, Debug, Default)]
pub(in crate::buffer) struct Recovered {
    /// Trees of which not all could be read, or not all matches its checksums.
    pub(in crate::buffer) damaged: Vec<String>,
    /// Rows of indexes, and counters, that are not what the records make of them.
    pub(in crate::buffer) wrong: u64,
    /// Whether it is known at all which tables the file has.
    pub(super) has_tables: bool,
    /// Pending operations, dead letters, and records in quarantine, in the new file.
    pub(in crate::buffer) pending: u64,
    pub(in crate::buffer) dead: u64,
    pub(in crate::buffer) quarantined: u64,
}

/// A damaged file, and the new one.
pub(in crate::buffer) struct Recovery<'a> {
    pub(in crate::buffer) pages: &'a Pages,
    /// Its WAL, if there is one.
    pub(in crate::buffer) wal: Option<&'a Wal>,
    pub(in crate::buffer) target: &'a Database,
    pub(in crate::buffer) keys: &'a Keys,
    pub(in crate::buffer) states: [(Trees, bool); 2],
    pub(in crate::buffer) counters: HashMap<String, u64>,
    /// Whether the counters can be believed.
    pub(super) has_counters: bool,
    done: Recovered,
    /// The place after the last that was seen.
    pub(in crate::buffer) next: u64,
    /// Records that could not be kept under their own place.
    misplaced: u64,
}

/// Which states of the damaged file are looked at.
#[derive(Clone, Copy, Debug)]
pub(in crate::buffer) enum States {
    /// The one that it has.
    Newest,
    /// That and, where it is damaged, the one before.
    Both,
}

impl<'a> Recovery<'a> {
    pub(in crate::buffer) fn new(
        pages: &'a Pages,
        wal: Option<&'a Wal>,
        target: &'a Database,
        keys: &'a Keys,
    ) -> Self {
        Self {
            pages,
            wal,
            target,
            keys,
            states: pages.states(),
            counters: HashMap::new(),
            has_counters: false,
            done: Recovered::default(),
            next: 0,
            misplaced: 0,
        }
    }

    /// The format that the file says it has, if it can be believed.
    pub(in crate::buffer) fn format(&mut self) -> Option<u64> {
        self.read_counters();
        self.counters.get(FORMAT_KEY).copied().filter(|_| self.has_counters)
    }

    /// Fills the new file. `finish` makes its last change.
    pub(in crate::buffer) fn run(
        mut self,
        finish: impl FnOnce(&mut Tables<'_>) -> Result<(), BufferError>,
    ) -> Result<Recovered, redb::Error> {
        self.read_counters();
        self.done.damaged = self.pages.damaged_trees();
        self.done.has_tables = self.states.iter().any(|(trees, _)| trees.contains_key("records"));
        self.begin()?;
        self.copy(QUARANTINE, States::Both, |_| true)?;
        self.copy(AUDIT, States::Both, |pair| serde_json::from_slice::<Act>(pair.value).is_ok())?;
        self.copy(REVOKED, States::Both, |_| true)?;
        self.copy(AHEAD, States::Newest, |_| false)?;
        self.copy(STATUS, States::Both, |pair| {
            serde_json::from_slice::<serde_json::Value>(pair.value).is_ok()
        })?;
        let is_dead_whole =
            self.copy(DEAD, States::Newest, |pair| decode_dead(pair.value).is_ok())?;
        let is_whole = self.copy_records()?;
        self.settled()?;
        let missing = self.look_for_missing(is_whole, is_dead_whole)?;
        if !self.has_counters {
            self.take_wal_in()?;
        }
        self.build_indexes(0)?;
        self.mourn(missing)?;
        self.done.wrong += self.compare()?;
        if self.has_counters {
            let from = self.take_wal_in()?;
            self.build_indexes(from)?;
        }
        self.close(finish)
    }

    fn read_counters(&mut self) {
        let (trees, is_sound) = &self.states[0];
        let Some(tree) =
            trees.get(redb::TableHandle::name(&COUNTERS)).filter(|_| self.counters.is_empty())
        else {
            return;
        };
        let mut counters = HashMap::new();
        let walked = self.pages.walk(tree, &mut |pair: Pair<'_>| {
            if let (Ok(name), Ok(value)) = (str::from_utf8(pair.key), pair.value.try_into()) {
                counters.insert(name.to_owned(), u64::from_le_bytes(value));
            }
            Ok::<(), std::convert::Infallible>(())
        });
        self.has_counters = *is_sound && walked == Ok(true) && counters.contains_key(FORMAT_KEY);
        self.counters = counters;
    }

    pub(in crate::buffer) fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().filter(|_| self.has_counters).unwrap_or(0)
    }

    /// Makes the tables, and the counters that follow from nothing else.
    fn begin(&self) -> Result<(), redb::Error> {
        let transaction = self.target.begin_write()?;
        {
            let mut counters = transaction.open_table(COUNTERS)?;
            counters.insert(FORMAT_KEY, FORMAT)?;
            let is_derived = |name: &str| DERIVED.contains(&name) || BY_PRIORITY.contains(&name);
            for (name, value) in self.counters.iter().filter(|_| self.has_counters) {
                if !is_derived(name) {
                    counters.insert(name.as_str(), value)?;
                }
            }
        }
        let mut tables = Tables::of_new_file(&transaction)?;
        tables.make()?;
        tables.close()?;
        Ok(transaction.commit()?)
    }

    /// Copies the rows of a table that can be read: of a page that does not match its checksum, those
    /// that are `plausible`. Returns whether it is whole.
    fn copy<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
        states: States,
        plausible: impl Fn(&Pair<'_>) -> bool,
    ) -> Result<bool, redb::Error> {
        let mut rows = Rows::default();
        let is_whole = self.walk(table, states, |pair| {
            if pair.is_sound || plausible(&pair) {
                rows.push(pair.key.into(), pair.value.into());
            }
            if rows.are_many() { put(self.target, table, rows.take()) } else { Ok(()) }
        })?;
        put(self.target, table, rows.take())?;
        Ok(is_whole)
    }

    /// Visits the pairs of a table; if its tree is damaged, and the state before is asked for, of that as
    /// well. Returns whether it is not damaged.
    pub(in crate::buffer) fn walk<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
        states: States,
        mut visit: impl FnMut(Pair<'_>) -> Result<(), redb::Error>,
    ) -> Result<bool, redb::Error> {
        let number = match states {
            States::Newest => 1,
            States::Both => 2,
        };
        for (number, (trees, is_sound)) in self.states.iter().enumerate().take(number) {
            let tree = trees.get(redb::TableHandle::name(&table));
            let Some(tree) = tree.filter(|tree| tree.is_of(K::fixed_width(), V::fixed_width()))
            else {
                continue;
            };
            if self.pages.walk(tree, &mut visit)? && number == 0 && *is_sound {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn copy_records(&mut self) -> Result<bool, redb::Error> {
        let (target, mut kept) = (self.target, Kept::default());
        let is_whole = self.walk(RECORDS, States::Newest, |pair| {
            kept.push(place_of(pair.key), pair.value.into());
            kept.put_some(target)
        })?;
        self.keep(kept)?;
        Ok(is_whole)
    }

    pub(in crate::buffer) fn keep(&mut self, mut kept: Kept) -> Result<(), redb::Error> {
        kept.misplaced = self.misplaced;
        kept.put(self.target)?;
        self.next = self.next.max(kept.next);
        self.misplaced = kept.misplaced;
        Ok(())
    }

    /// Tells where dead letters are, what is in quarantine and what was discarded, by its id, and how
    /// long revocations last.
    pub(in crate::buffer) fn settled(&self) -> Result<(), redb::Error> {
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
    fn build_indexes(&self, mut from: u64) -> Result<(), redb::Error> {
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

    /// Sets the counters, and has the last change made.
    fn close(
        mut self,
        finish: impl FnOnce(&mut Tables<'_>) -> Result<(), BufferError>,
    ) -> Result<Recovered, redb::Error> {
        let (checkpoint, newest) = (self.counter(CHECKPOINT), self.wal.and_then(Wal::newest));
        let next = if self.has_counters {
            self.next.max(checkpoint)
        } else {
            self.next.saturating_add(JUMP)
        };
        let generation = match self.counters.get(WAL_GENERATION) {
            Some(generation) => *generation,
            None => newest.map_or(0, |(generation, _)| generation),
        };
        let transaction = self.target.begin_write()?;
        let mut tables = Tables::of_new_file(&transaction)?;
        self.done.dead = tables.dead.open()?.len()?;
        self.done.quarantined = tables.quarantine.open()?.len()?;
        self.done.pending = tables.totals.counter(PENDING)?;
        let ahead = tables.ahead.open()?.len()?;
        tables.totals.set(AHEAD_COUNT, ahead);
        tables.totals.set(DEAD_COUNT, self.done.dead);
        tables.totals.set(QUARANTINED, self.done.quarantined);
        finish(&mut tables).map_err(|error| match error {
            BufferError::Redb(error) => *error,
            error => redb::Error::Corrupted(error.to_string()),
        })?;
        tables.totals.set(CHECKPOINT, next);
        tables.totals.set(WAL_GENERATION, next_generation(generation));
        // So the first appends go into the tables, and a generation that uses the WAL begins then.
        tables.totals.set(WAL_LAID, 0);
        tables.close()?;
        transaction.commit()?;
        Ok(self.done)
    }
}
