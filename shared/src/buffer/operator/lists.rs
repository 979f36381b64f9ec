//! What an operator may look through: pending operations and dead letters, filtered, in parts. Each
//! part looks at a limited number of records.

use std::ops::Bound;
use std::sync::Arc;

use uuid::Uuid;

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::commit::snapshot::Snapshot;
use crate::buffer::error::BufferError;
use crate::buffer::format::entry::Entry;
use crate::buffer::format::keys::Keys;
use crate::buffer::format::layout::{DEAD, decode_dead};
use crate::buffer::format::record;
use crate::domain::{Action, Lane, Operation, OperationState, Priority, Version};

/// Records that one page looks at in search of matching ones.
const LOOK_AT: usize = 10_000;

/// A part of a list, and where the next part begins.
#[derive(Clone, Debug)]
pub struct Page<T, C> {
    /// The entries.
    pub items: Vec<T>,
    /// Where to go on; `None` at the end. A page may be short, or empty, and yet have a next one:
    /// each looks at a limited number of records.
    pub next: Option<C>,
}

/// Which pending operations are asked for. What is `None` matches all.
#[derive(Clone, Copy, Debug, Default)]
pub struct PendingFilter {
    /// Of this user.
    pub user_id: Option<Uuid>,
    /// Of this entity.
    pub lane: Option<Lane>,
    /// Of this priority.
    pub priority: Option<Priority>,
    /// Of this kind of change.
    pub action: Option<Action>,
}

/// Which dead letters are asked for. What is `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct DeadFilter {
    /// Of this user.
    pub user_id: Option<Uuid>,
    /// In this state: rejected or expired.
    pub state: Option<OperationState>,
    /// With this reason.
    pub reason: Option<String>,
}

/// A dead letter in a list.
#[derive(Clone, Debug)]
pub struct DeadEntry {
    /// When replay gave up (Unix milliseconds).
    pub died_at: i64,
    /// Attempts used up.
    pub attempts: u32,
    /// `Rejected` or `Expired`.
    pub state: OperationState,
    /// Why.
    pub reason: String,
    /// The operation.
    pub operation: Operation,
}

impl Buffer {
    /// Pending operations that match, in order of acceptance, from `after` on.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn pending_page(
        &self,
        filter: PendingFilter,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Page<Entry, u64>, BufferError> {
        let keys = Arc::clone(&self.keys);
        self.read(move |snapshot| pending_page(snapshot, filter, after, limit, &keys)).await
    }

    /// Dead letters that match, oldest death first, from `after` on.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn dead_page(
        &self,
        filter: DeadFilter,
        after: Option<(i64, Version)>,
        limit: usize,
    ) -> Result<Page<DeadEntry, (i64, Version)>, BufferError> {
        let keys = Arc::clone(&self.keys);
        self.read(move |snapshot| dead_page(snapshot, &filter, after, limit, &keys)).await
    }
}

fn pending_page(
    snapshot: &Snapshot,
    filter: PendingFilter,
    after: Option<u64>,
    limit: usize,
    keys: &Keys,
) -> Result<Page<Entry, u64>, redb::Error> {
    let records = snapshot.records()?;
    let first = after.map_or(0, |after| after.saturating_add(1));
    let mut page = Page { items: Vec::new(), next: None };
    // By the narrowest index there is; each yields places in order of acceptance.
    let places: Box<dyn Iterator<Item = Result<u64, redb::StorageError>>> =
        match (filter.lane, filter.user_id) {
            (Some(lane), _) => {
                let places = snapshot.places_of_lanes(&[lane])?.concat().into_iter();
                Box::new(places.filter(move |place| *place >= first).map(Ok))
            }
            (None, Some(user)) => Box::new(snapshot.places_of_user(user, first)?),
            (None, None) => {
                Box::new(records.from(first)?.map(|entry| entry.map(|(place, _)| place)))
            }
        };
    for (looked_at, place) in places.enumerate() {
        let place = place?;
        if page.items.len() == limit || looked_at == LOOK_AT {
            page.next = Some(place.saturating_sub(1));
            break;
        }
        let Some(bytes) = records.get(place)? else { continue };
        let Ok((header, operation)) = record::decode(place, &bytes, keys) else { continue };
        let matches = filter.user_id.is_none_or(|user| user == header.user_id)
            && filter.lane.is_none_or(|lane| lane == header.lane)
            && filter.priority.is_none_or(|priority| priority == header.priority)
            && filter.action.is_none_or(|action| action == operation.action());
        if matches {
            page.items.push(Entry::new(place, &header, operation));
        }
    }
    Ok(page)
}

fn dead_page(
    snapshot: &Snapshot,
    filter: &DeadFilter,
    after: Option<(i64, Version)>,
    limit: usize,
    keys: &Keys,
) -> Result<Page<DeadEntry, (i64, Version)>, redb::Error> {
    let dead = snapshot.open_table(DEAD)?;
    let mut page = Page { items: Vec::new(), next: None };
    let start =
        after.map_or(Bound::Unbounded, |(at, id)| Bound::Excluded((at, id.as_uuid().as_u128())));
    let mut last = after;
    for (looked_at, entry) in dead.range((start, Bound::Unbounded))?.enumerate() {
        let (key, bytes) = entry?;
        if page.items.len() == limit || looked_at == LOOK_AT {
            page.next = last;
            break;
        }
        let (died_at, id) = key.value();
        last = Some((died_at, Version::from_uuid(Uuid::from_u128(id))));
        let Ok((certificate, bytes)) = decode_dead(bytes.value()) else { continue };
        let Ok((header, operation)) = record::decode(certificate.place, bytes, keys) else {
            continue;
        };
        let matches = filter.user_id.is_none_or(|user| user == header.user_id)
            && filter.state.is_none_or(|state| state == certificate.state)
            && filter.reason.as_ref().is_none_or(|reason| *reason == certificate.reason);
        if matches {
            page.items.push(DeadEntry {
                died_at,
                attempts: header.tries.in_all(),
                state: certificate.state,
                reason: certificate.reason,
                operation,
            });
        }
    }
    Ok(page)
}
