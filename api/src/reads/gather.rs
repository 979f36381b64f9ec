//! Reading single tasks, many at once: what is asked for while one look is on its way goes into the
//! next, which is one look into the buffer, one into the cache and one statement for what is in
//! neither, however many clients ask. One that comes alone leaves at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use shared::buffer::Buffer;
use shared::cache::EntityCache;
use shared::domain::{Base, EntityKind, Operation, Task};
use shared::gather::Gatherer;
use shared::host_clock::HostClock;
use shared::store::{Link, Store, StoreError};
use shared::writes::KnownTasks;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::error::ReadError;
use super::pending_and_cached;

/// Looks on their way at once.
const READERS: usize = 2;

/// What is known of a task: its pending operations, and what PostgreSQL or the cache has.
#[derive(Debug)]
pub struct Known {
    /// The pending operations, oldest first.
    pub pending: Vec<Operation>,
    /// What PostgreSQL has, if it can be asked, or the cache.
    pub base: Base,
    /// True if that is from the cache.
    pub cached: bool,
    /// True if PostgreSQL is away, so that there may be newer data.
    pub stale: bool,
}

/// A task that is asked for, and where the answer goes.
#[derive(Debug)]
struct Ask {
    id: Uuid,
    reply: oneshot::Sender<Result<Known, ReadError>>,
}

/// The tasks that read.
#[derive(Debug)]
pub struct TaskReader {
    asks: Gatherer<Ask>,
}

impl TaskReader {
    /// Starts the tasks that read.
    #[must_use]
    pub fn start(reader: Reader) -> Self {
        let reader = Arc::new(reader);
        let asks = Gatherer::start("reads", READERS, move |batch| {
            let reader = Arc::clone(&reader);
            async move { reader.look(batch).await }
        });
        Self { asks }
    }

    /// What is known of a task now.
    ///
    /// # Errors
    /// If the buffer cannot be read, or too many reads are waiting.
    pub async fn known(&self, id: Uuid) -> Result<Known, ReadError> {
        let (reply, known) = oneshot::channel();
        self.asks.send(id, Ask { id, reply }).ok_or(ReadError::Overloaded)?;
        known.await.unwrap_or(Err(ReadError::Overloaded))
    }

    /// Takes no more reads, answers those that wait, and ends the tasks.
    pub async fn close(&self) {
        self.asks.close().await;
    }
}

/// What the tasks that read look into.
#[derive(Debug)]
pub struct Reader {
    /// PostgreSQL.
    pub store: Arc<Store>,
    /// The buffer file.
    pub buffer: Arc<Buffer>,
    /// This process's opinion of PostgreSQL.
    pub link: Arc<Link>,
    /// The cache.
    pub cache: Arc<EntityCache>,
    /// Takes note of the versions that are read.
    pub clock: Arc<HostClock>,
    /// Tasks as this process last committed them.
    pub known: KnownTasks,
}

impl Reader {
    /// Pending operations first: what replay brings to PostgreSQL between the two looks is then seen
    /// in both, and not in neither.
    async fn look(&self, batch: Vec<Ask>) {
        let ids: Vec<Uuid> = {
            // However many ask for a task, it is read once.
            let distinct: HashSet<Uuid> = batch.iter().map(|ask| ask.id).collect();
            distinct.into_iter().collect()
        };
        // Once PostgreSQL is back, it is asked before anything cached is taken for the present state.
        let was_up = self.link.is_up();
        let read = pending_and_cached(&self.buffer, &self.cache, EntityKind::Task, &ids).await;
        let (pending, look) = match read {
            Ok(found) => found,
            Err(error) => {
                let error = ReadError::from(error);
                for ask in batch {
                    answer(ask.reply, Err(error.clone()));
                }
                return;
            }
        };
        let pending: HashMap<Uuid, Vec<Operation>> = ids.iter().copied().zip(pending).collect();
        let cached: Option<&HashMap<Uuid, Task>> = look.as_ref().map(|look| &look.found);
        let is_cached = |id: &Uuid| cached.is_some_and(|tasks| tasks.contains_key(id));
        let missing: Vec<Uuid> = ids.into_iter().filter(|id| !is_cached(id)).collect();
        let stored = if missing.is_empty() { None } else { self.stored(missing).await };
        let away = !was_up || !self.link.is_up();
        let of_stored = stored.iter().flat_map(HashMap::values).flatten();
        let of_cache = cached.iter().flat_map(|tasks| tasks.values());
        let versions: Vec<_> = of_stored.chain(of_cache).map(Task::version).collect();
        self.clock.saw(versions).await;
        for Ask { id, reply } in batch {
            let pending = pending.get(&id).cloned().unwrap_or_default();
            let known = if let Some(task) = cached.and_then(|tasks| tasks.get(&id)) {
                let base = Base::Read(Some(task.clone()));
                Known { pending, base, cached: true, stale: away }
            } else {
                let base = match stored.as_ref().map(|tasks| tasks.get(&id)) {
                    Some(Some(Ok(task))) => Base::Read(Some(task.clone())),
                    Some(None) => Base::Read(None),
                    Some(Some(Err(_))) | None => Base::Unknown,
                };
                let stale = matches!(base, Base::Unknown);
                let base =
                    if stale && !pending.is_empty() { last_known(&self.known, id) } else { base };
                Known { pending, base, cached: false, stale }
            };
            answer(reply, Ok(known));
        }
        if let (Some(look), Some(stored)) = (look, stored) {
            // A tombstone's id may come from an idempotency key, and be used again once its row is gone.
            let there = stored.values().flatten().filter(|task| task.deleted_at.is_none());
            self.cache.fill(&look, there.map(|task| (task.id, task))).await;
        }
    }

    /// What PostgreSQL has of these tasks, if it can be asked.
    async fn stored(&self, ids: Vec<Uuid>) -> Option<HashMap<Uuid, Result<Task, StoreError>>> {
        if !self.link.is_up() {
            return None;
        }
        match self.store.tasks(ids).await {
            Ok(tasks) => {
                for task in tasks.values() {
                    if let Err(error) = task {
                        self.link.report(*error);
                    }
                }
                Some(tasks)
            }
            Err(error) => {
                self.link.report(error);
                None
            }
        }
    }
}

/// What is known of a task that PostgreSQL cannot be asked for: what this process has committed, if a
/// create of it may be repeated.
pub(super) fn last_known(known: &KnownTasks, id: Uuid) -> Base {
    known.get(id).map_or(Base::Unknown, |task| Base::Read(Some(task)))
}

fn answer(reply: oneshot::Sender<Result<Known, ReadError>>, known: Result<Known, ReadError>) {
    // A client that hung up needs no answer.
    let _ = reply.send(known);
}
