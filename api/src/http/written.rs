//! Writes: the operation that a request asks for, and where it can be followed.

use chrono::SubsecRound;
use shared::domain::{Actor, Change, Operation, Version};

use super::shell::{RequestId, Traceparent};
use crate::state::State;

/// The operation that a request asks for.
pub(super) fn operation(
    state: &State,
    actor: Actor,
    change: Change,
    request: RequestId,
    trace: Traceparent,
) -> Operation {
    // What a create sets has a version of its own: nothing has to be older than its id.
    let is_create = matches!(change, Change::TaskCreate { .. });
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

/// The path at which a buffered operation can be followed.
pub(super) fn location(operation: Version) -> String {
    format!("/api/v1/operations/{operation}")
}
