//! The one thread of a process that writes to the buffer file, by group commit: everything that
//! waits while one commit is on its way to the disk, or comes while the next is made, goes into that
//! one, and is answered after it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use redb::{Database, StorageError, WriteTransaction};
use tokio::sync::mpsc;

use super::file::BufferFile;
use super::job::{BIT, Job, Purpose, Room, answer};
use super::snapshot::Opened;
use super::tables::Tables;
use super::tail::Tail;
use super::{BufferError, OpenError};

/// Requests that share one commit at the most.
const GROUP: usize = 1024;

/// The open database; replaced when the file has to be opened anew.
pub(super) type Handle = Arc<RwLock<Arc<Opened>>>;

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
                return answer(vec![first], Err("the buffer file was removed".to_owned()));
            }
        }
        let (mut first, mut jobs) = (Some(first), Vec::new());
        let mut committed = guarded(|| self.commit(&mut first, &mut jobs, true));
        if let Err(error) = &committed {
            tracing::error!(error = %Chain(error), "a commit to the buffer file failed");
            let full = is_full(error);
            // After an I/O error redb refuses everything until the file is opened anew.
            let opened = self.open_anew();
            if opened && full {
                let is_append = |job: &mut Box<dyn Job>| job.purpose() == Purpose::Append;
                let refused = jobs.extract_if(.., is_append).collect();
                answer(refused, Err("the disk is full".to_owned()));
                // The ballast is for what takes something out.
                if !jobs.is_empty() {
                    if self.file.drop_ballast() {
                        tracing::warn!(
                            "disk full: the buffer's ballast was given up to go on draining"
                        );
                    }
                    committed = guarded(|| {
                        self.index_bit_by_bit()?;
                        self.commit(&mut first, &mut jobs, false)
                    });
                    if let Err(error) = &committed {
                        tracing::error!(error = %Chain(error), "without the ballast it failed as well");
                        self.open_anew();
                    }
                }
            }
        }
        let outcome = match committed {
            Ok(()) if self.file.is_in_place() => Ok(()),
            Ok(()) => Err("the buffer file was removed or replaced".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        metrics::histogram!("buffer_append_duration_seconds").record(started.elapsed());
        jobs.extend(first);
        answer(jobs, outcome);
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
        let tail = change(&transaction, tail, &mut self.queue, jobs, &room)?;
        if jobs.iter().all(|job| job.is_refused()) {
            // A commit of nothing would need room as well. Nothing was appended, so what is known of
            // the tail is still true; where it begins is looked up each time.
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
        let mut end = None;
        loop {
            let opened = self.handle.read().unwrap_or_else(PoisonError::into_inner).clone();
            let transaction = opened.database.begin_write()?;
            let mut tables = Tables::open(&transaction, std::mem::take(&mut self.tail))?;
            // Not what others append meanwhile.
            let end = *end.get_or_insert(tables.tail.next());
            tables.index(BIT as u64)?;
            let tail = tables.close()?;
            transaction.commit()?;
            self.tail = tail;
            if self.tail.from() >= end {
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
        // Without a ballast one at a time: each uses as much room as there may be.
        let most = if room.ballast { GROUP } else { 1 };
        let come = std::iter::from_fn(|| queue.try_recv().ok());
        jobs.extend(come.take(most.saturating_sub(done)).filter(|job| job.claim()));
        if jobs.len() == done {
            break;
        }
    }
    if tables.tail.is_long() {
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
