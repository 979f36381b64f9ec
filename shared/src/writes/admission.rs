//! The way into the buffer: what this node can already tell to be in vain is refused before.

use std::sync::Arc;

use super::generations::counted_user;
use super::{WriteError, WritePath};
use crate::buffer::{BufferError, LaneEnd};
use crate::domain::{
    Base, Change, Clock, Operation, Outcome, Refusal, Seen, Version, apply_to_task, see_task,
};

/// How often an operation that asserts a version is checked anew because its lane has grown meanwhile.
/// Each time another one of the lane has got in, so most find their assertion refuted at the second.
const CHECKS: usize = 16;

impl WritePath {
    /// Puts an operation that was not sent to PostgreSQL into the buffer, unless it is in vain. If it
    /// asserts a version, nothing comes into its lane between the check and the append: of several that
    /// assert one version, one gets in.
    pub(super) async fn append(&self, operation: Operation) -> Result<Version, WriteError> {
        if operation.if_match().is_none() {
            self.check(&operation).await?;
            return Ok(self.put(operation, Some(self.process_clock())).await?);
        }
        let user_id = counted_user(&operation);
        for _ in 0..CHECKS {
            let end = self.check(&operation).await?;
            let appended =
                self.buffer.append_at(operation.clone(), self.process_clock(), end).await;
            self.generations.begin(user_id);
            if let Some(id) = appended? {
                return Ok(id);
            }
        }
        Err(BufferError::Timeout.into())
    }

    /// Puts an operation into the buffer that may have been committed by PostgreSQL. It is kept in any
    /// case; but if another process of this host has accepted one in the meantime that asserts the same
    /// version, one of the two is in vain, and nobody knows which.
    pub(super) async fn put_sent(&self, operation: Operation) -> Result<Version, WriteError> {
        let (lane, asserted) = (operation.lane(), operation.if_match());
        let id = self.put(operation, None).await.map_err(WriteError::Unknown)?;
        if asserted.is_none() {
            return Ok(id);
        }
        let pending = self.buffer.lane(lane).await.map_err(WriteError::Unknown)?;
        let before = pending.iter().take_while(|other| other.id != id);
        if before.into_iter().any(|other| other.if_match() == asserted) {
            let twice = "another change asserts the same version".to_owned();
            return Err(WriteError::Unknown(BufferError::OutcomeUnknown(twice)));
        }
        Ok(id)
    }

    /// Puts an operation into the buffer as it is.
    pub(super) async fn put(
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

    /// The clock that gives an operation its version when its turn has come.
    pub(super) fn process_clock(&self) -> Arc<Clock> {
        Arc::clone(self.clock.of_process())
    }

    /// Refuses a change of a task that is known to be deleted, somebody else's, or of another
    /// version than the client asserted. What this node cannot see is let in, and checked at replay.
    /// Returns the end of the lane that was looked at.
    async fn check(&self, operation: &Operation) -> Result<LaneEnd, WriteError> {
        match &operation.change {
            // In a box of its own: what asks PostgreSQL is large, and every write would carry it along.
            Change::Task(change) if change.creates().is_none() => {
                Box::pin(self.check_task(operation)).await
            }
            Change::Task(_)
            | Change::Profile(_)
            | Change::User(_)
            | Change::Session(_)
            | Change::Cache(_) => Ok(LaneEnd::default()),
        }
    }

    async fn check_task(&self, operation: &Operation) -> Result<LaneEnd, WriteError> {
        let lane = operation.lane();
        let whole = self.buffer.lane_to_its_end(lane).await?;
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
        if matches!(base, Base::Unknown) && self.known.is_deleted(lane.id) {
            return Err(WriteError::Refused(Refusal::NotFound(lane.kind)));
        }
        let asserted = operation.if_match();
        let end = whole.end;
        match see_task(base, &whole.operations, operation.actor.user_id) {
            Seen::Absent => Err(WriteError::Refused(Refusal::NotFound(lane.kind))),
            Seen::Part(part) if asserted.is_some_and(|asked| !part.may_have(asked)) => {
                Err(WriteError::Refused(Refusal::PreconditionFailed(lane.kind)))
            }
            // It would be the version of everything that comes into the lane after it.
            Seen::Unknown | Seen::Part(_)
                if asserted.is_some_and(|asked| !whole.may_have_had(asked)) =>
            {
                Err(WriteError::Refused(Refusal::PreconditionFailed(lane.kind)))
            }
            Seen::Unknown | Seen::Part(_) => Ok(end),
            Seen::Whole(task) => match apply_to_task(&mut Some(task), operation) {
                Outcome::Refused(refusal) => Err(WriteError::Refused(refusal)),
                Outcome::Applied
                | Outcome::Merged
                | Outcome::Superseded
                | Outcome::Gone
                | Outcome::Duplicate => Ok(end),
            },
        }
    }
}
