//! The buffer: one redb file, and a log beside it, in which operations wait for PostgreSQL, shared by the
//! api and worker processes of one host.
//!
//! Guarantees: an operation is in the log or in the file, synced to the disk, before [`Buffer::append`]
//! returns; inside a lane the order of acceptance is never changed; tables and counts change in one
//! transaction, and what is only in the log yet (`tail`) is found and counted all the same. Everything
//! but damage costs O(log n).
//!
//! Locking: redb's multi-writer mode lets any number of processes open the file; one transaction
//! writes at a time, to the tables or to the log. Each process writes from one thread of its own, by
//! group commit, and holds no transaction across other I/O. Reads never wait for a writer. They see the
//! last commit, and may see one to the log that is still on its way to the disk.

mod ahead;
mod append;
mod audit;
mod compare;
mod dead;
mod drain;
mod erase;
mod file;
mod file_id;
mod find;
mod index;
mod job;
mod keys;
mod layout;
mod lists;
mod log;
mod marks;
mod missing;
mod old_copy;
mod on_demand;
mod open;
mod operator;
mod pages;
mod quarantine;
mod read;
mod readers;
mod record;
mod recover;
mod rekey;
mod remove;
mod repair;
mod revoked;
mod rows;
mod salvage;
mod scrub;
mod snapshot;
mod sorted;
mod tables;
mod tail;
mod totals;
mod verify;
mod writer;

use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::Counter;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub use append::LaneEnd;
pub use audit::{Act, ActKind, ActedOn};
pub use drain::{Batch, BatchLimits, Entry, Settlement, Verdict};
pub use erase::Erased;
pub use file::{OpenError, open_private, open_private_existing, private_folder, sibling};
pub use file_id::FileId;
pub use find::{Found, Letter};
pub use keys::KeysError;
pub use lists::{DeadEntry, DeadFilter, Page, PendingFilter};
pub use marks::ClockSlot;
pub use open::repair_refused;
pub use operator::{OperatorError, Paused};
pub use read::{BeforeWriting, Stats, Waiting, WholeLane};
pub use record::{Damage, Tries};
pub use rekey::{RekeyError, Rekeyed};
pub use repair::{RepairError, Repaired, Salvaged, salvage};
pub use verify::Verification;

use crate::guard;
use crate::metric;
use crate::settings::BufferSettings;
use job::{Job, Purpose, Request, Room};
use keys::Keys;
use marks::Marks;
use open::{IfDamaged, open_file};
use readers::Readers;
use repair::{Mode, Order, Orders};
use snapshot::{Opened, Snapshot};
use tables::Tables;
use tail::Tail;
use writer::{Handle, Writer};

/// Requests that may wait for the writer before new ones are refused.
const QUEUE: usize = 4096;
/// Reads that decode many operations at once.
const DECODING: usize = 4;
/// How long opening the file may take.
const OPEN: Duration = Duration::from_secs(10);
/// How long it may take if it has to be repaired first.
const REPAIR: Duration = Duration::from_secs(600);
/// How long the writer may take to end: another process may hold on to the file.
const END: Duration = Duration::from_secs(2);

/// Why the buffer did not do what it was asked for.
#[derive(Debug, Error)]
pub enum BufferError {
    /// It holds as many operations, or bytes, as it may.
    #[error("the buffer is full")]
    Full,
    /// The user has as many operations in it as one may.
    #[error("the user's share of the buffer is used up")]
    UserShare,
    /// The entity has as many operations in it as one may.
    #[error("too many changes of this entity are waiting")]
    LaneFull,
    /// The filesystem has too little room left.
    #[error("too little room is left for the buffer")]
    LowDisk,
    /// It was not this process's turn within `BUFFER_TIMEOUT_MS`; nothing was kept.
    #[error("the buffer did not answer in time")]
    Timeout,
    /// The file cannot be used; nothing was kept.
    #[error("the buffer cannot be used: {0}")]
    Unavailable(String),
    /// The disk failed while a commit was on its way there: it may have been kept, or not.
    #[error("a commit to the buffer may have been lost: {0}")]
    OutcomeUnknown(String),
    /// The file is damaged: it is repaired, at most once a minute.
    #[error("the buffer file is damaged: {0}")]
    Damaged(String),
    /// redb refused.
    #[error("the buffer file cannot be used: {0}")]
    Redb(Box<redb::Error>),
}

