//! Tasks and profiles by id, cached in Redis for all hosts.
//!
//! A process that reads an entity from PostgreSQL puts it into the cache. A process that is about to
//! change an entity removes it first, and leaves a fence for some seconds. While the fence is there,
//! nothing is put into the entity's place.
//!
//! The fence keeps old states out: another process may have read the entity before the change was
//! committed. Redis accepts only entries that were read in the last few seconds, by its own clock. The
//! fence outlasts the last moment at which the change can be committed, and those seconds after it. So
//! it holds even if the process that changes the entity is killed.
//!
//! - If Redis does not put up the fence, the whole cache has to be emptied. An operation in the buffer
//!   says so. While it waits there, no process of this host reads the cache.
//! - If the buffer does not take that operation either, this process does not read the cache for as long
//!   as its entries may live.
//!
//! Each entry begins with the epoch in which it was made (`epoch.rs`). Entries of another epoch than the
//! present one are ignored, so a new epoch empties the cache at once. In an epoch's first moments
//! nothing is put in, because Redis may have lost fences just before.

mod epoch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use metrics::Counter;
use redis::{Pipeline, Script};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::buffer::{Buffer, BufferError, Waiting};
use crate::domain::{Actor, CacheChange, Change, Clock, EntityKind, Lane, Operation, Role};
use crate::metric;
use crate::redis::{Redis, RedisAway};
use crate::settings::{RedisSettings, SettingsError};
use crate::store::Store;
use epoch::{EPOCH, Epochs};

/// How long a connection or an answer may take: PostgreSQL is hardly slower.
const TIMEOUT: Duration = Duration::from_millis(50);
/// The same for fences, on which other hosts count.
const FENCE_TIMEOUT: Duration = Duration::from_millis(100);
/// How long the buffer may take to keep in mind that the cache has to be emptied.
const KEEPING: Duration = Duration::from_millis(300);
/// Bytes of an entry at the most: what is larger is read from PostgreSQL. Room for a profile with the
/// largest preferences.
const LARGEST: usize = 10 << 10;
/// For how long after a look what PostgreSQL has told since then may be put in.
const FRESH: Duration = Duration::from_secs(3);
/// How long after its fence a change may be committed before the fence is put up once more. For so long
/// nothing is put into a new epoch, since Redis may have lost the fences of just before.
const COMMITTED: Duration = Duration::from_millis(1500);
/// Operations that wait for a new epoch at the most. The first may be on its way, so that it comes
/// before a change of now; what stands behind it does not.
const WAITING: usize = 2;

/// KEYS: entities. ARGV: how long the fence lasts (ms). One of another process that lasts longer stays.
const FENCE: &str = r"
for i = 1, #KEYS do
    if redis.call('STRLEN', KEYS[i]) > 0 or redis.call('PTTL', KEYS[i]) < tonumber(ARGV[1]) then
        redis.call('SET', KEYS[i], '', 'PX', ARGV[1])
    end
end
return 1";

/// KEYS: the epoch, entities. ARGV: the epoch and the time (ms) of the look, how much later it may be
/// (ms), lifetime (ms), entries. An empty entry is a fence.
const FILL: &str = r"
local time = redis.call('TIME')
local passed = time[1] * 1000 + time[2] / 1000 - tonumber(ARGV[2])
if redis.call('GET', KEYS[1]) ~= ARGV[1] or passed < 0 or passed > tonumber(ARGV[3]) then return 0 end
for i = 2, #KEYS do
    if redis.call('GET', KEYS[i]) ~= '' then
        redis.call('SET', KEYS[i], ARGV[1] .. ARGV[i + 3], 'PX', ARGV[4])
    end
end
return 1";

/// The cache. Without a lifetime there is none, and every call does nothing.
#[derive(Debug)]
pub struct EntityCache {
    redis: Redis,
    /// A connection of their own, so that they do not wait for what others read.
    fences: Redis,
    lifetime: Duration,
    /// How long what was taken out cannot be put in: until after the last commit of what was begun then,
    /// and as long again as what was read before it may be put in.
    fence: Duration,
    epochs: Epochs,
    fill: Script,
    put_up: Script,
    /// Until when this process does not read it.
    distrusted: Mutex<Option<Instant>>,
    /// Its operations have their own lane, so they need no clock but their own.
    clock: Arc<Clock>,
    hits: Counter,
    misses: Counter,
    unavailable: Counter,
}

