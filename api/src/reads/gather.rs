//! Reading single tasks, many at once: what is asked for while one look is on its way goes into the
//! next, which is one look into the buffer and one statement, however many clients ask. One that
//! comes alone leaves at once.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use shared::buffer::Buffer;
use shared::domain::{Base, Clock, EntityKind, Lane, Operation, Task};
use shared::store::{Link, Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::http::ApiError;

/// Looks on their way at once.
const READERS: usize = 2;
/// Tasks in one look at the most.
const BATCH: usize = 256;
/// Reads that may wait for one reader before new ones are refused.
const QUEUE: usize = 8192;

/// What is known of a task: its pending operations, and what PostgreSQL has.
#[derive(Debug)]
pub struct Known {
    /// The pending operations, oldest first.
    pub pending: Vec<Operation>,
    /// What PostgreSQL has, if it can be asked.
    pub base: Base,
}

/// A task that is asked for, and where the answer goes.
struct Ask {
    id: Uuid,
    reply: oneshot::Sender<Result<Known, ApiError>>,
}

/// The tasks that read.
#[derive(Debug)]
pub struct TaskReader {
    queues: Mutex<Vec<mpsc::Sender<Ask>>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

impl TaskReader {
    /// Starts the tasks that read.
    #[must_use]
    pub fn start(
        store: &Arc<Store>,
        buffer: &Arc<Buffer>,
        link: &Arc<Link>,
        clock: &Arc<Clock>,
    ) -> Self {
        let (mut queues, mut readers) = (Vec::new(), Vec::new());
        for _ in 0..READERS {
            let (queue, asks) = mpsc::channel(QUEUE);
            let reader = Reader {
                store: Arc::clone(store),
                buffer: Arc::clone(buffer),
                link: Arc::clone(link),
                clock: Arc::clone(clock),
            };
            queues.push(queue);
            readers.push(tokio::spawn(reader.run(asks)));
        }
        Self { queues: Mutex::new(queues), readers: Mutex::new(readers) }
    }

    /// What is known of a task now.
    ///
    /// # Errors
    /// If the buffer cannot be read, or too many reads are waiting.
    pub async fn known(&self, id: Uuid) -> Result<Known, ApiError> {
        let (reply, known) = oneshot::channel();
        let queue = self.queue_of(id).ok_or(ApiError::OVERLOADED)?;
        queue.try_send(Ask { id, reply }).map_err(|_| ApiError::OVERLOADED)?;
        known.await.unwrap_or(Err(ApiError::OVERLOADED))
    }

    fn queue_of(&self, id: Uuid) -> Option<mpsc::Sender<Ask>> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let shard = id.as_u128() % (READERS as u128);
        queues.get(usize::try_from(shard).unwrap_or(0)).cloned()
    }

    /// Takes no more reads, answers those that wait, and ends the tasks.
    pub async fn close(&self) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let readers =
            std::mem::take(&mut *self.readers.lock().unwrap_or_else(PoisonError::into_inner));
        for reader in readers {
            if reader.await.is_err() {
                tracing::error!("a task that reads has panicked");
            }
        }
    }
}

/// One task that reads: one look on its way at a time.
struct Reader {
    store: Arc<Store>,
    buffer: Arc<Buffer>,
    link: Arc<Link>,
    clock: Arc<Clock>,
}

impl Reader {
    async fn run(self, mut asks: mpsc::Receiver<Ask>) {
        let mut batch = Vec::new();
        while asks.recv_many(&mut batch, BATCH).await > 0 {
            let looked = AssertUnwindSafe(self.look(std::mem::take(&mut batch))).catch_unwind();
            if looked.await.is_err() {
                tracing::error!("a batch of reads panicked: its clients are told that they failed");
            }
        }
    }

    /// Pending operations first: what replay brings to PostgreSQL between the two looks is then seen
    /// in both, and not in neither.
    async fn look(&self, batch: Vec<Ask>) {
        let ids: Vec<Uuid> = {
            // However many ask for a task, it is read once.
            let distinct: HashSet<Uuid> = batch.iter().map(|ask| ask.id).collect();
            distinct.into_iter().collect()
        };
        let lanes = ids.iter().map(|id| Lane { kind: EntityKind::Task, id: *id }).collect();
        let pending: HashMap<Uuid, Vec<Operation>> = match self.buffer.lanes(lanes).await {
            Ok(pending) => ids.iter().copied().zip(pending).collect(),
            Err(error) => {
                let error = ApiError::from(error);
                for ask in batch {
                    answer(ask.reply, Err(error.clone()));
                }
                return;
            }
        };
        let stored = self.stored(ids).await;
        for Ask { id, reply } in batch {
            let pending = pending.get(&id).cloned().unwrap_or_default();
            let base = match stored.as_ref().map(|tasks| tasks.get(&id)) {
                Some(Some(Ok(task))) => Base::Read(Some(task.clone())),
                Some(None) => Base::Read(None),
                Some(Some(Err(_))) | None => Base::Unknown,
            };
            answer(reply, Ok(Known { pending, base }));
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
                    match task {
                        Ok(task) => self.clock.observe(task.versions.newest()),
                        Err(error) => self.link.report(*error),
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

fn answer(reply: oneshot::Sender<Result<Known, ApiError>>, known: Result<Known, ApiError>) {
    // A client that hung up needs no answer.
    let _ = reply.send(known);
}
