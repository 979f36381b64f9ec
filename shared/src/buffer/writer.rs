//! The one thread of a process that writes to the buffer, by group commit: everything that waits while
//! one commit is on its way to the disk, or comes while the next is made, goes into that one, and is
//! answered after it.
//!
//! A commit of appends alone is a frame of the log, written under redb's write turn. All others are
//! redb's, and empty the log first.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redb::{StorageError, WriteTransaction};
use tokio::sync::mpsc;

use super::BufferError;
use super::file::forget_cached;
use super::job::{BIT, Failed, Job, Purpose, Room, answer};
use super::keys::Keys;
use super::log::{Log, Logged};
use super::marks::Marks;
use super::open::{IfDamaged, reopen};
use super::repair::{BY_ITSELF, Mode, Order, Orders, repair};
use super::snapshot::Opened;
use super::tables::Tables;
use super::tail::Tail;
use super::{guarded, is_damage, unusable};
use crate::metric;
use crate::settings::BufferSettings;

/// Requests that share one commit at the most.
const GROUP: usize = 1024;

/// How often the files are opened anew in one go, because the paths lead elsewhere.
const TRIES: usize = 3;

/// How often damage is repaired at the most.
const AGAIN: Duration = Duration::from_secs(60);

/// The open database; replaced when the file has to be opened anew.
pub(super) type Handle = Arc<RwLock<Arc<Opened>>>;

/// The writer's state. It lives on its own thread.
pub(super) struct Writer {
    pub(super) settings: BufferSettings,
    pub(super) handle: Handle,
    /// What is known of the tail.
    pub(super) tail: Tail,
    /// Whether something of the last commit may be in the files although it failed.
    pub(super) may_be_there: bool,
    /// Whether a write to the log, or a sync of it, has failed since it was last emptied.
    pub(super) has_log_failed: bool,
    pub(super) queue: mpsc::Receiver<Box<dyn Job>>,
    /// Repairs that others want.
    pub(super) orders: Orders,
    pub(super) keys: Arc<Keys>,
    /// What is done when damage is met.
    pub(super) if_damaged: IfDamaged,
    /// When damage was last met here, and whether a repair found it.
    pub(super) repaired: Option<(Instant, bool)>,
    /// Where it is noted how far the file has come.
    pub(super) marks: Arc<Marks>,
    /// The generation that was noted last.
    pub(super) noted: u64,
}

impl Writer {
    /// Serves requests until the last sender is gone.
    pub(super) fn run(mut self) {
        let mut has_written = false;
        while let Some(first) = self.queue.blocking_recv() {
            self.carry_out_orders();
            self.serve(first);
            // A commit takes in what comes meanwhile, and so what was to wake this for an order.
            self.carry_out_orders();
            self.note_generation();
            has_written = true;
        }
        // Whoever takes the file elsewhere after an orderly end finds everything in it.
        if has_written && let Err(error) = guarded(|| self.leave_log()) {
            tracing::warn!(error = %Chain(&error), "the log was not emptied at the end");
        }
        self.note_generation();
    }

    /// Notes beside the file how far it has come, if the last commit is known.
    fn note_generation(&mut self) {
        let generation = self.tail.mark().generation;
        if generation == 0 || generation == self.noted {
            return;
        }
        if let Err(error) = self.marks.note_generation(generation) {
            tracing::error!(%error, "it cannot be noted how far the buffer file has come");
        }
        self.noted = generation;
    }

    fn serve(&mut self, first: Box<dyn Job>) {
        let started = Instant::now();
        let (mut first, mut jobs) = (Some(first), Vec::new());
        let mut committed = guarded(|| self.commit(&mut first, &mut jobs, true));
        if let Err(error) = committed {
            committed = self.make_good(error, &mut first, &mut jobs);
        }
        let outcome = match committed {
            Ok(()) if self.opened().is_in_place() => Ok(()),
            Ok(()) => guarded(|| self.rescue()).map_err(|error| Failed::Unknown(error.to_string())),
            Err(error) => Err(self.failed(error.to_string())),
        };
        metrics::histogram!(metric::BUFFER_APPEND_DURATION.name).record(started.elapsed());
        jobs.extend(first);
        answer(jobs, outcome);
    }