/// What a look into the cache found.
#[derive(Debug)]
pub struct Look<T> {
    /// The entities that are there.
    pub found: HashMap<Uuid, T>,
    kind: EntityKind,
    epoch: String,
    /// Redis' time (Unix milliseconds).
    at: u64,
}

/// Entities that are about to be changed in PostgreSQL.
#[derive(Debug)]
#[must_use]
pub struct Fenced {
    entities: Vec<Lane>,
    /// When their fence was put up, if it was.
    since: Option<Instant>,
}

impl EntityCache {
    /// The cache in the Redis of these settings, over connections of its own: it waits for less than
    /// others do. It is of the PostgreSQL that `store` reaches, and takes note of what that writes.
    ///
    /// # Errors
    /// If the address cannot be read.
    pub fn new(settings: &RedisSettings, store: &Store) -> Result<Self, SettingsError> {
        let counter = |result| metrics::counter!(metric::CACHE_REQUESTS.name, "result" => result);
        let redis = Redis::with_timeout(settings, TIMEOUT)?;
        Ok(Self {
            epochs: Epochs::new(redis.clone(), store.lineage()),
            redis,
            fences: Redis::with_timeout(settings, FENCE_TIMEOUT)?,
            lifetime: settings.cache_lifetime(),
            fence: store.longest_write().max(COMMITTED).saturating_add(FRESH),
            distrusted: Mutex::new(None),
            fill: Script::new(FILL),
            put_up: Script::new(FENCE),
            clock: Arc::default(),
            hits: counter("hit"),
            misses: counter("miss"),
            unavailable: counter("unavailable"),
        })
    }

    /// Looks entities of a kind up; `None` if there is no cache, or Redis is away. To be called before
    /// PostgreSQL is asked for what is not found.
    pub async fn look<T: DeserializeOwned>(
        &self,
        kind: EntityKind,
        ids: &[Uuid],
    ) -> Option<Look<T>> {
        if self.lifetime.is_zero() || self.is_distrusted() {
            return None;
        }
        let Ok(look) = self.look_up(kind, ids).await else {
            self.epochs.doubt();
            self.unavailable.increment(ids.len() as u64);
            return None;
        };
        let hits = look.as_ref().map_or(0, |look| look.found.len());
        self.hits.increment(hits as u64);
        self.misses.increment(ids.len().saturating_sub(hits) as u64);
        look
    }

    /// What is there of entities; `None` if nothing that is there counts, nor would what is put in.
    async fn look_up<T: DeserializeOwned>(
        &self,
        kind: EntityKind,
        ids: &[Uuid],
    ) -> Result<Option<Look<T>>, RedisAway> {
        self.epochs.find().await?;
        let mut ask = Pipeline::new();
        ask.cmd("TIME").cmd("MGET").arg(EPOCH);
        for id in ids {
            ask.arg(key(Lane { kind, id: *id }));
        }
        type Entries = ((u64, u64), Vec<Option<String>>);
        let ((seconds, micros), mut entries): Entries = self.redis.ask_once(&ask).await?;
        // Another look may have met the end of that run, or another PostgreSQL, while this one was on
        // its way.
        let epoch = entries.first_mut().and_then(Option::take);
        let Some(epoch) = epoch.filter(|epoch| self.epochs.is_present(epoch)) else {
            self.epochs.doubt();
            return Ok(None);
        };
        let at = seconds * 1000 + micros / 1000;
        let counts_from = epoch::beginning(&epoch).map(|at| at.saturating_add(millis(COMMITTED)));
        if counts_from.is_none_or(|from| at < from) {
            return Ok(None);
        }
        let of_now = |entry: &String| {
            let (made_in, entity) = entry.split_at_checked(epoch::LENGTH)?;
            (made_in == epoch).then(|| serde_json::from_str(entity).ok()).flatten()
        };
        let entries = ids.iter().zip(entries.iter().skip(1));
        let found = entries
            .filter_map(|(id, entry)| Some((*id, entry.as_ref().and_then(of_now)?)))
            .collect();
        Ok(Some(Look { found, kind, epoch, at }))
    }

