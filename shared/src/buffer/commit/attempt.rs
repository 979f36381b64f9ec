//! One attempt at a commit: the requests it is made for, and how it ended.

use tokio::sync::mpsc;

use super::job::{Failed, Job, OnFullDisk, Room, answer};
use crate::buffer::tables::intake::Intake;
use crate::buffer::wal::tail::Tail;

/// Requests that share one commit at the most.
const GROUP: usize = 1024;

/// An attempt at a commit.
pub(super) struct Attempt {
    /// The request that came first, until it is claimed: it never is without a turn to write.
    pub(super) first: Option<Box<dyn Job>>,
    /// The requests that were claimed for the commit.
    pub(super) jobs: Vec<Box<dyn Job>>,
    /// Whether it was made.
    pub(super) result: Result<(), redb::Error>,
    /// Whether something of it may be in the files although it failed.
    pub(super) may_be_there: bool,
    /// Whether a write to the WAL, or a sync of it, has failed since the WAL was last emptied.
    pub(super) has_wal_failed: bool,
    /// What is known of the tail afterwards; nothing after a failure.
    pub(super) tail: Tail,
}

impl Attempt {
    /// One that has not begun.
    pub(super) fn new(
        first: Option<Box<dyn Job>>,
        jobs: Vec<Box<dyn Job>>,
        has_wal_failed: bool,
    ) -> Self {
        let tail = Tail::default();
        Self { first, jobs, result: Ok(()), may_be_there: false, has_wal_failed, tail }
    }

    /// What callers are told when it has failed.
    pub(super) fn failed(&self, problem: String) -> Failed {
        if self.may_be_there { Failed::Unknown(problem) } else { Failed::NothingKept(problem) }
    }

    /// Refuses the requests that are not to be made with the last room on the disk.
    pub(super) fn refuse_for_full_disk(&mut self) {
        let is_refused = |job: &mut Box<dyn Job>| job.on_full_disk() == OnFullDisk::Refuse;
        let refused = self.jobs.extract_if(.., is_refused).collect();
        answer(refused, Err(self.failed("the disk is full".to_owned())));
    }

    /// Answers all requests.
    pub(super) fn answer(mut self, outcome: Result<(), Failed>) {
        self.jobs.extend(self.first);
        answer(self.jobs, outcome);
    }

    /// Does the work of its requests, then of those in `queue`, and of those that come meanwhile.
    pub(super) fn run_jobs(
        &mut self,
        intake: &mut Intake<'_>,
        queue: &mut mpsc::Receiver<Box<dyn Job>>,
        room: &Room,
    ) -> Result<(), redb::Error> {
        let mut done = 0;
        loop {
            for job in &mut self.jobs[done..] {
                job.run(intake, room)?;
            }
            done = self.jobs.len();
            // Without a ballast one at a time: each uses as much room as there may be.
            let most = if room.ballast { GROUP } else { 1 };
            let come = std::iter::from_fn(|| queue.try_recv().ok());
            self.jobs.extend(come.take(most.saturating_sub(done)).filter(|job| job.claim()));
            if self.jobs.len() == done {
                return Ok(());
            }
        }
    }
}
