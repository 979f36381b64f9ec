//! Gathers pieces of work into batches. Pieces that come while one batch is on its way go into the next.
//! No timer delays anything: a piece that comes alone starts at once.
//!
//! A few tasks share the work by its key. So pieces with one key are never in two batches at the same
//! time.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Pieces of work in one batch at the most.
const BATCH: usize = 256;
/// Pieces that may wait for one task before new ones are refused.
const QUEUE: usize = 8192;

/// The queues of some tasks, and the tasks.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// use shared::gather::Gatherer;
/// use uuid::Uuid;
///
/// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// runtime.block_on(async {
///     let sum = Arc::new(AtomicUsize::new(0));
///     let total = Arc::clone(&sum);
///     // Two tasks add numbers up, a batch at a time.
///     let numbers = Gatherer::start("additions", 2, move |batch: Vec<usize>| {
///         let total = Arc::clone(&total);
///         async move {
///             total.fetch_add(batch.iter().sum(), Ordering::Relaxed);
///         }
///     });
///     // Pieces with one key never are on their way at the same time.
///     let key = Uuid::new_v4();
///     assert!(numbers.send(key, 30).is_some());
///     assert!(numbers.send(key, 12).is_some());
///     // What was taken is finished; nothing more is taken.
///     numbers.close().await;
///     assert_eq!(sum.load(Ordering::Relaxed), 42);
///     assert!(numbers.send(key, 1).is_none());
/// });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Gatherer<T> {
    /// What the tasks do, as the log says it: `writes`, `reads`.
    what: &'static str,
    queues: Mutex<Vec<mpsc::Sender<T>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl<T: Send + 'static> Gatherer<T> {
    /// Starts so many tasks, each of which has one batch on its way at a time.
    #[must_use]
    pub fn start<F, W>(what: &'static str, tasks: usize, work: F) -> Self
    where
        F: Fn(Vec<T>) -> W + Clone + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let (mut queues, mut handles) = (Vec::new(), Vec::new());
        for _ in 0..tasks {
            let (queue, waiting) = mpsc::channel(QUEUE);
            queues.push(queue);
            handles.push(tokio::spawn(run(what, waiting, work.clone())));
        }
        Self { what, queues: Mutex::new(queues), tasks: Mutex::new(handles) }
    }

    /// Gives a piece of work to the task of its key; `None` if too much waits there, or the tasks are
    /// ending.
    #[must_use]
    pub fn send(&self, key: Uuid, piece: T) -> Option<()> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let share = key.as_u128().checked_rem(queues.len() as u128)?;
        queues.get(usize::try_from(share).ok()?)?.try_send(piece).ok()
    }

    /// Takes no more work, finishes what waits, and ends the tasks.
    pub async fn close(&self) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if task.await.is_err() {
                tracing::error!("a task that {} has panicked", self.what);
            }
        }
    }
}

/// Works until the last sender is gone.
async fn run<T, F, W>(what: &'static str, mut waiting: mpsc::Receiver<T>, work: F)
where
    F: Fn(Vec<T>) -> W,
    W: Future<Output = ()>,
{
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let worked = AssertUnwindSafe(work(std::mem::take(&mut batch))).catch_unwind();
        if worked.await.is_err() {
            tracing::error!("a batch of {what} panicked: its clients are told that they failed");
        }
    }
}
