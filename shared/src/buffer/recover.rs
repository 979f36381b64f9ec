//! What can be had of a damaged buffer file, in a new one.
//!
//! Records, dead letters and what operators did are copied, as far as they can be read; everything
//! that tells of them (lanes, what is ready, places, users, counters) is made anew from them. The
//! damaged file is only read, page by page (`pages`), never walked or changed by redb.
//!
//! - Of each table: what its tree has; where that is damaged, what the tree of the state before has.
//! - Of `records` and `dead` also, where their trees are damaged: what other pages of the file hold and
//!   their own checks say is sound. Such a page may be an old one, and the operation settled long
//!   ago; the ledger knows those. What is known to be dead or discarded does not come back.
//! - What a record's header cannot vouch for goes to quarantine, with its bytes, under its place. So
//!   does the place of an operation of which there is nothing left.
//! - The log's records, as ever (`salvage`).
//!
//! Rows go into the new file in many transactions, each of a limited size.

use std::collections::HashMap;

use redb::{
    Database, Key, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, Value,
};

use super::audit::{Act, ActKind};
use super::keys::Keys;
use super::layout::{
    AUDIT, BY_PRIORITY, BYTES, COUNTERS, DEAD, DEAD_COUNT, FORMAT, FORMAT_KEY, INDEXED,
    LANE_STATES, LANES, LOG_GENERATION, LOG_LAID, LaneState, PENDING, PLACES, Place, QUARANTINE,
    QUARANTINED, READY, RECORDS, REVOKED, REVOKED_UNTIL, STATUS, USER_TOTALS, USERS, WAITING,
    decode_dead,
};
use super::log::{Log, is_of_same_file, next_generation};
use super::pages::{Pages, Pair, Trees};
use super::record::{self, Damage, Header};
use super::salvage::{State, look_through};
use super::tables::Tables;
use super::tail::{Mark, Tail};
use crate::guard::guarded;

/// Rows that one transaction puts into the new file, and their bytes, about.
const ROWS: usize = 10_000;
const ROW_BYTES: usize = 8 << 20;
/// By how much places go on beyond what was found if it cannot be told which were given out: a batch on
/// its way may yet settle by them.
const JUMP: u64 = 1 << 32;
/// Counters that follow from the tables.
const DERIVED: [&str; 8] =
    [FORMAT_KEY, INDEXED, LOG_GENERATION, LOG_LAID, PENDING, BYTES, DEAD_COUNT, QUARANTINED];

/// What came of reading a damaged file.
#[derive(Clone, Debug, Default)]
pub(super) struct Recovered {
    /// Trees of which not all could be read, or not all matches its checksums.
    pub(super) damaged: Vec<String>,
    /// Rows of indexes, and counters, that are not what the records make of them.
    pub(super) wrong: u64,
    /// Whether it is known at all which tables the file has.
    pub(super) has_tables: bool,
    /// Pending operations, dead letters, and records in quarantine, in the new file.
    pub(super) pending: u64,
    pub(super) dead: u64,
    pub(super) quarantined: u64,
}

/// A damaged file, and the new one.
pub(super) struct Recovery<'a> {
    pub(super) pages: &'a Pages,
    /// Its log, if there is one.
    pub(super) log: Option<&'a Log>,
    pub(super) target: &'a Database,
    /// The new file's log, which stays empty.
    pub(super) target_log: &'a Log,
    pub(super) keys: &'a Keys,
    states: [(Trees, bool); 2],
    counters: HashMap<String, u64>,
    /// Whether the counters can be believed.
    has_counters: bool,
    done: Recovered,
    /// The place after the last that was seen.
    next: u64,
    /// Records that could not be kept under their own place.
    misplaced: u64,
}

/// Which states of the damaged file are looked at.
#[derive(Clone, Copy, Debug)]
enum States {
    /// The one that it has.
    Newest,
    /// That and, where it is damaged, the one before.
    Both,
}

type Row = (Vec<u8>, Vec<u8>);

/// What `places` said of an operation.
type Known = HashMap<u128, Place>;