    /// Puts in what PostgreSQL has told since a look. Not to be put in is what may be made again under
    /// its id: creates have no fence.
    pub async fn fill<'a, T: Serialize + 'a>(
        &self,
        look: &Look<T>,
        entities: impl IntoIterator<Item = (Uuid, &'a T)>,
    ) {
        let mut fill = self.fill.key(EPOCH);
        fill.arg(&look.epoch).arg(look.at).arg(millis(FRESH)).arg(millis(self.lifetime));
        let mut some = false;
        for (id, entity) in entities {
            let Ok(entry) = serde_json::to_string(entity) else { continue };
            if entry.len() <= LARGEST {
                fill.key(key(Lane { kind: look.kind, id })).arg(entry);
                some = true;
            }
        }
        if some {
            // What is not cached is read from PostgreSQL again.
            let _ = self.redis.run::<u8>(&fill).await;
        }
    }

    /// Takes entities out that operations are about to change in PostgreSQL. [`EntityCache::changed`] has
    /// to follow, before a change is answered or leaves the buffer.
    pub async fn fence(&self, operations: &[Operation]) -> Fenced {
        let (entities, since) = (changing(operations), Instant::now());
        let up = self.put_up_fences(&entities).await.is_ok();
        Fenced { entities, since: up.then_some(since) }
    }

    /// Makes sure that entities are not in the cache as they were before they may have been changed.
    /// If Redis is away, the buffer keeps in mind that everything has to go. Returns false if it does not
    /// either.
    pub async fn changed(&self, fenced: Fenced, buffer: &Buffer) -> bool {
        let Fenced { entities, since } = fenced;
        if since.is_some_and(|since| since.elapsed() < COMMITTED)
            || self.put_up_fences(&entities).await.is_ok()
        {
            return true;
        }
        self.distrust(buffer).await
    }

    /// Has the cache emptied before any process of this host reads it again. Should the buffer not take
    /// that, this process alone does not read it until all its entries have expired, and false is
    /// returned.
    pub async fn distrust(&self, buffer: &Buffer) -> bool {
        let kept = tokio::time::timeout(KEEPING, self.keep_in_mind(buffer)).await;
        let Err(error) = kept.unwrap_or(Err(BufferError::Timeout)) else { return true };
        metrics::counter!(metric::CACHE_INVALIDATIONS_LOST.name).increment(1);
        tracing::error!(
            %error,
            "the buffer does not keep in mind that the cache has to be emptied: other processes may read \
             what has changed as it was, until its entries expire"
        );
        // Others may put in what they had looked up before.
        let until = Instant::now() + FRESH + self.lifetime;
        *self.distrusted.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        false
    }

    fn is_distrusted(&self) -> bool {
        let until = *self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    async fn put_up_fences(&self, entities: &[Lane]) -> Result<(), RedisAway> {
        if entities.is_empty() || self.lifetime.is_zero() {
            return Ok(());
        }
        let mut put_up = self.put_up.prepare_invoke();
        for entity in entities {
            put_up.key(key(*entity));
        }
        put_up.arg(millis(self.fence));
        // A broken connection is made again by the call that fails.
        match self.fences.run::<u8>(&put_up).await {
            Ok(_) => Ok(()),
            Err(RedisAway) => self.fences.run::<u8>(&put_up).await.map(drop),
        }
    }

    async fn keep_in_mind(&self, buffer: &Buffer) -> Result<(), BufferError> {
        // Where it cannot be told, one more does no harm.
        let enough = |lane: &Waiting| lane.number >= WAITING;
        if buffer.lanes(vec![Lane::CACHE]).await.is_ok_and(|lanes| lanes.iter().any(enough)) {
            return Ok(());
        }
        let operation = Operation {
            id: self.clock.next(),
            // Nobody's.
            actor: Actor { user_id: Uuid::nil(), role: Role::User, session_id: None },
            change: Change::Cache(CacheChange::Invalidate),
            accepted_at: Utc::now(),
            request_id: Uuid::now_v7(),
            traceparent: None,
        };
        buffer.append(operation, Some(Arc::clone(&self.clock))).await?;
        Ok(())
    }

    /// Empties the cache.
    ///
    /// # Errors
    /// If Redis is away: it may be empty all the same.
    pub async fn empty(&self) -> Result<(), RedisAway> {
        if self.lifetime.is_zero() {
            return Ok(());
        }
        self.epochs.renew().await
    }
}

/// The cached entities that operations may change.
fn changing(operations: &[Operation]) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = operations
        .iter()
        // What a create makes has not been there.
        .filter(|operation| operation.creates().is_none())
        .map(Operation::lane)
        .filter(|lane| lane.kind.is_cached())
        .collect();
    lanes.sort_unstable();
    lanes.dedup();
    lanes
}

fn key(entity: Lane) -> String {
    format!("holdfast:{}:{}", entity.kind.as_str(), entity.id)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
