//! The one thread of a process that writes to the buffer, by group commit: everything that waits while
//! one commit is on its way to the disk, or comes while the next is made, goes into that one, and is
//! answered after it.
//!
//! A commit of appends alone is a frame of the WAL, written under redb's write turn. All others are
//! redb's, and empty the WAL first.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::mpsc;

use super::attempt::Attempt;
use super::job::{Failed, Job, Room};
use super::open::IfDamaged;
use super::orders::{Order, Orders};
use super::snapshot::Opened;
use crate::buffer::disk::marks::Marks;
use crate::buffer::error::{Chain, guarded};
use crate::buffer::format::keys::Keys;
use crate::buffer::repair::anew::repair;
use crate::buffer::tables::intake::Intake;
use crate::buffer::wal::tail::Tail;
use crate::metric;
use crate::settings::BufferSettings;

/// The open database; replaced when the file has to be opened anew.
pub(in crate::buffer) type Handle = Arc<RwLock<Arc<Opened>>>;

/// Whether a ballast is laid before a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ballast {
    /// If it is missing, and there is room for it.
    Lay,
    /// No: it has just been given up.
    Leave,
}

/// The writer's state. It lives on its own thread.
pub(in crate::buffer) struct Writer {
    pub(in crate::buffer) settings: BufferSettings,
    pub(in crate::buffer) handle: Handle,
    /// What is known of the tail.
    pub(in crate::buffer) tail: Tail,
    /// Whether a write to the WAL, or a sync of it, has failed since it was last emptied.
    pub(super) has_wal_failed: bool,
    pub(in crate::buffer) queue: mpsc::Receiver<Box<dyn Job>>,
    /// Repairs that others want.
    pub(super) orders: Orders,
    pub(in crate::buffer) keys: Arc<Keys>,
    /// What is done when damage is met.
    pub(super) if_damaged: IfDamaged,
    /// When damage was last met here, and whether a repair found it.
    pub(in crate::buffer) repaired: Option<(Instant, bool)>,
    /// Where it is noted how far the file has come.
    pub(in crate::buffer) marks: Arc<Marks>,
    /// The generation that was noted last.
    pub(in crate::buffer) noted: u64,
}

impl Writer {
    /// Serves requests until the last sender is gone.
    pub(in crate::buffer) fn run(mut self) {
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
        if has_written && let Err(error) = guarded(|| self.leave_wal()) {
            tracing::warn!(error = %Chain(&error), "the write-ahead log was not emptied at the end");
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
        let attempt = Attempt::new(Some(first), Vec::new(), self.has_wal_failed);
        let mut attempt = self.commit(attempt, Ballast::Lay);
        if let Err(error) = std::mem::replace(&mut attempt.result, Ok(())) {
            attempt = self.make_good(error, attempt);
        }
        let outcome = match &attempt.result {
            Ok(()) if self.opened().is_in_place() => Ok(()),
            Ok(()) => guarded(|| self.rescue()).map_err(|error| Failed::Unknown(error.to_string())),
            Err(error) => Err(attempt.failed(error.to_string())),
        };
        metrics::histogram!(metric::BUFFER_APPEND_DURATION.name).record(started.elapsed());
        attempt.answer(outcome);
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

    /// Does the work of the requests of an attempt, and of all others that wait by the time it is this
    /// process's turn to write, or come meanwhile, and has it on the disk.
    pub(super) fn commit(&mut self, attempt: Attempt, ballast: Ballast) -> Attempt {
        let mut attempt = attempt;
        attempt.result = guarded(|| self.try_commit(&mut attempt, ballast));
        self.tail = std::mem::take(&mut attempt.tail);
        self.has_wal_failed = attempt.has_wal_failed;
        attempt
    }

    fn try_commit(&mut self, attempt: &mut Attempt, ballast: Ballast) -> Result<(), redb::Error> {
        let (opened, transaction) = self.turn()?;
        attempt.jobs.extend(attempt.first.take().filter(|job| job.claim()));
        let min_free = self.settings.buffer_min_free_bytes;
        let ballast = ballast == Ballast::Lay && opened.file.lay_ballast(min_free);
        let room = Room { free_bytes: opened.file.free_bytes().unwrap_or(0), ballast };
        // Lost if the transaction is: it is read anew then.
        let tail = std::mem::take(&mut self.tail);
        let mut intake = Intake::open(&transaction, &opened.wal, tail)?;
        attempt.run_jobs(&mut intake, &mut self.queue, &room)?;
        // A commit of nothing would need room as well.
        let is_done = attempt.jobs.iter().all(|job| job.leaves_nothing())
            || !intake.has_checkpoint() && self.is_logged(&mut intake, attempt, &room)?;
        if is_done {
            attempt.tail = intake.abandon();
            if let Err(error) = transaction.abort() {
                // What is in the WAL is there all the same.
                tracing::error!(error = %Chain(&error), "a write turn did not end well");
            }
            return Ok(());
        }
        intake.checkpoint()?;
        let tail = intake.close()?;
        attempt.may_be_there = true;
        transaction.commit()?;
        (attempt.has_wal_failed, attempt.tail) = (false, tail);
        Ok(())
    }

    /// Has what was appended in the WAL and on the disk. False if it has to go into the tables.
    fn is_logged(
        &self,
        intake: &mut Intake<'_>,
        attempt: &mut Attempt,
        room: &Room,
    ) -> Result<bool, redb::Error> {
        if !intake.has_wal()? {
            // The generation that begins now can use it.
            intake.lay_wal(room.free_bytes.saturating_sub(self.settings.buffer_min_free_bytes));
            return Ok(false);
        }
        if !intake.fits_wal(attempt.has_wal_failed) {
            return Ok(false);
        }
        if let Err(error) = intake.log() {
            tracing::error!(%error, "the buffer's write-ahead log cannot be written");
            // If it could not be taken back either.
            (attempt.may_be_there, attempt.has_wal_failed) = (true, true);
            return Ok(false);
        }
        Ok(true)
    }

    pub(super) fn opened(&self) -> Arc<Opened> {
        self.handle.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
