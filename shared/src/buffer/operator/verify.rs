//! Checking a whole buffer file without changing it: every record, the agreement of all tables, and
//! the checksums of the pages, as the file has them: what redb keeps in memory may be as it was before
//! they were damaged. Reads everything, and holds nothing in memory but what it found wrong.

use std::convert::Infallible;
use std::fmt::Display;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use redb::{ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageError};
use uuid::Uuid;

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::commit::snapshot::Snapshot;
use crate::buffer::commit::writer::Handle;
use crate::buffer::disk::pages::Pages;
use crate::buffer::disk::private::open_private_existing;
use crate::buffer::disk::walk::{Pair, Trees};
use crate::buffer::error::BufferError;
use crate::buffer::format::keys::Keys;
use crate::buffer::format::layout::{
    BY_PRIORITY, BYTES, CHECKPOINT, DEAD, DEAD_COUNT, IDS, LANE_STATES, LANES, LaneState, PENDING,
    QUARANTINE, QUARANTINED, READY, RECORDS, Slot, USER_TOTALS, USERS, WAITING, Whereabouts,
    decode_dead, priority_index,
};
use crate::buffer::format::record::{self, Header};

/// What is wrong is listed up to this number, and only counted beyond.
const LISTED: usize = 100;
/// After how many entries progress is told.
const STEP: u64 = 1000;

/// What a check came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Pending records looked at.
    pub records: u64,
    /// Dead letters looked at.
    pub dead: u64,
    /// Records in quarantine, which are known to be damaged.
    pub quarantined: u64,
    /// What is wrong, each in one line; the first hundred.
    pub problems: Vec<String>,
    /// How much is wrong in all.
    pub problem_count: u64,
}

impl Verification {
    fn wrong(&mut self, problem: String) {
        self.problem_count += 1;
        if self.problems.len() < LISTED {
            self.problems.push(problem);
        }
    }

    fn agree(&mut self, what: &str, found: u64, expected: u64) {
        if found != expected {
            self.wrong(format!("{what}: {found}, and {expected} by the records"));
        }
    }
}

impl Buffer {
    /// Checks the whole file, while others read and write. Tells `progress` how many entries of tables have
    /// had their pages checked.
    ///
    /// Nothing is copied. Records and tables are checked in one state of redb's; then the checksums of pages
    /// in one state that stays as it is on the disk (`Pinned`). Pages that are freed meanwhile are not
    /// used again before the end, so the file may grow.
    ///
    /// # Errors
    /// If the file cannot be read at all.
    pub async fn verify(
        &self,
        progress: impl Fn(u64) + Send + 'static,
    ) -> Result<Verification, BufferError> {
        let keys = Arc::clone(&self.keys);
        let checking = self.read_to_the_end(move |snapshot| check(snapshot, Some(&keys)));
        let checked = checking.await;
        let mut found = match checked {
            Err(BufferError::Damaged(problem)) => {
                let mut found = Verification::default();
                found.wrong(format!("the tables cannot be read: {problem}"));
                found
            }
            checked => checked?,
        };
        let (path, handle) = (self.settings().buffer_path.clone(), Arc::clone(&self.handle));
        let pinned = self.at_turn(move || Pinned::take(&path, &handle)).await?;
        let damaged = tokio::task::spawn_blocking(move || pinned.damaged_trees(progress)).await;
        let unchecked = |_| BufferError::Unavailable("the pages were not checked".to_owned());
        for tree in damaged.map_err(unchecked)? {
            found.wrong(format!("{tree}: a page cannot be read, or fails its integrity check"));
        }
        Ok(found)
    }

    /// Checks that the indexes agree with the headers of the records, in the state that there is now.
    ///
    /// # Errors
    /// If the file cannot be read at all.
    pub async fn check_indexes(&self) -> Result<Verification, BufferError> {
        self.read_to_the_end(move |snapshot| check(snapshot, None)).await
    }
}

/// A state of the file whose pages stay as they are: redb uses no page again that belonged to a state which
/// a reader of any process may see, or to a later one.
struct Pinned {
    pages: Pages,
    trees: Trees,
    damaged: Vec<String>,
    _reader: ReadTransaction,
}

impl Pinned {
    /// The state that there is now, for who has the write turn. What redb keeps books of is checked at once.
    fn take(path: &Path, handle: &Handle) -> Result<Self, BufferError> {
        let unavailable = |error: &dyn Display| BufferError::Unavailable(error.to_string());
        let opened = Arc::clone(&handle.read().unwrap_or_else(PoisonError::into_inner));
        let reader = opened.database.begin_read().map_err(|error| unavailable(&error))?;
        let file = open_private_existing(path).map_err(|error| unavailable(&error))?;
        let pages = Pages::new(file).map_err(|error| unavailable(&error))?;
        let (trees, damaged) = pages.damaged_books();
        Ok(Self { pages, trees, damaged, _reader: reader })
    }

