//! Epochs of the cache: what was put in during another epoch than the present one is not there.
//!
//! An epoch is the moment it began, by Redis' clock, which run of Redis and which PostgreSQL it is of,
//! and a random number. A Redis that was started again may have lost fences, and may remember a state
//! of long ago: whenever its connection has failed, a process looks whether the epoch is of the present
//! run, and begins a new one if it is not. A PostgreSQL that is another one than the epoch's, or was set
//! back, may have lost what is cached: a process that meets it begins a new epoch before it reads from
//! the cache again. While PostgreSQL is away, the epoch that is there counts, whoever began it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redis::{Pipeline, Script};
use uuid::Uuid;

use crate::redis::{Redis, RedisAway};
use crate::store::{Identity, Lineage};

/// Where Redis keeps the present one.
pub(super) const EPOCH: &str = "holdfast:cache:epoch";
/// Characters of an epoch: its beginning (Unix milliseconds), the run of Redis, the PostgreSQL, and a
/// random number. One of another length was begun by another version of this program.
pub(super) const LENGTH: usize = POSTGRES.end + 16;
const BEGINNING: Range<usize> = 0..13;
const RUN: Range<usize> = 13..29;
const POSTGRES: Range<usize> = 29..53;
/// The PostgreSQL of an epoch that was begun while it was away.
const UNKNOWN: &str = "000000000000000000000000";

/// KEYS: the epoch. ARGV: the run and a random number.
const BEGIN: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('SET', KEYS[1], string.format('%013d', now) .. ARGV[1])";

/// The epochs of the cache, as one process sees them.
#[derive(Debug)]
pub(super) struct Epochs {
    redis: Redis,
    begin: Script,
    lineage: Arc<Lineage>,
    /// Which generation of [`Lineage`] the epoch is known to be good for, on the run of Redis that is
    /// connected, plus one; 0 if it is in doubt.
    good_for: AtomicU64,
    /// How many setbacks of PostgreSQL have been followed by a new epoch.
    setbacks: AtomicU64,
}

impl Epochs {
    pub(super) fn new(redis: Redis, lineage: Arc<Lineage>) -> Self {
        let (good_for, setbacks) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { redis, begin: Script::new(BEGIN), lineage, good_for, setbacks }
    }

    /// Makes sure that there is an epoch, of the run of Redis that is connected and of the PostgreSQL
    /// that was met last.
    ///
    /// # Errors
    /// If Redis is away.
    pub(super) async fn find(&self) -> Result<(), RedisAway> {
        if self.is_known() {
            return Ok(());
        }
        let seen = self.lineage.seen();
        let (run, epoch) = self.run_and_epoch().await?;
        let is_good = epoch
            .as_ref()
            .is_some_and(|epoch| epoch.get(RUN) == Some(&run) && is_of(epoch, seen.identity));
        if !is_good || self.setbacks.load(Ordering::Acquire) != seen.setbacks {
            self.begin(&run, seen.identity).await?;
            self.setbacks.store(seen.setbacks, Ordering::Release);
        }
        self.good_for.store(seen.generation + 1, Ordering::Release);
        Ok(())
    }

    /// Whether nothing has happened since [`Epochs::find`] that puts its finding in doubt.
    fn is_known(&self) -> bool {
        self.good_for.load(Ordering::Acquire) == self.lineage.seen().generation + 1
    }

    /// Whether this is the epoch that [`Epochs::find`] has found or begun, as far as can be told.
    pub(super) fn is_present(&self, epoch: &str) -> bool {
        self.is_known() && is_of(epoch, self.lineage.seen().identity)
    }

    /// Redis may have been started again, or have lost its memory.
    pub(super) fn doubt(&self) {
        self.good_for.store(0, Ordering::Release);
    }

    /// Begins a new epoch.
    ///
    /// # Errors
    /// If Redis is away: it may have begun all the same.
    pub(super) async fn renew(&self) -> Result<(), RedisAway> {
        let identity = self.lineage.seen().identity;
        let (run, _) = self.run_and_epoch().await?;
        self.begin(&run, identity).await
    }

    /// Which run of Redis is connected, and the epoch that it has.
    async fn run_and_epoch(&self) -> Result<(String, Option<String>), RedisAway> {
        let mut ask = Pipeline::new();
        ask.cmd("INFO").arg("server").cmd("GET").arg(EPOCH);
        let (server, epoch): (String, _) = self.redis.ask(&ask).await?;
        let run = server.lines().find_map(|line| line.strip_prefix("run_id:")?.get(..RUN.len()));
        Ok((run.ok_or(RedisAway)?.to_owned(), epoch))
    }

    async fn begin(&self, run: &str, identity: Option<Identity>) -> Result<(), RedisAway> {
        let postgres = identity.map_or_else(|| UNKNOWN.to_owned(), |identity| identity.to_string());
        let random = Uuid::new_v4().simple().to_string();
        let mut begin = self.begin.key(EPOCH);
        begin.arg(format!("{run}{postgres}{}", &random[..LENGTH - POSTGRES.end]));
        self.redis.run::<String>(&begin).await.map(drop)
    }
}

/// Whether an epoch is of this PostgreSQL, or may be.
fn is_of(epoch: &str, identity: Option<Identity>) -> bool {
    let of = |identity: Identity| epoch.get(POSTGRES) == Some(identity.to_string().as_str());
    epoch.len() == LENGTH && identity.is_none_or(of)
}

/// When an epoch began, by Redis' clock (Unix milliseconds); `None` if this is none.
pub(super) fn beginning(epoch: &str) -> Option<u64> {
    epoch.get(BEGINNING)?.parse().ok()
}
