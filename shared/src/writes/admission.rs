//! What is refused before it comes into the buffer, because this node can already tell.

use std::sync::Arc;

use super::WriteError;
use super::generations::{Generations, counted_user};
use crate::buffer::{Buffer, BufferError};
use crate::domain::{
    Base, Change, Clock, Operation, Outcome, Refusal, Seen, Version, apply_to_task, see_task,
};
use crate::store::{Link, Store};

/// The places a write may go to, and what they tell of its entity.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) store: Arc<Store>,
    pub(super) buffer: Arc<Buffer>,
    pub(super) link: Arc<Link>,
    pub(super) generations: Generations,
}

impl Admission {
    /// Refuses a change of a task that is known to be deleted, somebody else's, or of another
    /// version than the client asserted. What this node cannot see is let in, and checked at replay.
    pub(super) async fn check(&self, operation: &Operation) -> Result<(), WriteError> {
        match &operation.change {
            Change::TaskCreate { .. }
            | Change::ProfilePut { .. }
            | Change::ProfilePatch { .. }
            | Change::UserSetStanding { .. }
            | Change::UserErase { .. }
            | Change::SessionRevoke { .. }
            | Change::CacheInvalidate => Ok(()),
            // In a box of its own: what asks PostgreSQL is large, and every write would carry it along.
            Change::TaskReplace { .. } | Change::TaskPatch { .. } | Change::TaskDelete { .. } => {
                Box::pin(self.check_task(operation)).await
            }
        }
    }

    /// Puts a write into the buffer.
    pub(super) async fn append(
        &self,
        operation: Operation,
        clock: Option<Arc<Clock>>,
    ) -> Result<Version, BufferError> {
        let user_id = counted_user(&operation);
        let appended = self.buffer.append(operation, clock).await;
        // Replay may bring it to PostgreSQL at any moment from now on.
        self.generations.begin(user_id);
        appended
    }

    async fn check_task(&self, operation: &Operation) -> Result<(), WriteError> {
        let lane = operation.lane();
        let pending = self.buffer.lane(lane).await?;
        let base = if self.link.is_up() {
            match self.store.task(lane.id).await {
                Ok(task) => Base::Read(task),
                Err(error) => {
                    self.link.report(error);
                    Base::Unknown
                }
            }
        } else {
            Base::Unknown
        };
        match see_task(base, &pending, operation.actor.user_id) {
            Seen::Absent => Err(WriteError::Refused(Refusal::NotFound)),
            // Its newest pending change is its version, as far as this client can know.
            Seen::Part(part) if operation.if_match().is_some_and(|asked| asked != part.version) => {
                Err(WriteError::Refused(Refusal::PreconditionFailed))
            }
            Seen::Unknown | Seen::Part(_) => Ok(()),
            Seen::Whole(task) => match apply_to_task(&mut Some(task), operation) {
                Outcome::Refused(refusal) => Err(WriteError::Refused(refusal)),
                Outcome::Applied
                | Outcome::Merged
                | Outcome::Superseded
                | Outcome::Gone
                | Outcome::Duplicate => Ok(()),
            },
        }
    }
}