impl From<redb::Error> for BufferError {
    fn from(error: redb::Error) -> Self {
        if is_damage(&error) {
            return Self::Damaged(error.to_string());
        }
        Self::Redb(Box::new(error))
    }
}

/// What keeps the files from being used, and is no damage.
fn unusable(problem: &str) -> redb::Error {
    redb::Error::Io(std::io::Error::other(problem))
}

/// Whether an error says that the file is damaged, rather than that the disk or another process keeps it
/// from being used.
fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TypeDefinitionChanged { .. } => true,
        redb::Error::Io(io) => {
            matches!(io.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData)
        }
        // redb may have others in a later version.
        _ => false,
    }
}

/// Works with redb, which panics at some kinds of damage: those are errors as well.
fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    guard::guarded(work).unwrap_or_else(|place| {
        Err(redb::Error::Corrupted(format!("what was read cannot be there ({place})")))
    })
}

/// The buffer of this host, as one process sees it. Dropping it ends its thread.
#[derive(Debug)]
pub struct Buffer {
    settings: Arc<BufferSettings>,
    keys: Arc<Keys>,
    /// The clocks of this host.
    marks: Arc<Marks>,
    is_old_copy: bool,
    handle: Handle,
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    readers: Readers,
    /// Kept, since looking a metric up costs more than counting.
    appended: Counter,
    /// Bounds the memory of reads that decode many operations.
    decoding: Semaphore,
    /// Repairs that the writer is to make.
    orders: Orders,
    /// Held while what has been removed is overwritten.
    scrubbing: tokio::sync::Mutex<()>,
    thread: Mutex<Option<(JoinHandle<()>, std::sync::mpsc::Receiver<()>)>>,
}

impl std::fmt::Debug for dyn Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

impl Buffer {
    /// Opens the file, making it if there is none and repairing it if it is damaged, and starts the
    /// writing thread. Blocks for some milliseconds.
    ///
    /// # Errors
    /// If the folder or the file is unsafe, is not a buffer file, or cannot be opened; or if
    /// `BUFFER_KEYS` cannot be used.
    pub fn open(settings: &BufferSettings) -> Result<Self, OpenError> {
        let keys = Keys::parse(settings.buffer_keys.as_ref())?;
        let opened = open_file(settings, IfDamaged::Repair)?;
        if !opened.file.lay_ballast(settings.buffer_min_free_bytes) {
            tracing::error!("no room for the buffer's ballast: nothing is buffered until there is");
        }
        Self::start(settings, keys, opened, IfDamaged::Repair)
    }

    /// Opens the file with `open`, on a thread of its own: a process that was stopped while it wrote
    /// would be waited for without end.
    ///
    /// # Errors
    /// As `open`, or if the file cannot be had in time.
    pub async fn open_in_time(
        settings: BufferSettings,
        open: fn(&BufferSettings) -> Result<Self, OpenError>,
    ) -> Result<Self, OpenError> {
        let path = settings.buffer_path.clone();
        let (opened, result) = oneshot::channel();
        let opening = move || drop(opened.send(open(&settings)));
        std::thread::Builder::new()
            .name("buffer-open".to_owned())
            .spawn(opening)
            .map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let started = Instant::now();
        let mut result = result;
        loop {
            match tokio::time::timeout(OPEN, &mut result).await {
                Ok(Ok(opened)) => return opened,
                Ok(Err(_)) => return Err(OpenError::Damaged { path }),
                // A large file takes its time.
                Err(_) if repair::is_under_way() && started.elapsed() < REPAIR => {}
                Err(_) => return Err(OpenError::Held { path }),
            }
        }
    }