    /// Makes the repairs that others want.
    fn carry_out_orders(&mut self) {
        let orders =
            std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        for Order { mode, by, reply } in orders {
            let Some(reply) = reply else {
                self.repair_damage();
                continue;
            };
            let repaired = repair(&self.settings, &self.keys, mode, &by);
            if repaired.as_ref().is_ok_and(|repaired| repaired.kept_as.is_some()) {
                self.open_anew();
            }
            // Nobody waits for it any more if this cannot be sent.
            let _ = reply.send(repaired);
        }
    }

    /// Repairs the file after damage was met, once in a while: if nothing was found to be wrong the
    /// last time, it is made anew.
    /// Returns whether it was, and is open.
    fn repair_damage(&mut self) -> bool {
        if !self.may_repair() {
            return false;
        }
        let was_found = self.repaired.is_none_or(|(_, was_found)| was_found);
        let mode = if was_found { Mode::IfDamaged } else { Mode::Anew };
        let repaired = repair(&self.settings, &self.keys, mode, BY_ITSELF);
        if let Err(error) = &repaired {
            tracing::error!(error = %Chain(error), "the buffer file cannot be repaired");
        }
        let is_other = repaired.as_ref().is_ok_and(|repaired| repaired.kept_as.is_some());
        self.repaired = Some((Instant::now(), is_other));
        is_other && self.open_anew()
    }

    fn may_repair(&self) -> bool {
        let is_time = self.repaired.is_none_or(|(at, _)| at.elapsed() >= AGAIN);
        is_time && self.if_damaged == IfDamaged::Repair
    }

    fn failed(&self, problem: String) -> Failed {
        if self.may_be_there { Failed::Unknown(problem) } else { Failed::NothingKept(problem) }
    }

    /// Opens the files anew after a commit has failed, and makes it once more if it has left nothing; on a
    /// full disk what takes something out of it, with the room that the ballast leaves.
    fn make_good(
        &mut self,
        error: redb::Error,
        first: &mut Option<Box<dyn Job>>,
        jobs: &mut Vec<Box<dyn Job>>,
    ) -> Result<(), redb::Error> {
        tracing::error!(error = %Chain(&error), "a commit to the buffer file failed");
        let (is_full, may_be_there) = (is_full(&error), self.may_be_there);
        if is_damage(&error) {
            self.repair_damage();
        }
        // After an I/O error redb refuses everything until the file is opened anew.
        if !self.open_anew() {
            return Err(error);
        }
        if is_full {
            let is_append = |job: &mut Box<dyn Job>| job.purpose() == Purpose::Append;
            let refused = jobs.extract_if(.., is_append).collect();
            answer(refused, Err(self.failed("the disk is full".to_owned())));
        }
        // What takes something out may find it gone.
        let is_repeatable = if is_full { !jobs.is_empty() } else { !may_be_there };
        if !is_repeatable {
            return Err(error);
        }
        let again = guarded(|| {
            if is_full {
                self.make_room()?;
            }
            self.commit(first, jobs, !is_full)
        });
        self.may_be_there |= may_be_there;
        if let Err(error) = &again {
            tracing::error!(error = %Chain(error), "it failed again");
            self.open_anew();
        }
        again
    }

