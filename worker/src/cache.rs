//! Emptying the cache in Redis, after a Redis that was away when something changed.

use shared::buffer::{Entry, Settlement};
use shared::cache::EntityCache;
use shared::domain::Lane;

use crate::sessions::wait_for_redis;

/// Empties the cache if entries of a batch are about that. Returns the entries that PostgreSQL is to
/// see, and what is to become of the others: one waits, without using up an attempt, until Redis is
/// there. Only the oldest is carried out; those behind it come again, since who has found one there
/// counts on it to be carried out later than that ([`EntityCache::changed`]).
pub async fn empty(cache: &EntityCache, entries: Vec<Entry>) -> (Vec<Entry>, Option<Settlement>) {
    let (of_cache, mut others): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.operation.lane() == Lane::CACHE);
    let Some(oldest) = of_cache.into_iter().next() else { return (others, None) };
    if cache.empty().await.is_err() {
        let waits = Settlement { place: oldest.place, verdict: wait_for_redis(&oldest) };
        return (others, Some(waits));
    }
    others.push(oldest);
    (others, None)
}