    /// Opens a file that is there, like [`Buffer::open`], but makes none and lays no ballast. One that is
    /// damaged is refused, and if damage is met later it stays.
    ///
    /// # Errors
    /// If there is none, or it is damaged, or as for [`Buffer::open`].
    pub fn open_existing(settings: &BufferSettings) -> Result<Self, OpenError> {
        let keys = Keys::parse(settings.buffer_keys.as_ref())?;
        let path = &settings.buffer_path;
        std::fs::symlink_metadata(path)
            .map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let opened = open_file(settings, IfDamaged::Refuse)?;
        Self::start(settings, keys, opened, IfDamaged::Refuse)
    }

    fn start(
        settings: &BufferSettings,
        keys: Keys,
        opened: Arc<Opened>,
        if_damaged: IfDamaged,
    ) -> Result<Self, OpenError> {
        let marks = Arc::new(Marks::open(&settings.buffer_path)?);
        let is_old_copy = old_copy::look(&settings.buffer_path, &opened, &marks);
        let handle: Handle = Arc::new(RwLock::new(opened));
        let (queue, requests) = mpsc::channel(QUEUE);
        let (orders, keys) = (Orders::default(), Arc::new(keys));
        let writer = Writer {
            settings: settings.clone(),
            handle: Arc::clone(&handle),
            tail: Tail::default(),
            may_be_there: false,
            has_log_failed: false,
            queue: requests,
            orders: Orders::clone(&orders),
            keys: keys.clone(),
            if_damaged,
            repaired: None,
            marks: Arc::clone(&marks),
            noted: 0,
        };
        let readers = Readers::start()
            .map_err(|source| OpenError::Io { path: settings.buffer_path.clone(), source })?;
        let (ending, ended) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("buffer".to_owned())
            .spawn(move || {
                writer.run();
                // Nobody waits for it any more if this cannot be sent.
                let _ = ending.send(());
            })
            .map_err(|source| OpenError::Io { path: settings.buffer_path.clone(), source })?;
        Ok(Self {
            settings: Arc::new(settings.clone()),
            keys,
            marks,
            is_old_copy,
            handle,
            queue: Some(queue),
            readers,
            appended: metrics::counter!(metric::BUFFER_APPENDS.name),
            decoding: Semaphore::new(DECODING),
            orders,
            scrubbing: tokio::sync::Mutex::new(()),
            thread: Mutex::new(Some((thread, ended))),
        })
    }

    /// The settings it was opened with.
    #[must_use]
    pub fn settings(&self) -> &BufferSettings {
        &self.settings
    }

