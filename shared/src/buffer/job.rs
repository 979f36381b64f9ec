//! What callers ask of the thread that writes, and what it tells them.
//!
//! A request that has not been claimed for a commit can be abandoned by its caller, and then
//! leaves no trace; one that has been claimed is answered with what became of the commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use super::BufferError;
use super::tables::Tables;

/// Operations that one commit may change when there is no ballast. Each may rewrite a page of seven
/// tables, and what a commit no longer needs is free after the next: that has to fit into the
/// ballast that was given up.
pub(super) const BIT: usize = 16;

/// A change to the tables, and where its result goes.
pub(super) struct Request<T, F> {
    work: F,
    purpose: Purpose,
    result: Option<Result<T, BufferError>>,
    reply: oneshot::Sender<Reply<T>>,
    claimed: Arc<AtomicBool>,
}

/// The result of a request.
pub(super) struct Reply<T> {
    pub(super) result: Result<T, BufferError>,
    /// Those who wait for the same commit: answered when this is dropped, by whoever was woken, since
    /// waking each from the writer's thread would keep that from the next commit.
    _others: Finished,
}

/// Jobs of a commit, and what became of it. Dropping it answers their callers.
pub(super) struct Finished {
    jobs: Vec<Box<dyn Job>>,
    problem: Option<String>,
}

impl Finished {
    /// Answers the callers of jobs: those of a commit, or why there was none.
    pub(super) fn answer(jobs: Vec<Box<dyn Job>>, committed: Result<(), String>) {
        let mut finished = Self { jobs, problem: committed.err() };
        if let Some(first) = finished.jobs.pop() {
            first.finish(finished);
        }
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        for job in self.jobs.drain(..) {
            job.finish(Self { jobs: Vec::new(), problem: self.problem.clone() });
        }
    }
}

impl<T, F> Request<T, F> {
    /// A request, where its result will arrive, and the flag with which it is claimed: by the
    /// writer for a commit, or by the caller to abandon it.
    pub(super) fn new(
        work: F,
        purpose: Purpose,
    ) -> (Self, oneshot::Receiver<Reply<T>>, Arc<AtomicBool>) {
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
    /// It takes something in, or only looks, but not at records: the indexes stay as they are.
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
    /// Whether it was refused, and so has changed nothing.
    fn is_refused(&self) -> bool;
    /// Answers the caller, and lets it answer the others of the commit.
    fn finish(self: Box<Self>, others: Finished);
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

    fn is_refused(&self) -> bool {
        matches!(self.result, Some(Err(_)))
    }

    fn finish(self: Box<Self>, others: Finished) {
        let result = match (&others.problem, self.result) {
            (None, Some(result)) => result,
            (None, None) => Err(BufferError::Unavailable("not run".to_owned())),
            (Some(problem), _) => Err(BufferError::Unavailable(problem.clone())),
        };
        // A caller that has gone needs no answer; the others get theirs all the same.
        let _ = self.reply.send(Reply { result, _others: others });
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
