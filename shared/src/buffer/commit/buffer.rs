//! The buffer as one process has it open: requests go to the thread that writes, reads to those that read.

use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::Counter;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::job::{Job, Needs, OnFullDisk, Request, Room};
use super::old_copy;
use super::open::{IfDamaged, open_file};
use super::orders::{Order, Orders, order};
use super::readers::Readers;
use super::snapshot::{Opened, Snapshot};
use super::writer::{Handle, Writer};
use crate::buffer::disk::marks::Marks;
use crate::buffer::disk::open_error::OpenError;
use crate::buffer::error::{BufferError, guarded, is_damage};
use crate::buffer::format::keys::Keys;
use crate::buffer::repair::anew::{Mode, is_under_way};
use crate::buffer::repair::error::{RepairError, Repaired};
use crate::buffer::tables::Tables;
use crate::buffer::tables::intake::Intake;
use crate::buffer::wal::tail::Tail;
use crate::metric;
use crate::settings::BufferSettings;

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

/// The buffer of this host, as one process sees it. Dropping it ends its thread.
#[derive(Debug)]
pub struct Buffer {
    pub(in crate::buffer) settings: Arc<BufferSettings>,
    pub(in crate::buffer) keys: Arc<Keys>,
    /// The clocks of this host.
    pub(in crate::buffer) marks: Arc<Marks>,
    pub(in crate::buffer) is_old_copy: bool,
    pub(in crate::buffer) handle: Handle,
    pub(in crate::buffer) queue: Option<mpsc::Sender<Box<dyn Job>>>,
    readers: Readers,
    /// Kept, since looking a metric up costs more than counting.
    pub(in crate::buffer) appended: Counter,
    /// Bounds the memory of reads that decode many operations.
    pub(in crate::buffer) decoding: Semaphore,
    /// Repairs that the writer is to make.
    orders: Orders,
    /// Held while what has been removed is overwritten.
    pub(in crate::buffer) scrubbing: tokio::sync::Mutex<()>,
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
                Err(_) if is_under_way() && started.elapsed() < REPAIR => {}
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
            has_wal_failed: false,
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

    /// True if the file was an older copy of itself when it was opened.
    #[must_use]
    pub fn is_old_copy(&self) -> bool {
        self.is_old_copy
    }

    /// Tells that the file is an older copy of itself, as somebody else knows.
    pub fn tell_of_old_copy(&self) {
        old_copy::tell(&self.settings.buffer_path);
    }

    /// Changes the tables in the writer's next commit, after a checkpoint. Returns the result once that is
    /// durable.
    pub(in crate::buffer) async fn write<T, F>(&self, work: F) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnMut(&mut Tables<'_>, &Room) -> Result<T, BufferError> + Send + 'static,
    {
        let mut work = work;
        let work = move |intake: &mut Intake<'_>, room: &Room| work(intake.checkpoint()?, room);
        self.take_in(work, OnFullDisk::MakeRoom).await
    }

    /// Takes something in with the writer's next commit, or looks at what is there. Returns the result once
    /// all that was done and seen is durable.
    pub(in crate::buffer) async fn take_in<T, F>(
        &self,
        work: F,
        on_full_disk: OnFullDisk,
    ) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnMut(&mut Intake<'_>, &Room) -> Result<T, BufferError> + Send + 'static,
    {
        self.request(work, Needs::Disk, on_full_disk).await
    }

    /// Brings the tables up to the WAL, durably.
    pub(in crate::buffer) async fn checkpoint(&self) -> Result<(), BufferError> {
        self.write(|_, _| Ok(())).await
    }

    /// Does something that changes nothing in the file while it is this process's turn to write.
    pub(in crate::buffer) async fn at_turn<T, F>(&self, work: F) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnMut() -> Result<T, BufferError> + Send + 'static,
    {
        let mut work = work;
        let work = move |_: &mut Intake<'_>, _: &Room| work();
        self.request(work, Needs::Turn, OnFullDisk::Refuse).await
    }

    async fn request<T, F>(
        &self,
        work: F,
        needs: Needs,
        on_full_disk: OnFullDisk,
    ) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnMut(&mut Intake<'_>, &Room) -> Result<T, BufferError> + Send + 'static,
    {
        let gone = || BufferError::Unavailable("its writer has ended".to_owned());
        let (request, mut result, claimed) = Request::new(work, needs, on_full_disk);
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
    pub(in crate::buffer) async fn read<T, F>(&self, work: F) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnOnce(&Snapshot) -> Result<T, redb::Error> + Send + 'static,
    {
        let limit = Duration::from_millis(self.settings.buffer_timeout_ms);
        let reading = self.read_to_the_end(work);
        tokio::time::timeout(limit, reading).await.unwrap_or(Err(BufferError::Timeout))
    }

    /// Reads like [`Buffer::read`], for as long as it takes.
    pub(in crate::buffer) async fn read_to_the_end<T, F>(&self, work: F) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: FnOnce(&Snapshot) -> Result<T, redb::Error> + Send + 'static,
    {
        let opened = || self.handle.read().unwrap_or_else(PoisonError::into_inner).clone();
        let is_elsewhere = |opened: &Opened| {
            // One that was repaired, say. Of a file that is just gone, what was open can still be read.
            !opened.wal.is_in_place() || opened.file.is_replaced()
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
            order(&self.orders, Order::of_reader());
            let nothing = |_: &mut Intake<'_>, _: &Room| Ok(());
            let (wake, _, _) = Request::new(nothing, Needs::Turn, OnFullDisk::Refuse);
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
        let (wanted, repaired) = Order::of_operator(mode, by);
        order(&self.orders, wanted);
        // It comes before whatever the writer is asked for next.
        let _ = self.at_turn(|| Ok(())).await;
        repaired.await.map_err(|_| gone())?
    }

    /// Has the writer open what the paths lead to, if it has to.
    async fn open_anew(&self) -> Result<(), BufferError> {
        let looked = self.at_turn(|| Ok(())).await;
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