    /// Which trees do not match their checksums.
    fn damaged_trees(self, progress: impl Fn(u64)) -> Vec<String> {
        let (mut damaged, mut seen) = (self.damaged, 0_u64);
        for (name, tree) in &self.trees {
            let mut count = |_: Pair<'_>| {
                seen += 1;
                if seen.is_multiple_of(STEP) {
                    progress(seen);
                }
                Ok::<(), Infallible>(())
            };
            if self.pages.walk(tree, &mut count) != Ok(true) {
                damaged.push(name.clone());
            }
        }
        damaged.sort_unstable();
        damaged
    }
}

/// With keys whole records are checked, without them their headers.
fn check(snapshot: &Snapshot, keys: Option<&Keys>) -> Result<Verification, redb::Error> {
    let mut found = Verification::default();
    let indexed = records(snapshot, keys, &mut found)?;
    lost(snapshot, &mut found)?;
    lanes(snapshot, &mut found)?;
    users(snapshot, indexed, &mut found)?;
    dead(snapshot, keys, &mut found)?;
    Ok(found)
}

/// Records that the indexes tell of, and their bytes.
#[derive(Clone, Copy, Default)]
struct Indexed {
    records: u64,
    bytes: u64,
}

/// Every record is sound and, but for those of the tail, is found by its lane, its user and its id;
/// the counters agree.
fn records(
    snapshot: &Snapshot,
    keys: Option<&Keys>,
    found: &mut Verification,
) -> Result<Indexed, redb::Error> {
    let lanes = snapshot.open_table(LANES)?;
    let users = snapshot.open_table(USERS)?;
    let ids = snapshot.open_table(IDS)?;
    let [tail, pending, pending_bytes] = snapshot.counters([CHECKPOINT, PENDING, BYTES])?;
    let mut by_priority = [0; BY_PRIORITY.len()];
    let mut indexed = Indexed::default();
    for entry in snapshot.records()?.from(0)? {
        let (place, record) = entry?;
        let record = record.as_ref();
        let length = u64::try_from(record.len()).unwrap_or(u64::MAX);
        found.records += 1;
        if place < tail {
            indexed.records += 1;
            indexed.bytes += length;
        }
        let read = match keys {
            Some(keys) => record::decode(place, record, keys).map(|(header, _)| header),
            None => Header::decode(place, record),
        };
        let header = match read {
            Ok(header) => header,
            Err(damage) => {
                found.wrong(format!("record {place}: {damage}"));
                match Header::decode(place, record) {
                    Ok(header) => header,
                    Err(_) => continue,
                }
            }
        };
        if place >= tail {
            continue;
        }
        by_priority[priority_index(header.priority)] += 1;
        if lanes.get((&record::lane_bytes(header.lane), place))?.is_none() {
            found.wrong(format!("record {place}: not in its lane"));
        }
        if users.get((header.user_id.as_u128(), place))?.is_none() {
            found.wrong(format!("record {place}: not among its user's"));
        }
        let known = ids.get(header.id.as_uuid().as_u128())?.map(|value| value.value());
        if known.and_then(Whereabouts::decode) != Some(Whereabouts::Pending(place)) {
            found.wrong(format!("record {place}: not found by its id {}", header.id));
        }
    }
    found.agree("the number of indexed operations", pending, indexed.records);
    found.agree("their bytes", pending_bytes, indexed.bytes);
    found.agree("entries of lanes", lanes.len()?, indexed.records);
    found.agree("entries of users", users.len()?, indexed.records);
    let counted = snapshot.counters(BY_PRIORITY)?;
    for (name, (counted, count)) in
        BY_PRIORITY.into_iter().zip(counted.into_iter().zip(by_priority))
    {
        found.agree(name, counted, count);
    }
    Ok(indexed)
}

