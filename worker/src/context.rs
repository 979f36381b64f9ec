//! What the named workers share.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};

use shared::buffer::{Buffer, unix_millis};
use shared::cache::EntityCache;
use shared::domain::Lane;
use shared::redis::Redis;
use shared::sessions::Sessions;
use shared::settings::StoreSettings;
use shared::store::{Link, Store};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::Instant;

use crate::hosts::Hosts;
use crate::pace::Pace;
use crate::settings::WorkerSettings;

/// What the named workers share.
#[derive(Debug)]
pub struct Context {
    /// When this process started: by the wall clock (Unix milliseconds) and by one that does not jump.
    pub started: (i64, Instant),
    /// How the worker works.
    pub settings: WorkerSettings,
    /// How PostgreSQL is reached.
    pub store_settings: StoreSettings,
    /// PostgreSQL.
    pub store: Store,
    /// The buffer file.
    pub buffer: Buffer,
    /// Redis.
    pub redis: Redis,
    /// The sessions of all users.
    pub sessions: Sessions,
    /// The cache in Redis.
    pub cache: EntityCache,
    /// This process's opinion of PostgreSQL.
    pub link: Link,
    /// Wakes replay when there may be something to do.
    pub wake: Notify,
    /// Lanes that are being applied. Held while lanes are chosen, so that nobody else takes
    /// operations out of the buffer that are on their way to PostgreSQL.
    pub busy: Mutex<HashSet<Lane>>,
    /// The hosts that share PostgreSQL.
    pub hosts: Hosts,
    /// How fast replay goes.
    pub pace: Pace,
    /// Whether this is the one worker that works on the buffer file, and no standby.
    pub is_active: AtomicBool,
    /// Whether the buffer's indexes were checked since the start. Before that nothing is taken out: what
    /// is built upon damaged pages is lost.
    pub is_buffer_checked: AtomicBool,
    /// Whether the buffer was found damaged when its indexes were last checked, and could not be repaired.
    pub is_buffer_stuck: AtomicBool,
    /// Whether everything was up when it was last checked.
    pub all_up: AtomicBool,
    /// When replay last looked for work or finished a batch.
    pub progress: watch::Sender<Instant>,
    /// Whether the schema has been brought up to date since PostgreSQL was last found wanting.
    pub migrated: AtomicBool,
    /// Operations settled since the start.
    pub settled: AtomicU64,
    /// When a batch was last settled (Unix milliseconds); 0: never.
    pub settled_at: AtomicI64,
}

impl Context {
    /// What is known when nothing has been looked at yet.
    #[must_use]
    pub fn new(
        settings: WorkerSettings,
        store_settings: StoreSettings,
        store: Store,
        buffer: Buffer,
        redis: Redis,
        cache: EntityCache,
    ) -> Self {
        Self {
            started: (unix_millis(), Instant::now()),
            pace: Pace::new(settings.replay_batch_size),
            settings,
            store_settings,
            store,
            buffer,
            sessions: Sessions::new(redis.clone()),
            redis,
            cache,
            link: Link::default(),
            wake: Notify::new(),
            busy: Mutex::new(HashSet::new()),
            hosts: Hosts::default(),
            is_active: AtomicBool::new(false),
            is_buffer_checked: AtomicBool::new(false),
            is_buffer_stuck: AtomicBool::new(false),
            all_up: AtomicBool::new(false),
            progress: watch::Sender::new(Instant::now()),
            migrated: AtomicBool::new(false),
            settled: AtomicU64::new(0),
            settled_at: AtomicI64::new(0),
        }
    }
    /// The wall clock at the start of this process plus the time that has passed since by the monotonic
    /// clock (Unix milliseconds), so that a wall clock that jumps ahead makes nothing old; and no later
    /// than the wall clock, so that one that is set back does not either.
    #[must_use]
    pub fn steady_now(&self) -> i64 {
        let (wall, started) = self.started;
        let passed = i64::try_from(started.elapsed().as_millis()).unwrap_or(0);
        wall.saturating_add(passed).min(unix_millis())
    }
}
