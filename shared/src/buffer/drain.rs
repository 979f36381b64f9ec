//! Giving operations out to replay, and settling what became of them.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::iter;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use redb::ReadableTable;

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::commit::snapshot::Snapshot;
use crate::buffer::error::BufferError;
use crate::buffer::format::damage::Damage;
use crate::buffer::format::entry::Entry;
use crate::buffer::format::keys::Keys;
use crate::buffer::format::layout::{Bytes, LANES, READY, RECORDS, Slot, WAITING};
use crate::buffer::format::record::{self, unix_millis};
use crate::domain::{
    HybridTime, Lane, MAX_PRIORITY, OperationState, Priority, Tries, aged_priority,
};

/// Damaged records in one batch at the most: setting one aside may read whole tables.
const DAMAGED: usize = 8;

/// Operations of one lane that are looked through for a create behind those of a batch, at the most.
const LOOKED_THROUGH: usize = 10_000;

/// How much a batch may hold.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Operations.
    pub operations: usize,
    /// Bytes of records.
    pub bytes: usize,
    /// Waiting that raises a lane's priority by one.
    pub aging: Duration,
    /// The longest wait for another attempt there is: one that seems longer was set before the wall
    /// clock was set back, and is over.
    pub longest_wait: Duration,
}

/// What replay should apply next.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The operations: lane by lane in order of urgency, each lane from its head in its order.
    pub entries: Vec<Entry>,
    /// Places whose records cannot be read, to be settled as [`Verdict::Damaged`].
    pub damaged: Vec<(u64, Damage)>,
}

/// What became of an operation at replay.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Its place in the file.
    pub place: u64,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of an operation at replay.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// PostgreSQL has it, or its ledger row: it leaves the buffer.
    Done,
    /// It is tried again later.
    Retry {
        /// How often it was tried in vain, this one included.
        tries: Tries,
        /// When it may be tried again (Unix milliseconds).
        not_before: i64,
    },
    /// It becomes a dead letter.
    Dead {
        /// How often it was tried in vain, this one included.
        tries: Tries,
        /// Why.
        reason: String,
    },
    /// Its record cannot be read: it is set aside.
    Damaged(Damage),
}

impl Buffer {
    /// The next operations for replay at `now` (Unix milliseconds): lanes by aged priority, then
    /// oldest head first, leaving out lanes that wait for a retry and those of `busy`. What was
    /// appended when this began is among those to choose from.
    ///
    /// # Errors
    /// If the file cannot be read, or the indexes cannot be brought up to its records.
    pub async fn next_batch(
        &self,
        now: i64,
        limits: BatchLimits,
        busy: HashSet<Lane>,
    ) -> Result<Batch, BufferError> {
        if self.read(|snapshot| Ok(snapshot.tail().len() > 0)).await? {
            self.checkpoint().await?;
        }
        let keys = Arc::clone(&self.keys);
        self.read(move |snapshot| collect(snapshot, now, limits, &busy, &keys)).await
    }

    /// Settles operations in one durable transaction, or in several if there is little room on the
    /// disk. Those no longer there are passed over.
    ///
    /// # Errors
    /// If the file cannot be written: not all of it is settled then.
    pub async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), BufferError> {
        let settlements: Arc<[Settlement]> = settlements.into();
        let (mut next, mut length) = (0, settlements.len());
        while next < settlements.len() {
            let part = next..settlements.len().min(next + length);
            match self.settle_part(Arc::clone(&settlements), part.clone()).await? {
                Some(most) => length = most,
                None => next = part.end,
            }
        }
        Ok(())
    }

    /// Settles some of them at once. If there is no room for so many, none is, and it returns for how
    /// many there would be.
    async fn settle_part(
        &self,
        settlements: Arc<[Settlement]>,
        part: Range<usize>,
    ) -> Result<Option<usize>, BufferError> {
        let marks = Arc::clone(&self.marks);
        self.write(move |tables, room| {
            let (now, most) = (unix_millis(), room.most(part.len()));
            if most < part.len() {
                return Ok(Some(most));
            }
            let settlements = &settlements[part.clone()];
            let done =
                settlements.iter().filter(|settled| matches!(settled.verdict, Verdict::Done));
            let gone = tables.remove_all(done.map(|settled| settled.place).collect())?;
            tables.remember_settled(&gone, marks.highest().max(HybridTime::now()))?;
            for Settlement { place, verdict } in settlements {
                match verdict {
                    Verdict::Done => {}
                    Verdict::Retry { tries, not_before } => {
                        tables.retry(*place, *tries, *not_before)?;
                    }
                    Verdict::Dead { tries, reason } => {
                        tables.retry(*place, *tries, 0)?;
                        tables.bury(*place, OperationState::Rejected, reason, now)?;
                    }
                    Verdict::Damaged(damage) => tables.quarantine(*place, *damage)?,
                }
            }
            Ok(None)
        })
        .await
    }
}