/// Every lane's state is what its records make it, and replay finds it where it belongs.
fn lanes(snapshot: &Snapshot, found: &mut Verification) -> Result<(), redb::Error> {
    let records = snapshot.open_table(RECORDS)?;
    let states = snapshot.open_table(LANE_STATES)?;
    let (ready, waiting) = (snapshot.open_table(READY)?, snapshot.open_table(WAITING)?);
    let (mut current, mut number): (Option<([u8; 17], LaneState)>, u64) = (None, 0);
    let mut close = |lane: &[u8; 17], expected: &LaneState, found: &mut Verification| {
        number += 1;
        let state = states.get(lane)?.map(|state| LaneState::decode(state.value()));
        let sound = state.is_some_and(|state| {
            (state.head, state.queued_at, state.not_before, state.counts)
                == (expected.head, expected.queued_at, expected.not_before, expected.counts)
                && state.newest >= expected.newest
        });
        let slot = if expected.not_before > 0 {
            waiting.get((expected.not_before, expected.head))?
        } else {
            ready.get(expected.rank())?
        };
        let slot = slot.map(|slot| Slot::decode(slot.value()));
        if !sound || slot != Some(expected.slot(lane)) {
            found.wrong(format!("the lane that begins at record {} is wrong", expected.head));
        }
        Ok::<(), StorageError>(())
    };
    for entry in snapshot.open_table(LANES)?.iter()? {
        let (key, _) = entry?;
        let (lane, place) = (*key.value().0, key.value().1);
        let record = records.get(place)?;
        let Some(header) = record.and_then(|bytes| Header::decode(place, bytes.value()).ok())
        else {
            continue;
        };
        if let Some((before, state)) = current.take_if(|(before, _)| *before != lane) {
            close(&before, &state, found)?;
        }
        let (_, state) = current.get_or_insert((lane, LaneState::beginning(place, &header)));
        state.note(&header);
    }
    if let Some((lane, state)) = current {
        close(&lane, &state, found)?;
    }
    found.agree("states of lanes", states.len()?, number);
    found.agree("lanes that are ready or waiting", ready.len()? + waiting.len()?, number);
    Ok(())
}

/// Every id that is told of leads to something.
fn lost(snapshot: &Snapshot, found: &mut Verification) -> Result<(), redb::Error> {
    let (records, dead) = (snapshot.open_table(RECORDS)?, snapshot.open_table(DEAD)?);
    let quarantine = snapshot.open_table(QUARANTINE)?;
    for entry in snapshot.open_table(IDS)?.iter()? {
        let (id, place) = entry?;
        let id = id.value();
        let is_there = match Whereabouts::decode(place.value()) {
            Some(Whereabouts::Pending(place)) => records.get(place)?.is_some(),
            Some(Whereabouts::Quarantined(place)) => quarantine.get(place)?.is_some(),
            Some(Whereabouts::Dead(at)) => dead.get((at, id))?.is_some(),
            Some(Whereabouts::Discarded(_)) => true,
            None => false,
        };
        if !is_there {
            found.wrong(format!("operation {}: not where it should be", Uuid::from_u128(id)));
        }
    }
    Ok(())
}

/// Every user's total is the number of their entries.
fn users(
    snapshot: &Snapshot,
    indexed: Indexed,
    found: &mut Verification,
) -> Result<(), redb::Error> {
    let users = snapshot.open_table(USERS)?;
    let (mut records, mut bytes) = (0, 0);
    for entry in snapshot.open_table(USER_TOTALS)?.iter()? {
        let (user, total) = entry?;
        let (user, (count, length)) = (user.value(), total.value());
        let entries = users.range((user, 0)..=(user, u64::MAX))?.count();
        found.agree("a user's total", count, u64::try_from(entries).unwrap_or(u64::MAX));
        records += count;
        bytes += length;
    }
    found.agree("the sum of all users' totals", records, indexed.records);
    found.agree("the sum of all users' bytes", bytes, indexed.bytes);
    Ok(())
}

/// Every dead letter is sound and is found by its id; the counters agree.
fn dead(
    snapshot: &Snapshot,
    keys: Option<&Keys>,
    found: &mut Verification,
) -> Result<(), redb::Error> {
    let ids = snapshot.open_table(IDS)?;
    for entry in snapshot.open_table(DEAD)?.iter()? {
        let (key, bytes) = entry?;
        let (at, id) = key.value();
        found.dead += 1;
        let sound = decode_dead(bytes.value()).and_then(|(certificate, record)| match keys {
            Some(keys) => record::decode(certificate.place, record, keys).map(|(header, _)| header),
            None => Header::decode(certificate.place, record),
        });
        if let Err(damage) = sound {
            found.wrong(format!("dead letter of {at}: {damage}"));
        }
        let known = ids.get(id)?.map(|value| value.value()).and_then(Whereabouts::decode);
        if known != Some(Whereabouts::Dead(at)) {
            found.wrong(format!("dead letter of {at}: not found by its id"));
        }
    }
    found.quarantined = snapshot.open_table(QUARANTINE)?.len()?;
    let (dead, quarantined) = (found.dead, found.quarantined);
    let counted = snapshot.counters([DEAD_COUNT, QUARANTINED])?;
    found.agree("the number of dead letters", counted[0], dead);
    found.agree("the number of records in quarantine", counted[1], quarantined);
    Ok(())
}