    /// Gives the ballast up, which is for what takes something out, and empties the log into the room it
    /// leaves.
    fn make_room(&mut self) -> Result<(), redb::Error> {
        if self.opened().file.drop_ballast() {
            tracing::warn!("disk full: the buffer's ballast was given up to go on draining");
        }
        self.index_bit_by_bit()
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
        self.may_be_there = false;
        let (opened, transaction) = self.turn()?;
        jobs.extend(first.take().filter(|job| job.claim()));
        let ballast = lay && opened.file.lay_ballast(self.settings.buffer_min_free_bytes);
        let room = Room { free_bytes: opened.file.free_bytes().unwrap_or(0), ballast };
        // Lost if the transaction is: it is read anew then.
        let tail = std::mem::take(&mut self.tail);
        let mut tables = Tables::open(&transaction, &opened.log, tail)?;
        change(&mut tables, &mut self.queue, jobs, &room)?;
        let is_refused = jobs.iter().all(|job| job.is_refused());
        let only_appends = jobs.iter().all(|job| job.purpose() == Purpose::Append);
        // A commit of nothing would need room as well.
        if is_refused || only_appends && self.has_logged(&mut tables, &room)? {
            // If the log was emptied in vain, the tail is another one, and is read anew.
            if tables.tail.mark().generation == tables.logged.generation {
                self.tail = std::mem::take(&mut tables.tail);
            }
            drop(tables);
            if let Err(error) = transaction.abort() {
                // What is in the log is there all the same.
                tracing::error!(error = %Chain(&error), "a write turn did not end well");
            }
            return Ok(());
        }
        tables.index(u64::MAX)?;
        let tail = tables.close()?;
        self.may_be_there = true;
        transaction.commit()?;
        self.has_log_failed = false;
        self.tail = tail;
        Ok(())
    }

