//! What the writer does besides its commits: it takes its turn in the files that the paths lead to, opens them
//! anew, repairs what is damaged, makes room on a full disk, and brings the tables up to the WAL.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use redb::WriteTransaction;

use super::attempt::Attempt;
use super::job::BIT;
use super::open::{IfDamaged, reopen};
use super::snapshot::Opened;
use super::writer::{Ballast, Writer};
use crate::buffer::disk::private::forget_cached;
use crate::buffer::error::{Chain, guarded, is_damage, is_full, unusable};
use crate::buffer::repair::anew::{BY_ITSELF, Mode, repair};
use crate::buffer::tables::intake::Intake;
use crate::buffer::wal::file::Logged;
use crate::buffer::wal::tail::Tail;

/// How often the files are opened anew in one go, because the paths lead elsewhere.
const TRIES: usize = 3;

/// How often damage is repaired at the most.
const AGAIN: Duration = Duration::from_secs(60);

impl Writer {
    /// Opens the files anew after an attempt has failed, and makes it once more if it has left nothing; on a
    /// full disk what takes something out of it, with the room that the ballast leaves.
    pub(super) fn make_good(&mut self, error: redb::Error, failed: Attempt) -> Attempt {
        tracing::error!(error = %Chain(&error), "a commit to the buffer file failed");
        let (is_full, mut failed) = (is_full(&error), failed);
        if is_damage(&error) {
            self.repair_damage();
        }
        // After an I/O error redb refuses everything until the file is opened anew.
        let is_open = self.open_anew();
        if is_open && is_full {
            failed.refuse_for_full_disk();
        }
        // What takes something out may find it gone.
        let is_repeatable = if is_full { !failed.jobs.is_empty() } else { !failed.may_be_there };
        if !is_open || !is_repeatable {
            failed.result = Err(error);
            return failed;
        }
        let may_be_there = failed.may_be_there;
        let mut again = match if is_full { guarded(|| self.make_room()) } else { Ok(()) } {
            Ok(()) => {
                let attempt = Attempt::new(failed.first, failed.jobs, self.has_wal_failed);
                self.commit(attempt, if is_full { Ballast::Leave } else { Ballast::Lay })
            }
            Err(error) => Attempt { result: Err(error), ..failed },
        };
        again.may_be_there |= may_be_there;
        if let Err(error) = &again.result {
            tracing::error!(error = %Chain(error), "it failed again");
            self.open_anew();
        }
        again
    }

    /// Repairs the file after damage was met, once in a while: if nothing was found to be wrong the
    /// last time, it is made anew.
    /// Returns whether it was, and is open.
    pub(super) fn repair_damage(&mut self) -> bool {
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

    /// Gives the ballast up, which is for what takes something out, and empties the WAL into the room it
    /// leaves.
    fn make_room(&mut self) -> Result<(), redb::Error> {
        if self.opened().file.drop_ballast() {
            tracing::warn!("disk full: the buffer's ballast was given up to go on draining");
        }
        self.checkpoint_in_steps()
    }

    /// Waits for this process's turn to write, without a limit of redb's own: callers have theirs. What
    /// is returned is what the paths lead to while it lasts: who wrote elsewhere would take places that
    /// others give out.
    pub(super) fn turn(&mut self) -> Result<(Arc<Opened>, WriteTransaction), redb::Error> {
        for _ in 0..TRIES {
            let opened = self.opened();
            let transaction = opened.database.begin_write()?;
            if opened.is_in_place() {
                return Ok((opened, transaction));
            }
            tracing::error!(
                "the buffer file or its write-ahead log was removed or replaced: opening them anew"
            );
            // What only the WAL had is still known; and whoever moved the file has all of it then.
            if let Err(error) = self.checkpoint_in(&opened, transaction, u64::MAX) {
                tracing::error!(error = %Chain(&error), "what the write-ahead log had was lost with it");
            }
            if !self.open_anew() {
                break;
            }
        }
        Err(unusable("the buffer file was removed"))
    }

    /// Whether what was just committed is in the file at the path although that, or the WAL's, leads
    /// elsewhere now.
    pub(super) fn rescue(&mut self) -> Result<(), redb::Error> {
        let gone = || unusable("the buffer file or its write-ahead log was replaced");
        let (opened, generation) = (self.opened(), self.tail.mark().generation);
        let transaction = opened.database.begin_write()?;
        let was = self.checkpoint_in(&opened, transaction, u64::MAX)?.generation;
        // If another process has emptied the WAL since, it may have been another WAL.
        let is_saved = opened.file.is_in_place() && was == generation;
        self.open_anew();
        if is_saved { Ok(()) } else { Err(gone()) }
    }

    pub(super) fn leave_wal(&mut self) -> Result<(), redb::Error> {
        let (opened, transaction) = self.turn()?;
        let mut intake = Intake::open(&transaction, &opened.wal, std::mem::take(&mut self.tail))?;
        intake.leave_wal()?;
        let tail = intake.close()?;
        transaction.commit()?;
        self.tail = tail;
        Ok(())
    }

    /// Brings the tables up to the WAL, or over so many operations of it. Returns what the WAL had.
    fn checkpoint(&mut self, most: u64) -> Result<Logged, redb::Error> {
        let (opened, transaction) = self.turn()?;
        self.checkpoint_in(&opened, transaction, most)
    }

    fn checkpoint_in(
        &mut self,
        opened: &Opened,
        transaction: WriteTransaction,
        most: u64,
    ) -> Result<Logged, redb::Error> {
        let mut intake = Intake::open(&transaction, &opened.wal, std::mem::take(&mut self.tail))?;
        let logged = intake.logged();
        if intake.tail_len() == 0 {
            self.tail = intake.abandon();
            transaction.abort()?;
            return Ok(logged);
        }
        intake.checkpoint_some(most)?;
        let tail = intake.close()?;
        transaction.commit()?;
        self.tail = tail;
        Ok(logged)
    }

    /// Empties the WAL in small commits, each of which needs little room, and leaves what it no longer
    /// needs to the next. What others append meanwhile may stay.
    fn checkpoint_in_steps(&mut self) -> Result<(), redb::Error> {
        let end = self.checkpoint(BIT as u64)?.next;
        let mut from = self.tail.mark().from;
        while from < end {
            self.checkpoint(BIT as u64)?;
            let before = std::mem::replace(&mut from, self.tail.mark().from);
            if from == before {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn open_anew(&mut self) -> bool {
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
