//! Epochs of the cache: what was put in during another epoch than the present one is not there.
//!
//! An epoch is the moment it began, by Redis' clock, which run of Redis it is of, and a random number.
//! A Redis that was started again may have lost fences, and may remember a state of long ago: whenever
//! its connection has failed, a process looks whether the epoch is of the present run, and begins a new
//! one if it is not.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{Pipeline, Script};
use uuid::Uuid;

use crate::redis::{Redis, RedisAway};

/// Where Redis keeps the present one.
pub(super) const EPOCH: &str = "holdfast:cache:epoch";
/// Characters of an epoch: its beginning (Unix milliseconds), the run of Redis, and a random number.
pub(super) const LENGTH: usize = RUN.end + 16;
const BEGINNING: Range<usize> = 0..13;
const RUN: Range<usize> = 13..29;

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
    /// Whether the epoch is known to be of the run of Redis that is connected.
    of_this_run: AtomicBool,
}

impl Epochs {
    pub(super) fn new(redis: Redis) -> Self {
        Self { redis, begin: Script::new(BEGIN), of_this_run: AtomicBool::new(false) }
    }

    /// Makes sure that there is an epoch, of the run of Redis that is connected.
    ///
    /// # Errors
    /// If Redis is away.
    pub(super) async fn find(&self) -> Result<(), RedisAway> {
        if self.is_known() {
            return Ok(());
        }
        let (run, epoch) = self.run_and_epoch().await?;
        if epoch.as_ref().and_then(|epoch| epoch.get(RUN)) != Some(&run) {
            self.begin(&run).await?;
        }
        self.of_this_run.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether nothing has happened since [`Epochs::find`] that puts its finding in doubt.
    pub(super) fn is_known(&self) -> bool {
        self.of_this_run.load(Ordering::Acquire)
    }

    /// Redis may have been started again, or have lost its memory.
    pub(super) fn doubt(&self) {
        self.of_this_run.store(false, Ordering::Release);
    }

    /// Begins a new epoch.
    ///
    /// # Errors
    /// If Redis is away: it may have begun all the same.
    pub(super) async fn renew(&self) -> Result<(), RedisAway> {
        let (run, _) = self.run_and_epoch().await?;
        self.begin(&run).await
    }

    /// Which run of Redis is connected, and the epoch that it has.
    async fn run_and_epoch(&self) -> Result<(String, Option<String>), RedisAway> {
        let mut ask = Pipeline::new();
        ask.cmd("INFO").arg("server").cmd("GET").arg(EPOCH);
        let (server, epoch): (String, _) = self.redis.ask(&ask).await?;
        let run = server.lines().find_map(|line| line.strip_prefix("run_id:")?.get(..RUN.len()));
        Ok((run.ok_or(RedisAway)?.to_owned(), epoch))
    }

    async fn begin(&self, run: &str) -> Result<(), RedisAway> {
        let random = Uuid::new_v4().simple().to_string();
        let mut begin = self.begin.key(EPOCH);
        begin.arg(format!("{run}{}", &random[..LENGTH - RUN.end]));
        self.redis.run::<String>(&begin).await.map(drop)
    }
}

/// When an epoch began, by Redis' clock (Unix milliseconds); `None` if this is none.
pub(super) fn beginning(epoch: &str) -> Option<u64> {
    epoch.get(BEGINNING)?.parse().ok()
}