    /// Makes a change in the writer's next commit and returns its result once that is durable.
    async fn write<T, F>(&self, work: F) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnMut(&mut Tables<'_>, &Room) -> Result<T, BufferError> + Send + 'static,
    {
        self.request(work, Purpose::Other).await
    }

    /// Like [`Buffer::write`], for a change that takes something in: on a full disk it is refused,
    /// so that what takes something out may go on.
    async fn append_work<T, F>(&self, work: F) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnMut(&mut Tables<'_>, &Room) -> Result<T, BufferError> + Send + 'static,
    {
        self.request(work, Purpose::Append).await
    }

    async fn request<T, F>(&self, work: F, purpose: Purpose) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnMut(&mut Tables<'_>, &Room) -> Result<T, BufferError> + Send + 'static,
    {
        let gone = || BufferError::Unavailable("its writer has ended".to_owned());
        let (request, mut result, claimed) = Request::new(work, purpose);
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.try_send(Box::new(request)).map_err(|_| BufferError::Timeout)?;
        let limit = Duration::from_millis(self.settings.buffer_timeout_ms);
        let answer = match tokio::time::timeout(limit, &mut result).await {
            Ok(answer) => answer,
            Err(_) if !claimed.swap(true, Ordering::AcqRel) => return Err(BufferError::Timeout),
            // Its commit is on the way to the disk: only the outcome of that is the truth.
            Err(_) => result.await,
        };
        answer.unwrap_or_else(|_| match claimed.load(Ordering::Acquire) {
            true => Err(BufferError::OutcomeUnknown("its writer has ended".to_owned())),
            false => Err(gone()),
        })
    }

    /// Reads in one transaction, off the async threads.
    async fn read<T, F>(&self, work: F) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnOnce(&Snapshot) -> Result<T, redb::Error> + Send + 'static,
    {
        let limit = Duration::from_millis(self.settings.buffer_timeout_ms);
        let reading = self.read_to_the_end(work);
        tokio::time::timeout(limit, reading).await.unwrap_or(Err(BufferError::Timeout))
    }

    /// Reads like [`Buffer::read`], for as long as it takes.
    async fn read_to_the_end<T, F>(&self, work: F) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnOnce(&Snapshot) -> Result<T, redb::Error> + Send + 'static,
    {
        let opened = || self.handle.read().unwrap_or_else(PoisonError::into_inner).clone();
        let is_elsewhere = |opened: &Opened| {
            // One that was repaired, say. Of a file that is just gone, what was open can still be read.
            !opened.log.is_in_place() || opened.file.is_replaced()
        };
        let (mut work, mut is_anew) = (work, is_elsewhere(&opened()));
        if is_anew {
            // Others may write to another one by now.
            self.open_anew().await?;
        }
        loop {
            let opened = opened();
            let reading = self.readers.run(move || match guarded(|| Snapshot::take(&opened)) {
                // What is left of a state whose reading panicked is dropped within.
                Ok(snapshot) => Ok(guarded(move || work(&snapshot))),
                Err(error) => Err((error, work)),
            });
            match reading.await? {
                Ok(result) => return result.map_err(|error| self.met(error)),
                // When the disk failed, the file could not be opened anew.
                Err((redb::Error::PreviousIo, not_done)) if !is_anew => {
                    (work, is_anew) = (not_done, true);
                    self.open_anew().await?;
                }
                Err((error, _)) => return Err(self.met(error)),
            }
        }
    }

    /// What a read that failed is answered with. If it met damage, the writer repairs that.
    fn met(&self, error: redb::Error) -> BufferError {
        if is_damage(&error) {
            tracing::error!(%error, "the buffer file is damaged");
            repair::order(&self.orders, Order::of_reader());
            let (wake, _, _) = Request::new(|_: &mut Tables<'_>, _: &Room| Ok(()), Purpose::Append);
            // If the queue is full the writer wakes anyway.
            let _ = self.queue.as_ref().map(|queue| queue.try_send(Box::new(wake)));
        }
        error.into()
    }

    /// Checks the file, and makes it anew from its records if anything is wrong with it; with `dry_run` it
    /// only says what is wrong. Other writers wait meanwhile.
    ///
    /// # Errors
    /// If it cannot be read or written, or nothing in it says what it is.
    pub async fn repair(&self, by: &str, dry_run: bool) -> Result<Repaired, RepairError> {
        let gone = || BufferError::Unavailable("its writer has ended".to_owned());
        let mode = if dry_run { Mode::DryRun } else { Mode::IfDamaged };
        let (order, repaired) = Order::of_operator(mode, by);
        repair::order(&self.orders, order);
        // It comes before whatever the writer is asked for next.
        let _ = self.append_work(|_, _| Ok(())).await;
        repaired.await.map_err(|_| gone())?
    }

    /// Has the writer open what the paths lead to, if it has to.
    async fn open_anew(&self) -> Result<(), BufferError> {
        let looked = self.append_work(|_, _| Ok(())).await;
        looked.map_err(|error| BufferError::Unavailable(error.to_string()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.queue = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((thread, ended)) = thread else { return };
        if ended.recv_timeout(END) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("the buffer's writer waits for another process: it is left behind");
        } else if thread.join().is_err() {
            tracing::error!("the buffer's writer panicked");
        }
    }
}

/// The wall clock in Unix milliseconds, as records hold it.
#[must_use]
pub fn unix_millis() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

#[cfg(test)]
mod tests;
