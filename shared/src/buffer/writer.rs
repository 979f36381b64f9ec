//! The one thread of a process that writes to the buffer file, by group commit: everything that
//! waits while one commit is on its way to the disk, or comes while the next is made, goes into that
//! one, and is answered after it.
//!
//! A request that has not been claimed for a commit can be abandoned by its caller, and then
//! leaves no trace; one that has been claimed is answered with what became of the commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use redb::{Database, StorageError, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::file::BufferFile;
use super::snapshot::Opened;
use super::tables::Tables;
use super::tail::{self, Tail};
use super::{BufferError, OpenError};

/// Requests that share one commit at the most.
const GROUP: usize = 1024;
/// Operations that one commit may change when there is no ballast. Each may rewrite a page of seven
/// tables, and what a commit no longer needs is free after the next: that has to fit into the
/// ballast that was given up.
const BIT: usize = 16;

/// The open database; replaced when the file has to be opened anew.
pub(super) type Handle = Arc<RwLock<Arc<Opened>>>;

/// A change to the tables, and where its result goes.
pub(super) struct Request<T, F> {
    work: F,
    purpose: Purpose,
    result: Option<Result<T, BufferError>>,
    reply: oneshot::Sender<Result<T, BufferError>>,
    claimed: Arc<AtomicBool>,
}

impl<T, F> Request<T, F> {
    /// A request, where its result will arrive, and the flag with which it is claimed: by the
    /// writer for a commit, or by the caller to abandon it.
    pub(super) fn new(
        work: F,
        purpose: Purpose,
    ) -> (Self, oneshot::Receiver<Result<T, BufferError>>, Arc<AtomicBool>) {
        let (reply, result) = oneshot::channel();
        let claimed = Arc::new(AtomicBool::new(false));
        (
            Self { work, purpose, result: None, reply, claimed: Arc::clone(&claimed) },
            result,
            claimed,
        )
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It takes something in.
    Append,
    /// It takes something out, or changes what is there.
    Other,
}

/// A [`Request`] of any type.
pub(super) trait Job: Send {
    /// Takes the job for the coming commit; false if its caller has abandoned it.
    fn claim(&self) -> bool;
    /// What the job is for.
    fn purpose(&self) -> Purpose;
    /// Makes the change. An error of storage ends the whole transaction; a refusal changes nothing
    /// and is this job's own result. May run again in another transaction.
    fn run(&mut self, tables: &mut Tables<'_>, room: &Room) -> Result<(), redb::Error>;
    /// Answers the caller, once it is known what became of the commit.
    fn finish(self: Box<Self>, committed: Result<(), String>);
}

impl<T, F> Job for Request<T, F>
where
    T: Send,
    F: FnMut(&mut Tables<'_>, &Room) -> Result<T, BufferError> + Send,
{
    fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    fn purpose(&self) -> Purpose {
        self.purpose
    }

    fn run(&mut self, tables: &mut Tables<'_>, room: &Room) -> Result<(), redb::Error> {
        match (self.work)(tables, room) {
            Err(BufferError::Redb(error)) => Err(*error),
            result => {
                self.result = Some(result);
                Ok(())
            }
        }
    }

    fn finish(self: Box<Self>, committed: Result<(), String>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(BufferError::Unavailable("not run".to_owned())),
            (Err(problem), _) => Err(BufferError::Unavailable(problem)),
        };
        // A caller that has gone needs no answer.
        let _ = self.reply.send(result);
    }
}

/// What the filesystem has to say before anything is appended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Bytes free; zero if that cannot be told.
    pub(super) free_bytes: u64,
    /// Whether the ballast is there.
    pub(super) ballast: bool,
}

impl Room {
    /// How many operations one commit may change, of those that it usually would.
    pub(super) fn most(self, usually: usize) -> usize {
        if self.ballast { usually } else { usually.min(BIT) }
    }
}

/// The writer's state. It lives on its own thread.
pub(super) struct Writer {
    pub(super) file: BufferFile,
    pub(super) handle: Handle,
    /// What is known of the file's tail as it was last committed.
    pub(super) tail: Tail,
    pub(super) queue: mpsc::Receiver<Box<dyn Job>>,
    pub(super) min_free: u64,
    pub(super) reopen: Box<dyn Fn() -> Result<(BufferFile, Database), OpenError> + Send>,
}

impl Writer {
    /// Serves requests until the last sender is gone.
    pub(super) fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            self.serve(first);
        }
    }

    fn serve(&mut self, first: Box<dyn Job>) {
        let started = Instant::now();
        if !self.file.is_in_place() {
            tracing::error!("the buffer file was removed or replaced: opening it anew");
            if !self.open_anew() {
                // What is written to the old file would not be found again.
                return first.finish(Err("the buffer file was removed".to_owned()));
            }
        }
        let (mut first, mut jobs) = (Some(first), Vec::new());
        let mut committed = self.commit(&mut first, &mut jobs, true);
        if let Err(error) = &committed {
            tracing::error!(error = %Chain(error), "a commit to the buffer file failed");
            let full = is_full(error);
            // After an I/O error redb refuses everything until the file is opened anew.
            let opened = self.open_anew();
            if opened && full {
                let is_append = |job: &mut Box<dyn Job>| job.purpose() == Purpose::Append;
                for job in jobs.extract_if(.., is_append) {
                    job.finish(Err("the disk is full".to_owned()));
                }
                // The ballast is for what takes something out.
                if !jobs.is_empty() {
                    if self.file.drop_ballast() {
                        tracing::warn!(
                            "disk full: the buffer's ballast was given up to go on draining"
                        );
                    }
                    let indexed = self.index_bit_by_bit();
                    committed = indexed.and_then(|()| self.commit(&mut first, &mut jobs, false));
                }
            }
        }
        let outcome = match committed {
            Ok(()) if self.file.is_in_place() => Ok(()),
            Ok(()) => Err("the buffer file was removed or replaced".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        metrics::histogram!("buffer_append_duration_seconds").record(started.elapsed());
        for job in jobs.into_iter().chain(first) {
            job.finish(outcome.clone());
        }
    }

    /// Runs `jobs`, then `first` and all others that wait by the time it is this process's turn to
    /// write, or come while those run, in one durable transaction. Those that were claimed for it are
    /// in `jobs` afterwards; `first` is left if it never was this process's turn. `lay` says whether
    /// there may be a ballast: not just after it had to be given up.
    fn commit(
        &mut self,
        first: &mut Option<Box<dyn Job>>,
        jobs: &mut Vec<Box<dyn Job>>,
        lay: bool,
    ) -> Result<(), redb::Error> {
        let opened = self.handle.read().unwrap_or_else(PoisonError::into_inner).clone();
        // Waits for other processes, without a limit of redb's own: callers have theirs.
        let transaction = opened.database.begin_write()?;
        jobs.extend(first.take().filter(|job| job.claim()));
        let ballast = lay && self.file.lay_ballast(self.min_free);
        let room = Room { free_bytes: self.file.free_bytes().unwrap_or(0), ballast };
        // Lost if the transaction is: it is read from the file then.
        let tail = std::mem::take(&mut self.tail);
        let tail = guarded(|| change(&transaction, tail, &mut self.queue, jobs, &room))?;
        if jobs.is_empty() {
            transaction.abort()?;
        } else {
            transaction.commit()?;
        }
        self.tail = tail;
        Ok(())
    }

    /// Brings the indexes up to the records in small commits, each of which needs little room, and
    /// leaves what it no longer needs to the next.
    fn index_bit_by_bit(&mut self) -> Result<(), redb::Error> {
        loop {
            let opened = self.handle.read().unwrap_or_else(PoisonError::into_inner).clone();
            let transaction = opened.database.begin_write()?;
            let tail = guarded(|| {
                let mut tables = Tables::open(&transaction, std::mem::take(&mut self.tail))?;
                tables.index(BIT as u64)?;
                tables.close()
            })?;
            transaction.commit()?;
            self.tail = tail;
            if self.tail.len() == 0 {
                return Ok(());
            }
        }
    }

    fn open_anew(&mut self) -> bool {
        match (self.reopen)() {
            Ok((file, database)) => {
                self.file = file;
                *self.handle.write().unwrap_or_else(PoisonError::into_inner) =
                    Opened::new(database);
                self.tail = Tail::default();
                true
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "the buffer file cannot be opened");
                false
            }
        }
    }
}

