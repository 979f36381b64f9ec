//! Writes over HTTP: makes the operation that a request asks for, and the answer that tells the client
//! what became of it. This is the one file that knows what [`Written`] means to a client.
//!
//! A write also makes the kept totals of the user's lists wrong. The write path sees to that, not this
//! file: it begins a new generation of the user's tasks (`writes/generations.rs`), for which no totals
//! are kept yet.

use chrono::SubsecRound;
use poem_openapi::ApiResponse;
use poem_openapi::types::Type;
use shared::domain::{Action, Actor, Change, Operation, Outcome, Version};
use shared::store::Entity;
use shared::writes::Written;
use uuid::Uuid;

use super::code::Code;
use super::envelope::{SyncState, WriteMeta};
use super::error::ApiError;
use super::ready::Ready;
use super::shell::{RequestId, Traceparent};
use crate::state::State;

/// An accepted write, as its answer tells of it.
pub(super) enum Accepted {
    /// PostgreSQL has committed it.
    Committed {
        /// The entity just after it, if that was read.
        entity: Option<Entity>,
        /// About the answer.
        meta: WriteMeta,
    },
    /// PostgreSQL has the task of this create already.
    Repeated {
        /// The task, if it was read.
        entity: Option<Entity>,
        /// About the answer.
        meta: WriteMeta,
    },
    /// The buffer holds it.
    Buffered(Buffered),
}

/// A write that the buffer holds.
pub(super) struct Buffered {
    /// The operation's id.
    pub(super) operation_id: Version,
    /// The path at which it can be followed, for the header `Location`.
    pub(super) location: String,
    /// About the answer.
    pub(super) meta: WriteMeta,
}

impl Buffered {
    /// The answer to a request, about an operation that the buffer holds.
    pub(super) fn new(request_id: Uuid, operation_id: Version) -> Self {
        let location = format!("/api/v1/operations/{operation_id}");
        let meta = WriteMeta::now(request_id, SyncState::Buffered, operation_id);
        Self { operation_id, location, meta }
    }
}

/// What a change is answered with, where the answer has no `ETag`.
#[derive(ApiResponse)]
pub enum Changed<T: Type + Send> {
    /// PostgreSQL has committed the change.
    #[oai(status = 200)]
    Committed(Ready<T>),
    /// The buffer of this host holds the change, synced to its disk. Replay brings it to PostgreSQL.
    #[oai(status = 202)]
    Buffered(Ready<T>, #[oai(header = "Location")] String),
}

/// The operation that a request asks for.
pub(super) fn operation(
    state: &State,
    actor: Actor,
    change: Change,
    request: RequestId,
    trace: Traceparent,
) -> Operation {
    // What a create sets has a version of its own: nothing has to be older than its id.
    let is_create = change.creates().is_some();
    let id = if is_create { state.clock.of_process().next() } else { state.clock.next() };
    Operation {
        id,
        actor,
        change,
        // PostgreSQL keeps microseconds: a finer time would change by being stored.
        accepted_at: chrono::Utc::now().trunc_subsecs(3),
        request_id: request.0,
        traceparent: trace.0,
    }
}

/// Writes an operation and tells where it is.
///
/// # Errors
/// If it is refused, what it changes is gone, or neither PostgreSQL nor the buffer takes it.
pub(super) async fn submit(state: &State, operation: Operation) -> Result<Accepted, ApiError> {
    let (kind, action) = (operation.lane().kind, operation.action());
    let request_id = operation.request_id;
    let (operation_id, outcome, entity) = match state.writes.submit(operation).await? {
        Written::Committed { operation_id, outcome, entity } => (operation_id, outcome, entity),
        Written::Buffered { operation_id } => {
            return Ok(Accepted::Buffered(Buffered::new(request_id, operation_id)));
        }
    };
    let meta = WriteMeta::now(request_id, SyncState::Committed, operation_id);
    match outcome {
        Outcome::Gone => match Code::gone(kind, action) {
            Some(code) => Err(code.into()),
            None => Ok(Accepted::Committed { entity, meta }),
        },
        Outcome::Duplicate if action == Action::Create => Ok(Accepted::Repeated { entity, meta }),
        Outcome::Applied | Outcome::Merged | Outcome::Superseded | Outcome::Duplicate => {
            Ok(Accepted::Committed { entity, meta })
        }
        Outcome::Refused(refusal) => Err(refusal.into()),
    }
}

/// Puts an operation into the buffer whatever PostgreSQL's state, and tells where it can be followed.
///
/// # Errors
/// If the buffer does not take it.
pub(super) async fn keep(state: &State, operation: Operation) -> Result<Buffered, ApiError> {
    let request_id = operation.request_id;
    Ok(Buffered::new(request_id, state.writes.keep(operation).await?))
}
