//! A node without its processes: a buffer file, and replay of it step by step, so that a test can
//! stop between any two of them. The buffer and the store are the product's own.

use std::collections::HashSet;
use std::time::Duration;

use chrono::Utc;
use shared::buffer::{Batch, BatchLimits, Buffer, Entry, Settlement, Verdict, unix_millis};
use shared::domain::{
    Actor, Change, Fate, Lane, Operation, Preferences, RetryRules, Role, TaskFields, TaskStatus,
    Title, Tries, Version, judge,
};
use shared::settings::{BufferSettings, StoreSettings};
use shared::store::{Effect, Source, Store, Usage};
use tempfile::TempDir;
use tests::{Postgres, scratch_folder};
use uuid::Uuid;

/// Attempts after which replay gives up, here.
const ATTEMPTS: u32 = 3;
/// Waits for another host after which nothing is expected of it any more, here: replay counts time.
const WAITS: u8 = 3;
/// Far enough in the future for every retry to be due (milliseconds).
const LATER: i64 = 1_000_000;

/// A PostgreSQL with the product's schema, and the store on it.
pub struct Database {
    /// The server.
    pub postgres: Postgres,
    /// The store.
    pub store: Store,
    _folder: TempDir,
}

impl Database {
    /// A PostgreSQL of its own, migrated.
    pub async fn start() -> Self {
        let folder = scratch_folder("database");
        let postgres = Postgres::start(folder.path()).await;
        let settings = StoreSettings {
            database_url: Some(postgres.url().into()),
            db_connect_timeout_ms: 10_000,
            node_id: Some("in-process".to_owned()),
            ..StoreSettings::default()
        };
        let usage = Usage {
            application_name: "tests",
            write_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_millis(100),
        };
        let store = Store::new(&settings, usage).await.unwrap();
        migration::up(&store.connection()).await.unwrap();
        Self { postgres, store, _folder: folder }
    }

    /// The ledger of these entities in the order of application: entity, operation, outcome.
    pub async fn ledger(&self, entities: &[Uuid]) -> Vec<(Uuid, Version, String)> {
        let ids: Vec<String> = entities.iter().map(|id| format!("'{id}'")).collect();
        let rows = self
            .postgres
            .psql(&format!(
                "SELECT entity_id, id, outcome FROM operations WHERE entity_id IN ({}) \
                 ORDER BY applied_at, id",
                ids.join(", ")
            ))
            .await;
        let row = |line: &str| {
            let mut columns = line.split('|');
            let mut next = || columns.next().unwrap();
            (next().parse().unwrap(), next().parse().unwrap(), next().to_owned())
        };
        rows.lines().map(row).collect()
    }
}

/// One host's buffer file.
pub struct Node {
    buffer: Option<Buffer>,
    settings: BufferSettings,
    /// Whether other hosts may still bring what was waited for so often.
    may_come: fn(Tries) -> bool,
    _folder: TempDir,
}

impl Node {
    /// A node with an empty buffer file, which expects something of other hosts for a while.
    pub fn new() -> Self {
        Self::expecting(|tries| tries.waits < WAITS)
    }

    /// A node with an empty buffer file, and other hosts that may bring what it waits for in the end.
    pub fn patient() -> Self {
        Self::expecting(|_| true)
    }

    fn expecting(may_come: fn(Tries) -> bool) -> Self {
        let folder = scratch_folder("node");
        let settings = BufferSettings {
            buffer_path: folder.path().join("data/buffer.redb"),
            buffer_min_free_bytes: 0,
            buffer_timeout_ms: 20_000,
            ..BufferSettings::default()
        };
        let buffer = Some(Buffer::open(&settings).unwrap());
        Self { buffer, settings, may_come, _folder: folder }
    }

    /// The buffer.
    pub fn buffer(&self) -> &Buffer {
        self.buffer.as_ref().unwrap()
    }

    /// Closes the file and opens it again, as the next process does.
    pub fn reopen(&mut self) {
        self.buffer = None;
        self.buffer = Some(Buffer::open(&self.settings).unwrap());
    }

    /// The next batch of at most `take` operations, whether or not a retry is due already.
    pub async fn claim(&self, take: usize, busy: &HashSet<Lane>) -> Batch {
        let limits = BatchLimits {
            operations: take,
            bytes: 1 << 20,
            aging: Duration::from_secs(60),
            longest_wait: Duration::from_secs(3600),
        };
        self.buffer().next_batch(unix_millis() + LATER, limits, busy.clone()).await.unwrap()
    }

    /// Applies a batch and tells what is to become of its operations, as the worker does.
    pub async fn apply(&self, store: &Store, batch: Batch) -> Vec<Settlement> {
        assert!(batch.damaged.is_empty(), "{batch:?}");
        let mut operations: Vec<Operation> =
            batch.entries.iter().map(|entry| entry.operation.clone()).collect();
        if operations.is_empty() {
            return Vec::new();
        }
        let applied = store.apply(&mut operations, Source::Replay).await;
        assert_eq!(applied.error, None);
        let entries = batch.entries.iter().zip(&applied.effects);
        entries.filter_map(|(entry, effect)| self.settlement(entry, effect)).collect()
    }

    /// What the rules of replay make of an operation; retries are due at once.
    fn settlement(&self, entry: &Entry, effect: &Effect) -> Option<Settlement> {
        let rules = RetryRules {
            max_attempts: ATTEMPTS,
            base: Duration::ZERO,
            cap: Duration::ZERO,
            random: 0.0,
            now: unix_millis(),
        };
        let may_come = (self.may_come)(entry.tries);
        let verdict = match judge(effect.outcome?, entry.tries, may_come, &rules) {
            Fate::Done => Verdict::Done,
            Fate::Retry { tries, not_before } | Fate::Awaits { tries, not_before } => {
                Verdict::Retry { tries, not_before }
            }
            Fate::Dead { tries, refusal } => Verdict::Dead { tries, reason: refusal.reason() },
            Fate::Erased => return None,
        };
        Some(Settlement { place: entry.place, verdict })
    }

    /// Claims, applies and settles one batch; false if there was none.
    pub async fn replay(&self, store: &Store, take: usize) -> bool {
        let batch = self.claim(take, &HashSet::new()).await;
        let some = !batch.entries.is_empty();
        let settlements = self.apply(store, batch).await;
        self.buffer().settle(settlements).await.unwrap();
        some
    }
}

/// An operation of a user.
pub fn operation(id: Version, user_id: Uuid, change: Change) -> Operation {
    Operation {
        id,
        actor: Actor { user_id, role: Role::User, session_id: None },
        change,
        accepted_at: Utc::now(),
        request_id: Uuid::new_v4(),
        traceparent: None,
    }
}

/// The fields of a task with this title.
pub fn fields(title: &str) -> TaskFields {
    TaskFields {
        title: Title::try_from(title.to_owned()).unwrap(),
        description: None,
        status: TaskStatus::Pending,
    }
}

/// Preferences that hold this text.
pub fn preferences(text: &str) -> Preferences {
    Preferences::stored(serde_json::json!({ "text": text }))
}