    /// Has what was appended in the log and on the disk. False if it has to go into the tables.
    fn has_logged(&mut self, tables: &mut Tables<'_>, room: &Room) -> Result<bool, redb::Error> {
        let (log, logged, appended) = (tables.log, tables.logged, tables.appended());
        if !tables.has_log()? {
            log.lay(room.free_bytes.saturating_sub(self.settings.buffer_min_free_bytes));
            // The generation that begins now can use it.
            return Ok(false);
        }
        // A sync says nothing about what one before it has failed to write.
        let is_sure = !appended.is_empty() || !self.has_log_failed;
        let fits = appended.is_empty() || Log::fits(logged.end, appended);
        if !fits || !is_sure || tables.tail.is_long() {
            return Ok(false);
        }
        let written = if appended.is_empty() {
            // What was there before may still be on its way to the disk.
            log.sync().map(|()| logged.end)
        } else {
            log.append(logged, appended)
        };
        match written {
            Ok(end) => tables.tail.logged(end),
            Err(error) => {
                tracing::error!(%error, "the buffer's log cannot be written");
                // If it could not be taken back either.
                (self.may_be_there, self.has_log_failed) = (true, true);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for this process's turn to write, without a limit of redb's own: callers have theirs. What
    /// is returned is what the paths lead to while it lasts: who wrote elsewhere would take places that
    /// others give out.
    fn turn(&mut self) -> Result<(Arc<Opened>, WriteTransaction), redb::Error> {
        for _ in 0..TRIES {
            let opened = self.opened();
            let transaction = opened.database.begin_write()?;
            if opened.is_in_place() {
                return Ok((opened, transaction));
            }
            tracing::error!(
                "the buffer file or its log was removed or replaced: opening them anew"
            );
            // What only the log had is still known; and whoever moved the file has all of it then.
            if let Err(error) = self.index_in(&opened, transaction, u64::MAX) {
                tracing::error!(error = %Chain(&error), "what the log had was lost with it");
            }
            if !self.open_anew() {
                break;
            }
        }
        Err(unusable("the buffer file was removed"))
    }

    /// Whether what was just committed is in the file at the path although that, or the log's, leads
    /// elsewhere now.
    fn rescue(&mut self) -> Result<(), redb::Error> {
        let gone = || unusable("the buffer file or its log was replaced");
        let (opened, generation) = (self.opened(), self.tail.mark().generation);
        let transaction = opened.database.begin_write()?;
        let was = self.index_in(&opened, transaction, u64::MAX)?.generation;
        // If another process has emptied the log since, it may have been another log.
        let is_saved = opened.file.is_in_place() && was == generation;
        self.open_anew();
        if is_saved { Ok(()) } else { Err(gone()) }
    }

    fn leave_log(&mut self) -> Result<(), redb::Error> {
        let (opened, transaction) = self.turn()?;
        let mut tables = Tables::open(&transaction, &opened.log, std::mem::take(&mut self.tail))?;
        tables.leave_log()?;
        let tail = tables.close()?;
        transaction.commit()?;
        self.tail = tail;
        Ok(())
    }

    /// Brings the tables up to the log, or over so many operations of it. Returns what the log had.
    fn index(&mut self, most: u64) -> Result<Logged, redb::Error> {
        let (opened, transaction) = self.turn()?;
        self.index_in(&opened, transaction, most)
    }

    fn index_in(
        &mut self,
        opened: &Opened,
        transaction: WriteTransaction,
        most: u64,
    ) -> Result<Logged, redb::Error> {
        let mut tables = Tables::open(&transaction, &opened.log, std::mem::take(&mut self.tail))?;
        let logged = tables.logged;
        if tables.tail.len() == 0 {
            self.tail = std::mem::take(&mut tables.tail);
            drop(tables);
            transaction.abort()?;
            return Ok(logged);
        }
        tables.index(most)?;
        let tail = tables.close()?;
        transaction.commit()?;
        self.tail = tail;
        Ok(logged)
    }

    /// Empties the log in small commits, each of which needs little room, and leaves what it no longer
    /// needs to the next. What others append meanwhile may stay.
    fn index_bit_by_bit(&mut self) -> Result<(), redb::Error> {
        let end = self.index(BIT as u64)?.next;
        let mut from = self.tail.mark().from;
        while from < end {
            self.index(BIT as u64)?;
            let before = std::mem::replace(&mut from, self.tail.mark().from);
            if from == before {
                break;
            }
        }
        Ok(())
    }

    fn opened(&self) -> Arc<Opened> {
        self.handle.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open_anew(&mut self) -> bool {
        forget_cached(&self.settings.buffer_path);
        let opened = match reopen(&self.settings) {
            Ok(opened) => opened,
            Err(error) if error.is_damage() && self.may_repair() => {
                tracing::error!(error = %Chain(&error), "the buffer file is damaged");
                return self.repair_damage();
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "the buffer file cannot be opened");
                return false;
            }
        };
        self.tail = Tail::default();
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *handle, opened);
        // To close it may take long, and readers wait for the handle.
        drop(handle);
        let closed = guarded(|| {
            drop(before);
            Ok(())
        });
        if let Err(error) = closed {
            tracing::error!(error = %Chain(&error), "the buffer file was not closed well");
        }
        true
    }
}

/// Makes the changes of `jobs`, and of those that come meanwhile, which are in `jobs` afterwards.
fn change(
    tables: &mut Tables<'_>,
    queue: &mut mpsc::Receiver<Box<dyn Job>>,
    jobs: &mut Vec<Box<dyn Job>>,
    room: &Room,
) -> Result<(), redb::Error> {
    let mut done = 0;
    loop {
        for job in &mut jobs[done..] {
            if job.purpose() == Purpose::Other {
                tables.index(u64::MAX)?;
            }
            job.run(tables, room)?;
        }
        done = jobs.len();
        // Without a ballast one at a time: each uses as much room as there may be.
        let most = if room.ballast { GROUP } else { 1 };
        let come = std::iter::from_fn(|| queue.try_recv().ok());
        jobs.extend(come.take(most.saturating_sub(done)).filter(|job| job.claim()));
        if jobs.len() == done {
            return Ok(());
        }
    }
}

pub(super) fn is_full(error: &redb::Error) -> bool {
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