fn collect(
    snapshot: &Snapshot,
    now: i64,
    limits: BatchLimits,
    busy: &HashSet<Lane>,
    keys: &Keys,
) -> Result<Batch, redb::Error> {
    let lanes = snapshot.open_table(LANES)?;
    let records = snapshot.open_table(RECORDS)?;
    let (mut batch, mut bytes, mut retried) = (Batch::default(), 0, 0);
    let urgent = urgent_lanes(snapshot, now, limits, busy)?;
    for UrgentLane { lane, is_retry, .. } in urgent.lanes {
        let (mut places, begun) =
            (lanes.range((&lane, 0)..=(&lane, u64::MAX))?, batch.entries.len());
        while let Some(entry) = places.next() {
            let place = entry?.0.value().1;
            let Some(record) = records.get(place)? else { continue };
            let is_full = batch.entries.len() >= limits.operations || bytes >= limits.bytes;
            if is_full || (is_retry && retried >= urgent.retries) {
                // The rest of a lane that is tried again follows when its head has succeeded.
                if is_retry && batch.entries.len() > begun {
                    let behind =
                        iter::once(Ok(place)).chain(places.map(|next| Ok(next?.0.value().1)));
                    batch.entries.extend(repeatable_create(&records, behind, keys)?);
                }
                if is_full {
                    return Ok(batch);
                }
                break;
            }
            retried += usize::from(is_retry);
            bytes += record.value().len();
            match record::decode(place, record.value(), keys) {
                Ok((header, operation)) => {
                    batch.entries.push(Entry::new(place, &header, operation));
                }
                Err(damage) => {
                    batch.damaged.push((place, damage));
                    if batch.damaged.len() >= DAMAGED {
                        return Ok(batch);
                    }
                    // What follows in the lane waits until its head has been set aside.
                    break;
                }
            }
        }
    }
    Ok(batch)
}

/// The first create with a key among the operations at these places of a lane; damaged records are left
/// to those who come to them. The head of the lane may wait for it.
fn repeatable_create(
    records: &impl ReadableTable<u64, Bytes>,
    places: impl Iterator<Item = Result<u64, redb::StorageError>>,
    keys: &Keys,
) -> Result<Option<Entry>, redb::Error> {
    for place in places.take(LOOKED_THROUGH) {
        let place = place?;
        let Some(record) = records.get(place)? else { continue };
        if let Ok((header, operation)) = record::decode(place, record.value(), keys)
            && operation.is_repeatable_create()
        {
            return Ok(Some(Entry::new(place, &header, operation)));
        }
    }
    Ok(None)
}

/// What replay may take now.
struct Urgent {
    /// The lanes, most urgent first.
    lanes: Vec<UrgentLane>,
    /// Operations of lanes that are tried again, at the most.
    retries: usize,
}

struct UrgentLane {
    lane: [u8; 17],
    is_retry: bool,
    rank: (Reverse<Priority>, i64),
}

/// The lanes that replay may take now, most urgent first; enough of them to fill a batch. Each
/// class of priority is kept oldest first, and within a class the oldest has aged most, so merging
/// the classes by their first lanes yields the whole order.
///
/// Lanes that are tried again have but a quarter of a batch while others fill the rest: many that wait
/// in vain grow old, and would come before everything newer.
fn urgent_lanes(
    snapshot: &Snapshot,
    now: i64,
    limits: BatchLimits,
    busy: &HashSet<Lane>,
) -> Result<Urgent, redb::Error> {
    let ready = snapshot.open_table(READY)?;
    let waiting = snapshot.open_table(WAITING)?;
    let urgent = |slot: Slot, is_retry: bool| {
        let waited = Duration::from_millis(u64::try_from(now - slot.queued_at).unwrap_or(0));
        let priority = Reverse(aged_priority(slot.priority, waited, limits.aging));
        UrgentLane { lane: slot.lane, is_retry, rank: (priority, slot.queued_at) }
    };
    let free =
        |slot: &Slot| record::lane_from_bytes(&slot.lane).is_some_and(|lane| !busy.contains(&lane));
    let longest = i64::try_from(limits.longest_wait.as_millis()).unwrap_or(i64::MAX);
    let (over, absurd) = ((now, u64::MAX), (now.saturating_add(longest).saturating_add(1), 0));
    let mut due = Vec::new();
    for entry in waiting.range(..=over)?.chain(waiting.range(absurd..)?).take(limits.operations) {
        due.push(Slot::decode(entry?.1.value()));
    }
    due.retain(free);
    let mut lanes = Vec::new();
    for class in 0..MAX_PRIORITY {
        let mut taken = 0;
        for entry in ready.range((class, 0)..=(class, u64::MAX))? {
            let slot = Slot::decode(entry?.1.value());
            if free(&slot) {
                lanes.push(urgent(slot, false));
                taken += 1;
            }
            if taken == limits.operations {
                break;
            }
        }
    }
    let left = limits.operations.saturating_sub(lanes.len());
    let retries = left.max(limits.operations / 4).max(1);
    due.truncate(retries);
    lanes.extend(due.into_iter().map(|slot| urgent(slot, true)));
    lanes.sort_by_key(|lane| lane.rank);
    lanes.truncate(limits.operations);
    Ok(Urgent { lanes, retries })
}