impl<'a> Recovery<'a> {
    pub(super) fn new(
        pages: &'a Pages,
        log: Option<&'a Log>,
        target: &'a Database,
        target_log: &'a Log,
        keys: &'a Keys,
    ) -> Self {
        Self {
            pages,
            log,
            target,
            target_log,
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
    pub(super) fn format(&mut self) -> Option<u64> {
        self.read_counters();
        self.counters.get(FORMAT_KEY).copied().filter(|_| self.has_counters)
    }

    /// Fills the new file. `finish` makes its last change.
    pub(super) fn run(
        mut self,
        finish: impl FnOnce(&mut Tables<'_>) -> Result<(), super::BufferError>,
    ) -> Result<Recovered, redb::Error> {
        self.read_counters();
        self.done.damaged = self.pages.damaged_trees();
        self.done.has_tables = self.states.iter().any(|(trees, _)| trees.contains_key("records"));
        self.begin()?;
        self.copy(QUARANTINE, States::Both, |_| true)?;
        self.copy(AUDIT, States::Both, |pair| {
            serde_json::from_slice::<Act>(pair.value).is_ok()
        })?;
        self.copy(REVOKED, States::Both, |_| true)?;
        self.copy(STATUS, States::Both, |pair| {
            serde_json::from_slice::<serde_json::Value>(pair.value).is_ok()
        })?;
        let is_dead_whole =
            self.copy(DEAD, States::Newest, |pair| decode_dead(pair.value).is_ok())?;
        let is_whole = self.copy_records()?;
        self.settled()?;
        let missing = self.look_for_missing(is_whole, is_dead_whole)?;
        if !self.has_counters {
            self.take_log_in()?;
        }
        self.index(0)?;
        self.mourn(missing)?;
        self.done.wrong += self.compare()?;
        if self.has_counters {
            let from = self.take_log_in()?;
            self.index(from)?;
        }
        self.close(finish)
    }

    fn read_counters(&mut self) {
        let (trees, is_sound) = &self.states[0];
        let Some(tree) = trees.get(COUNTERS_NAME).filter(|_| self.counters.is_empty()) else {
            return;
        };
        let mut counters = HashMap::new();
        let walked = self.pages.walk(tree, &mut |pair: Pair<'_>| {
            if let (Ok(name), Ok(value)) = (str::from_utf8(pair.key), pair.value.try_into()) {
                counters.insert(name.to_owned(), u64::from_le_bytes(value));
            }
            Ok::<(), std::convert::Infallible>(())
        });
        self.has_counters = *is_sound
            && walked == Ok(true)
            && counters.get(FORMAT_KEY).is_some_and(|format| *format >= FORMAT);
        self.counters = counters;
    }

    fn counter(&self, name: &str) -> u64 {
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
        let mut tables = Tables::open(&transaction, self.target_log, Tail::default())?;
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
    fn walk<K: Key + 'static, V: Value + 'static>(
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

    fn keep(&mut self, mut kept: Kept) -> Result<(), redb::Error> {
        kept.misplaced = self.misplaced;
        kept.put(self.target)?;
        self.next = self.next.max(kept.next);
        self.misplaced = kept.misplaced;
        Ok(())
    }

    /// Tells where dead letters are, what is in quarantine and what was discarded, by its id, and how
    /// long revocations last.
    fn settled(&self) -> Result<(), redb::Error> {
        let read = self.target.begin_read()?;
        let mut rows = Rows::default();
        let mut tell = |id: u128, place: Place| {
            rows.push(u128_key(id), <(u8, u64)>::as_bytes(&place.encode()).to_vec());
            if rows.are_many() { put(self.target, PLACES, rows.take()) } else { Ok(()) }
        };
        for entry in read.open_table(DEAD)?.iter()? {
            let (at, id) = entry?.0.value();
            tell(id, Place::Dead(at))?;
        }
        for entry in read.open_table(QUARANTINE)?.iter()? {
            let (place, record) = entry?;
            if let Ok(header) = Header::decode(place.value(), record.value()) {
                tell(header.id.as_uuid().as_u128(), Place::Quarantined(place.value()))?;
            }
        }
        for entry in read.open_table(AUDIT)?.iter()?.rev() {
            let (key, act) = entry?;
            let act = serde_json::from_slice::<Act>(act.value()).ok();
            if act.is_some_and(|act| matches!(act.kind, ActKind::Discard | ActKind::Erase)) {
                let (at, id) = key.value();
                tell(id, Place::Discarded(at))?;
            }
        }
        put(self.target, PLACES, rows.take())?;
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

    /// Looks for records and dead letters that their trees did not give. Returns the operations of
    /// which `places` tells and whose records are not where that says.
    fn look_for_missing(
        &mut self,
        is_whole: bool,
        is_dead_whole: bool,
    ) -> Result<Vec<(u128, u64)>, redb::Error> {
        let mut known = Known::new();
        let read = self.target.begin_read()?;
        let (records, quarantine) = (read.open_table(RECORDS)?, read.open_table(QUARANTINE)?);
        let has_places = self.walk(PLACES, States::Newest, |pair| {
            let (id, place) = (u128_of(pair.key), <(u8, u64)>::from_bytes(pair.value));
            let Some(place) = Place::decode(place).filter(|_| pair.is_sound) else { return Ok(()) };
            let is_there = match place {
                Place::Pending(at) => records.get(at)?.is_some(),
                Place::Quarantined(at) => {
                    quarantine.get(at)?.is_some_and(|it| Header::decode(at, it.value()).is_ok())
                }
                Place::Dead(_) => is_dead_whole,
                Place::Discarded(_) => is_whole,
            };
            if !is_there {
                known.entry(id).or_insert(place);
            }
            Ok(())
        })?;
        drop((records, quarantine, read));
        if !is_dead_whole {
            self.scan_dead(&known, has_places)?;
        }
        if !is_whole {
            self.scan_records(&known, has_places)?;
        }
        let at = |place| match place {
            Place::Pending(at) | Place::Quarantined(at) => Some(at),
            Place::Dead(_) | Place::Discarded(_) => None,
        };
        Ok(known.into_iter().filter_map(|(id, place)| Some((id, at(place)?))).collect())
    }

    /// Sets aside what little is known of operations whose records are nowhere.
    fn mourn(&mut self, missing: Vec<(u128, u64)>) -> Result<(), redb::Error> {
        if missing.is_empty() {
            return Ok(());
        }
        let end = if self.has_counters { self.counter(INDEXED) } else { self.next };
        let transaction = self.target.begin_write()?;
        {
            let records = transaction.open_table(RECORDS)?;
            let mut quarantine = transaction.open_table(QUARANTINE)?;
            let mut places = transaction.open_table(PLACES)?;
            for (id, at) in missing {
                if at >= end || records.get(at)?.is_some() || places.get(id)?.is_some() {
                    continue;
                }
                if quarantine.get(at)?.is_none() {
                    quarantine.insert(at, &[][..])?;
                }
                places.insert(id, Place::Quarantined(at).encode())?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn scan_records(&mut self, known: &Known, has_places: bool) -> Result<(), redb::Error> {
        let (target, keys, mut kept) = (self.target, self.keys, Kept::default());
        let gone = target.begin_read()?.open_table(PLACES)?;
        let mut look = |place: u64, value: &[u8]| {
            let Ok(header) = Header::decode(place, value) else { return Ok(false) };
            let id = header.id.as_uuid().as_u128();
            let may_be = match known.get(&id) {
                Some(known) => *known == Place::Pending(place),
                // If all places are known, it has been settled.
                None => !has_places,
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
        // The log has what it had before it was emptied, until that is written over.
        let generation = self.counter(LOG_GENERATION);
        for (found, place, record) in self.log.map(Log::all_records).unwrap_or_default() {
            if !self.has_counters || is_of_same_file(found, generation) && found < generation {
                look(place, &record)?;
            }
        }
        self.keep(kept)
    }

    fn scan_dead(&self, known: &Known, has_places: bool) -> Result<(), redb::Error> {
        let mut rows = Rows::default();
        let gone = self.target.begin_read()?.open_table(PLACES)?;
        self.pages.scan(24, &mut |key, value| {
            let Ok((certificate, record)) = decode_dead(value) else { return Ok(false) };
            let Ok(header) = Header::decode(certificate.place, record) else { return Ok(false) };
            let (at, id) = <(i64, u128)>::from_bytes(key);
            let may_be = match known.get(&id) {
                Some(known) => *known == Place::Dead(at),
                None => !has_places,
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

    /// Takes the records of the log in. Returns the place of the first.
    fn take_log_in(&mut self) -> Result<u64, redb::Error> {
        let Some(log) = self.log else { return Ok(self.next) };
        let (generation, from) = if self.has_counters {
            (self.counter(LOG_GENERATION), self.counter(INDEXED))
        } else if let Some((generation, first)) = log.newest() {
            self.counters.insert(LOG_GENERATION.to_owned(), generation);
            (generation, first)
        } else {
            return Ok(self.next);
        };
        let (state, tail) = look_through(log, Mark { generation, from });
        if state == State::Foreign {
            return Ok(from);
        }
        let mut kept = Kept::default();
        let read = self.target.begin_read()?;
        let (places, records) = (read.open_table(PLACES)?, read.open_table(RECORDS)?);
        for (place, record) in (from..).zip(tail.records_from(from)) {
            let header = Header::decode(place, record);
            let id = header.as_ref().map_or(0, |header| header.id.as_uuid().as_u128());
            // In the counters' absence it may have been settled since.
            let may_be = self.has_counters || places.get(id)?.is_none();
            if may_be && records.get(place)?.is_none() {
                kept.push(place, record.to_vec());
            }
        }
        drop((places, records, read));
        self.next = self.next.max(tail.next());
        self.keep(kept)?;
        Ok(from)
    }

    /// Has the indexes tell of the records from a place on.
    fn index(&self, mut from: u64) -> Result<(), redb::Error> {
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
            let mut tables = Tables::open(&transaction, self.target_log, Tail::default())?;
            tables.tell_of(headers)?;
            tables.close()?;
            transaction.commit()?;
        }
    }

    /// How many rows of the indexes, and counters, were not what they are now.
    fn compare(&self) -> Result<u64, redb::Error> {
        let exactly = |old: &[u8], new: &[u8]| old == new;
        let but_for_newest = |old: &[u8], new: &[u8]| {
            let decoded = |bytes: &[u8]| bytes.try_into().ok().map(LaneState::decode);
            let state = |bytes| decoded(bytes).map(|it| LaneState { newest: 0, ..it }.encode());
            state(old) == state(new)
        };
        let mut wrong = self.differing(LANES, exactly)?
            + self.differing(LANE_STATES, but_for_newest)?
            + self.differing(READY, exactly)?
            + self.differing(WAITING, exactly)?
            + self.differing(PLACES, exactly)?
            + self.differing(USERS, exactly)?
            + self.differing(USER_TOTALS, exactly)?
            + self.differing(REVOKED_UNTIL, exactly)?;
        let read = self.target.begin_read()?;
        let counters = read.open_table(COUNTERS)?;
        for name in [PENDING, BYTES].into_iter().chain(BY_PRIORITY) {
            let now = counters.get(name)?.map_or(0, |value| value.value());
            wrong += u64::from(now != self.counter(name));
        }
        let dead = read.open_table(DEAD)?.len()?;
        let quarantined = read.open_table(QUARANTINE)?.len()?;
        wrong += u64::from(dead != self.counter(DEAD_COUNT));
        Ok(wrong + u64::from(quarantined != self.counter(QUARANTINED)))
    }

    fn differing<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
        is_same: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Result<u64, redb::Error> {
        let now = self.target.begin_read()?.open_table(table)?;
        let (mut wrong, mut same) = (0, 0);
        let tree = self.states[0].0.get(redb::TableHandle::name(&table));
        if let Some(tree) = tree.filter(|tree| tree.is_of(K::fixed_width(), V::fixed_width())) {
            self.pages.walk(tree, &mut |pair: Pair<'_>| {
                let found = guarded(|| now.get(K::from_bytes(pair.key)));
                let found = found.map_err(redb::Error::Corrupted)??;
                let now = found.as_ref().map(|value| value.value());
                let is_same =
                    now.is_some_and(|now| is_same(pair.value, V::as_bytes(&now).as_ref()));
                if is_same { same += 1 } else { wrong += 1 }
                Ok::<(), redb::Error>(())
            })?;
        }
        Ok(wrong + now.len()?.saturating_sub(same))
    }

    /// Sets the counters, and has the last change made.
    fn close(
        mut self,
        finish: impl FnOnce(&mut Tables<'_>) -> Result<(), super::BufferError>,
    ) -> Result<Recovered, redb::Error> {
        let (indexed, newest) = (self.counter(INDEXED), self.log.and_then(Log::newest));
        let next = if self.has_counters {
            self.next.max(indexed)
        } else {
            self.next.saturating_add(JUMP)
        };
        let generation = match self.counters.get(LOG_GENERATION) {
            Some(generation) => *generation,
            None => newest.map_or(0, |(generation, _)| generation),
        };
        let transaction = self.target.begin_write()?;
        let mut tables = Tables::open(&transaction, self.target_log, Tail::default())?;
        self.done.dead = tables.dead.open()?.len()?;
        self.done.quarantined = tables.quarantine.open()?.len()?;
        self.done.pending = tables.totals.counter(PENDING)?;
        tables.totals.set(DEAD_COUNT, self.done.dead);
        tables.totals.set(QUARANTINED, self.done.quarantined);
        finish(&mut tables).map_err(|error| match error {
            super::BufferError::Redb(error) => *error,
            error => redb::Error::Corrupted(error.to_string()),
        })?;
        tables.totals.set(INDEXED, next);
        tables.totals.set(LOG_GENERATION, next_generation(generation));
        // So the first appends go into the tables, and a generation that uses the log begins then.
        tables.totals.set(LOG_LAID, 0);
        tables.close()?;
        transaction.commit()?;
        Ok(self.done)
    }
}

const COUNTERS_NAME: &str = "counters";

/// Rows on their way into a table.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    bytes: usize,
}

impl Rows {
    fn push(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.rows.push((key, value));
    }

    fn are_many(&self) -> bool {
        self.rows.len() >= ROWS || self.bytes >= ROW_BYTES
    }

    fn take(&mut self) -> Vec<Row> {
        std::mem::take(self).rows
    }
}

/// Puts rows into a table, those whose keys are not there yet.
fn put<K: Key + 'static, V: Value + 'static>(
    target: &Database,
    table: TableDefinition<'static, K, V>,
    rows: Vec<Row>,
) -> Result<(), redb::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let transaction = target.begin_write()?;
    {
        let mut table = transaction.open_table(table)?;
        for (key, value) in &rows {
            // A name that is no text, say.
            let _ = guarded(|| {
                if table.get(K::from_bytes(key))?.is_none() {
                    table.insert(K::from_bytes(key), V::from_bytes(value))?;
                }
                Ok::<(), redb::StorageError>(())
            })
            .unwrap_or(Ok(()))?;
        }
    }
    Ok(transaction.commit()?)
}

/// Records on their way into the new file: what is sound into `records`, the rest into quarantine.
#[derive(Default)]
struct Kept {
    rows: Vec<(u64, Vec<u8>)>,
    bytes: usize,
    next: u64,
    misplaced: u64,
}

impl Kept {
    fn push(&mut self, place: u64, record: Vec<u8>) {
        self.bytes += record.len();
        self.rows.push((place, record));
    }

    fn put_some(&mut self, target: &Database) -> Result<(), redb::Error> {
        let are_many = self.rows.len() >= ROWS || self.bytes >= ROW_BYTES;
        if are_many { self.put(target) } else { Ok(()) }
    }

    fn put(&mut self, target: &Database) -> Result<(), redb::Error> {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let transaction = target.begin_write()?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            let mut quarantine = transaction.open_table(QUARANTINE)?;
            for (place, record) in rows {
                let is_sound = Header::decode(place, &record).is_ok();
                if is_sound && records.get(place)?.is_none() {
                    self.next = self.next.max(place.saturating_add(1));
                    records.insert(place, record.as_slice())?;
                } else if !is_sound {
                    let before = quarantine.get(place)?.map(|before| before.value() == record);
                    match before {
                        Some(true) => {}
                        None => drop(quarantine.insert(place, record.as_slice())?),
                        Some(false) => {
                            self.misplaced += 1;
                            quarantine.insert(u64::MAX - self.misplaced, record.as_slice())?;
                        }
                    }
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

fn place_of(key: &[u8]) -> u64 {
    u64::from_le_bytes(key.first_chunk().copied().unwrap_or_default())
}

fn u128_of(key: &[u8]) -> u128 {
    u128::from_le_bytes(key.first_chunk().copied().unwrap_or_default())
}

fn u128_key(id: u128) -> Vec<u8> {
    id.to_le_bytes().to_vec()
}