/// Makes the changes of `jobs`, and of those that come meanwhile, which are in `jobs` afterwards.
/// Returns what is known of the tail once all this is committed.
fn change(
    transaction: &WriteTransaction,
    tail: Tail,
    queue: &mut mpsc::Receiver<Box<dyn Job>>,
    jobs: &mut Vec<Box<dyn Job>>,
    room: &Room,
) -> Result<Tail, redb::Error> {
    let mut tables = Tables::open(transaction, tail)?;
    let mut done = 0;
    loop {
        for job in &mut jobs[done..] {
            if job.purpose() == Purpose::Other {
                tables.index(u64::MAX)?;
            }
            job.run(&mut tables, room)?;
        }
        done = jobs.len();
        let come = std::iter::from_fn(|| queue.try_recv().ok());
        jobs.extend(come.take(GROUP.saturating_sub(done)).filter(|job| job.claim()));
        if jobs.len() == done {
            break;
        }
    }
    if tables.tail.len() >= tail::LONGEST {
        tables.index(u64::MAX)?;
    }
    tables.close()
}

/// Makes an error of a panic, which must not end the only thread that writes: redb panics at some
/// kinds of damage.
fn guarded<T>(change: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(change))
        .unwrap_or_else(|_| Err(redb::Error::Corrupted("a change panicked".to_owned())))
}

fn is_full(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull)
}

/// An error with all its sources in one line.
pub(super) struct Chain<'a>(pub(super) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl From<StorageError> for BufferError {
    fn from(error: StorageError) -> Self {
        redb::Error::from(error).into()
    }
}
