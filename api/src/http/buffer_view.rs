//! How the buffer of this host looks in answers to operators.

use chrono::{DateTime, Utc};
use poem_openapi::{Enum, Object};
use serde::Serialize;
use serde_json::Value;
use shared::buffer::{DeadEntry, Entry, Paused, Stats, unix_millis};
use shared::domain::{Operation, OperationState};
use shared::status::WorkerStatus;
use uuid::Uuid;

use super::envelope::{Meta, PartMeta};
use crate::shapes::{self, ActionName, EntityName, JsonObject, Nullable};

/// The state of this host's buffer and of its replay.
#[derive(Serialize, Object)]
pub struct BufferView {
    /// Pending operations.
    pending: u64,
    /// Pending operations of each priority: of priority 1, of 2, up to 5.
    pending_by_priority: Vec<u64>,
    /// Bytes that the pending operations take.
    bytes: u64,
    /// Dead letters: operations that replay has given up.
    dead: u64,
    /// Records in quarantine: they cannot be read.
    quarantined: u64,
    /// Lanes that wait for another attempt. A lane is all pending operations of one entity.
    waiting_lanes: u64,
    /// When the oldest pending operation came into the buffer. Null if none is pending.
    oldest_queued_at: Nullable<DateTime<Utc>>,
    /// Seconds since then. Null if none is pending.
    oldest_age_seconds: Nullable<u64>,
    /// Operations that replay settles per second. Null if it settles none.
    drain_rate: Nullable<u64>,
    /// Seconds until the buffer is empty at that rate. Null if there is no rate.
    estimated_seconds_left: Nullable<u64>,
    /// When replay last settled operations. Null if it never did.
    last_replay_at: Nullable<DateTime<Utc>>,
    /// Since when replay is paused. Null if it is not.
    paused_since: Nullable<DateTime<Utc>>,
    /// Who paused it. Null if it is not paused.
    paused_by: Nullable<String>,
}

/// The state of this host's buffer and of its replay.
#[derive(Serialize, Object)]
pub struct BufferRead {
    /// The buffer.
    pub(super) data: BufferView,
    /// About the answer.
    pub(super) meta: Meta,
}

/// An operation in the buffer.
#[derive(Serialize, Object)]
pub struct BufferedOperation {
    /// The operation's id.
    id: Uuid,
    /// `pending`, or `rejected` or `expired` for a dead letter.
    state: shapes::OperationState,
    /// The user who asked for it.
    user_id: Uuid,
    /// What it changes.
    entity: EntityName,
    /// The id of the entity that it changes.
    entity_id: Uuid,
    /// What it does.
    action: ActionName,
    /// How urgent it is, from 1 (low) to 5 (high).
    priority: u8,
    /// How often replay has tried it in vain, waits for other hosts included.
    attempts: u32,
    /// When the request that carried it was accepted.
    accepted_at: DateTime<Utc>,
    /// When replay tries it again. Null if it does not wait for that.
    next_attempt_at: Nullable<DateTime<Utc>>,
    /// When replay gave it up. Null if it did not.
    died_at: Nullable<DateTime<Utc>>,
    /// Why replay gave it up. Null if it did not.
    reason: Nullable<String>,
    /// The id of the request that carried it.
    request_id: Uuid,
    /// The change, with all its values. Null unless `payload=true` asks for it.
    payload: Nullable<JsonObject>,
}

/// A part of a list of operations.
#[derive(Serialize, Object)]
pub struct BufferedOperations {
    /// The operations.
    pub(super) data: Vec<BufferedOperation>,
    /// About the part.
    pub(super) meta: PartMeta,
}

/// What an operator's command led to: the operation is `pending` or `discarded`, replay is `paused` or
/// `resumed`.
#[derive(Clone, Copy, Debug, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum DoneStatus {
    /// The operation waits for replay again.
    Pending,
    /// The operation is dropped.
    Discarded,
    /// Replay is stopped.
    Paused,
    /// Replay goes on.
    Resumed,
}

/// What a command led to.
#[derive(Serialize, Object)]
pub struct Done {
    /// The state that the command led to.
    pub(super) status: DoneStatus,
}

/// The command was carried out.
#[derive(Serialize, Object)]
pub struct DoneRead {
    /// What the command led to.
    pub(super) data: Done,
    /// About the answer.
    pub(super) meta: Meta,
}

pub(super) fn at_a_glance(
    stats: Stats,
    worker: Option<WorkerStatus>,
    paused: Option<Paused>,
) -> BufferView {
    let replay = worker.map(|worker| worker.replay).unwrap_or_default();
    let rate = Some(replay.drain_rate).filter(|rate| *rate > 0);
    let age = |since: i64| u64::try_from(unix_millis().saturating_sub(since) / 1000).unwrap_or(0);
    BufferView {
        pending: stats.pending,
        pending_by_priority: stats.by_priority.to_vec(),
        bytes: stats.bytes,
        dead: stats.dead,
        quarantined: stats.quarantined,
        waiting_lanes: stats.waiting_lanes,
        oldest_queued_at: stats.oldest_queued_at.and_then(DateTime::from_timestamp_millis).into(),
        oldest_age_seconds: stats.oldest_queued_at.map(age).into(),
        drain_rate: rate.into(),
        estimated_seconds_left: rate.map(|rate| stats.pending.div_ceil(rate)).into(),
        last_replay_at: replay.last_at.and_then(DateTime::from_timestamp_millis).into(),
        paused_since: paused
            .as_ref()
            .and_then(|paused| DateTime::from_timestamp_millis(paused.since))
            .into(),
        paused_by: paused.map(|paused| paused.by).into(),
    }
}

fn view(operation: &Operation, attempts: u32, with_payload: bool) -> BufferedOperation {
    let lane = operation.lane();
    let payload = with_payload
        .then(|| serde_json::to_value(&operation.change).ok())
        .flatten()
        .and_then(|change| match change {
            Value::Object(map) => Some(JsonObject(map)),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => None,
        });
    BufferedOperation {
        id: operation.id.as_uuid(),
        state: OperationState::Pending.into(),
        user_id: operation.actor.user_id,
        entity: lane.kind.into(),
        entity_id: lane.id,
        action: operation.action().into(),
        priority: operation.priority(),
        attempts,
        accepted_at: operation.accepted_at,
        next_attempt_at: None.into(),
        died_at: None.into(),
        reason: None.into(),
        request_id: operation.request_id,
        payload: payload.into(),
    }
}

pub(super) fn pending_view(entry: &Entry, with_payload: bool) -> BufferedOperation {
    let waits = Some(entry.not_before).filter(|at| *at > 0);
    let next_attempt_at = waits.and_then(DateTime::from_timestamp_millis).into();
    BufferedOperation {
        next_attempt_at,
        ..view(&entry.operation, entry.tries.in_all(), with_payload)
    }
}

pub(super) fn dead_view(letter: &DeadEntry, with_payload: bool) -> BufferedOperation {
    BufferedOperation {
        state: letter.state.into(),
        died_at: DateTime::from_timestamp_millis(letter.died_at).into(),
        reason: Some(letter.reason.clone()).into(),
        ..view(&letter.operation, letter.attempts, with_payload)
    }
}
