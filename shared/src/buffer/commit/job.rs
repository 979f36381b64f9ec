//! What callers ask of the thread that writes, and what it tells them.
//!
//! A request that has not been claimed for a commit can be abandoned by its caller, and then
//! leaves no trace; one that has been claimed is answered with what became of the commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::buffer::error::BufferError;
use crate::buffer::tables::intake::Intake;

/// Operations that one commit may change when there is no ballast. Each may rewrite a page of seven
/// tables, and what a commit no longer needs is free after the next: that has to fit into the
/// ballast that was given up.
pub(super) const BIT: usize = 16;

/// Work for a write transaction, and where its result goes.
pub(in crate::buffer) struct Request<T, F> {
    work: F,
    needs: Needs,
    on_full_disk: OnFullDisk,
    result: Option<Result<T, BufferError>>,
    reply: oneshot::Sender<Result<T, BufferError>>,
    claimed: Arc<AtomicBool>,
    runtime: Handle,
}

impl<T, F> Request<T, F> {
    /// A request from a task of tokio's, where its result will arrive, and the flag with which it is
    /// claimed: by the writer for a commit, or by the caller to abandon it.
    pub(in crate::buffer) fn new(
        work: F,
        needs: Needs,
        on_full_disk: OnFullDisk,
    ) -> (Self, oneshot::Receiver<Result<T, BufferError>>, Arc<AtomicBool>) {
        let (reply, result) = oneshot::channel();
        let claimed = Arc::new(AtomicBool::new(false));
        (
            Self {
                work,
                needs,
                on_full_disk,
                result: None,
                reply,
                claimed: Arc::clone(&claimed),
                runtime: Handle::current(),
            },
            result,
            claimed,
        )
    }
}

/// What a request needs before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::buffer) enum Needs {
    /// That everything it did, and saw, is on the disk.
    Disk,
    /// Its turn to write alone: it changes nothing.
    Turn,
}

/// What becomes of a request whose commit fails because the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::buffer) enum OnFullDisk {
    /// It is refused, so that what takes something out may go on.
    Refuse,
    /// It is made once more, with the room that the ballast leaves.
    MakeRoom,
}

/// A [`Request`] of any type.
pub(in crate::buffer) trait Job: Send {
    /// Takes the job for the coming commit; false if its caller has abandoned it.
    fn claim(&self) -> bool;
    /// What becomes of it on a full disk.
    fn on_full_disk(&self) -> OnFullDisk;
    /// Does the work. An error of storage ends the whole transaction; a refusal changes nothing
    /// and is this job's own result. May run again in another transaction.
    fn run(&mut self, intake: &mut Intake<'_>, room: &Room) -> Result<(), redb::Error>;
    /// Whether nothing of it has to be committed: it was refused, or wanted its turn alone.
    fn leaves_nothing(&self) -> bool;
    /// Where its caller runs.
    fn runtime(&self) -> &Handle;
    /// Answers the caller, once it is known what became of the commit.
    fn finish(self: Box<Self>, committed: Result<(), Failed>);
}

/// What became of a commit that failed, and why it did.
#[derive(Clone, Debug)]
pub(in crate::buffer) enum Failed {
    /// Nothing of it was kept.
    NothingKept(String),
    /// It may have been kept, or may be yet.
    Unknown(String),
}

impl<T, F> Job for Request<T, F>
where
    T: Send,
    F: FnMut(&mut Intake<'_>, &Room) -> Result<T, BufferError> + Send,
{
    fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    fn on_full_disk(&self) -> OnFullDisk {
        self.on_full_disk
    }

    fn run(&mut self, intake: &mut Intake<'_>, room: &Room) -> Result<(), redb::Error> {
        match (self.work)(intake, room) {
            Err(BufferError::Redb(error)) => Err(*error),
            Err(BufferError::Damaged(problem)) => Err(redb::Error::Corrupted(problem)),
            result => {
                self.result = Some(result);
                Ok(())
            }
        }
    }

    fn leaves_nothing(&self) -> bool {
        match self.needs {
            Needs::Disk => matches!(self.result, Some(Err(_))),
            Needs::Turn => true,
        }
    }

    fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn finish(self: Box<Self>, committed: Result<(), Failed>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(BufferError::Unavailable("not run".to_owned())),
            (Err(_), Some(Err(refusal))) => Err(refusal),
            (Err(Failed::NothingKept(problem)), _) => Err(BufferError::Unavailable(problem)),
            (Err(Failed::Unknown(problem)), _) => Err(BufferError::OutcomeUnknown(problem)),
        };
        // A caller that has gone needs no answer.
        let _ = self.reply.send(result);
    }
}

/// Answers the callers of jobs where they run: to wake each of them from the writer's thread takes a
/// lock and a system call, and keeps it from the next commit.
pub(in crate::buffer) fn answer(jobs: Vec<Box<dyn Job>>, committed: Result<(), Failed>) {
    let Some(runtime) = jobs.first().map(|job| job.runtime().clone()) else { return };
    runtime.spawn(async move {
        for job in jobs {
            job.finish(committed.clone());
        }
    });
}

/// What the filesystem has to say before anything is appended.
#[derive(Clone, Copy, Debug)]
pub(in crate::buffer) struct Room {
    /// Bytes free; zero if that cannot be told.
    pub(in crate::buffer) free_bytes: u64,
    /// Whether the ballast is there.
    pub(in crate::buffer) ballast: bool,
}

impl Room {
    /// How many operations one commit may change, of those that it usually would.
    pub(in crate::buffer) fn most(self, usually: usize) -> usize {
        if self.ballast { usually } else { usually.min(BIT) }
    }
}
