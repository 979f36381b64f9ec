//! What an operator sees of the buffer of this host, and does about it. For the roles `operator`
//! and `admin`.

use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::{Enum, Object, OpenApi};
use serde::Serialize;
use serde_json::Value;
use shared::buffer::{DeadEntry, DeadFilter, Entry, Paused, PendingFilter, Stats, unix_millis};
use shared::domain::{Action, EntityKind, Lane, Operation, OperationState, Version};
use shared::status::{WORKER, WorkerStatus};
use uuid::Uuid;

use super::auth::Authenticated;
use super::envelope::{Meta, PartMeta};
use super::error::ApiError;
use super::parameters::in_range;
use super::ready::Ready;
use super::shell::RequestId;
use crate::permission::Permission;
use crate::shapes::{self, ActionName, EntityName, JsonObject, Nullable};
use crate::state::State;

const DEFAULT_LIMIT: u64 = 50;
const MAX_LIMIT: u64 = 500;

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
    data: BufferView,
    /// About the answer.
    meta: Meta,
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
    /// Failed attempts at replay that count.
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
    data: Vec<BufferedOperation>,
    /// About the part.
    meta: PartMeta,
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
    status: DoneStatus,
}

/// The command was carried out.
#[derive(Serialize, Object)]
pub struct DoneRead {
    /// What the command led to.
    data: Done,
    /// About the answer.
    meta: Meta,
}

/// The routes of the buffer.
pub struct BufferApi;

#[OpenApi(prefix_path = "/api/v1/buffer")]
impl BufferApi {
    /// Read the state of this host's buffer. For operators.
    #[oai(path = "/", method = "get", operation_id = "readBuffer")]
    async fn read(
        &self,
        #[oai(scope = "Permission::BufferRead")] _operator: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
    ) -> Result<Ready<BufferRead>, ApiError> {
        let (stats, worker, paused) = tokio::try_join!(
            state.buffer.stats(),
            state.buffer.published::<WorkerStatus>(WORKER),
            state.buffer.paused()
        )?;
        let data = at_a_glance(stats, worker, paused);
        Ok(BufferRead { data, meta: Meta::now(request.0) }.into())
    }

    /// List pending operations, the oldest first. For operators.
    #[oai(path = "/operations", method = "get", operation_id = "listPending")]
    #[allow(clippy::too_many_arguments)]
    async fn pending(
        &self,
        #[oai(scope = "Permission::BufferRead")] _operator: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        /// List operations of this user only.
        user_id: Query<Option<Uuid>>,
        /// List operations of this task only.
        task_id: Query<Option<Uuid>>,
        /// List operations of this priority only, from 1 (low) to 5 (high).
        #[oai(validator(minimum(value = "1"), maximum(value = "5")))]
        priority: Query<Option<u8>>,
        /// List operations with this action only.
        action: Query<Option<String>>,
        /// True to list the changes with all their values.
        payload: Query<Option<bool>>,
        /// The `meta.next_cursor` of the part before.
        cursor: Query<Option<String>>,
        /// Operations in a part, up to 500. The default is 50.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u64>>,
    ) -> Result<Ready<BufferedOperations>, ApiError> {
        let limit = in_range("limit", limit.0.unwrap_or(DEFAULT_LIMIT), MAX_LIMIT)?;
        let filter = PendingFilter {
            user_id: user_id.0,
            lane: task_id.0.map(|id| Lane { kind: EntityKind::Task, id }),
            priority: priority.0,
            action: action.0.as_deref().map(known_action).transpose()?,
        };
        let after = cursor.0.as_deref().map(parse_cursor).transpose()?;
        let page = state.buffer.pending_page(filter, after, fits(limit)).await?;
        let with_payload = payload.0.unwrap_or(false);
        let data = page.items.iter().map(|entry| pending_view(entry, with_payload)).collect();
        let next = page.next.map(|place: u64| place.to_string());
        Ok(BufferedOperations { data, meta: PartMeta::now(request.0, limit, next) }.into())
    }

    /// List dead letters, the oldest first. For operators.
    #[oai(path = "/dead", method = "get", operation_id = "listDead")]
    #[allow(clippy::too_many_arguments)]
    async fn dead(
        &self,
        #[oai(scope = "Permission::BufferRead")] _operator: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        /// List operations of this user only.
        user_id: Query<Option<Uuid>>,
        /// List dead letters in this state only.
        #[oai(name = "state")]
        in_state: Query<Option<String>>,
        /// List dead letters with this reason only.
        reason: Query<Option<String>>,
        /// True to list the changes with all their values.
        payload: Query<Option<bool>>,
        /// The `meta.next_cursor` of the part before.
        cursor: Query<Option<String>>,
        /// Operations in a part, up to 500. The default is 50.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u64>>,
    ) -> Result<Ready<BufferedOperations>, ApiError> {
        let limit = in_range("limit", limit.0.unwrap_or(DEFAULT_LIMIT), MAX_LIMIT)?;
        let filter = DeadFilter {
            user_id: user_id.0,
            state: in_state.0.as_deref().map(state_of_death).transpose()?,
            reason: reason.0,
        };
        let after = cursor.0.as_deref().map(parse_dead_cursor).transpose()?;
        let page = state.buffer.dead_page(filter, after, fits(limit)).await?;
        let with_payload = payload.0.unwrap_or(false);
        let data = page.items.iter().map(|letter| dead_view(letter, with_payload)).collect();
        let next = page.next.map(|(at, id)| format!("{at}_{id}"));
        Ok(BufferedOperations { data, meta: PartMeta::now(request.0, limit, next) }.into())
    }

    /// Let replay try a dead letter again. For operators.
    ///
    /// It becomes the newest pending operation of its entity. A record in quarantine can be tried again too, if
    /// it can be read by now.
    #[oai(path = "/dead/:id/retry", method = "post", operation_id = "retryDead")]
    async fn retry(
        &self,
        #[oai(scope = "Permission::BufferWrite")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        /// The operation's id.
        id: Path<Uuid>,
    ) -> Result<Ready<DoneRead>, ApiError> {
        let by = user.0.user_id.to_string();
        state.buffer.retry_dead(Version::from_uuid(id.0), &by).await?;
        Ok(done(request, DoneStatus::Pending))
    }

    /// Discard a dead letter for good. For operators.
    #[oai(path = "/dead/:id", method = "delete", operation_id = "discardDead")]
    async fn discard(
        &self,
        #[oai(scope = "Permission::BufferWrite")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        /// The operation's id.
        id: Path<Uuid>,
    ) -> Result<Ready<DoneRead>, ApiError> {
        let by = user.0.user_id.to_string();
        state.buffer.discard_dead(Version::from_uuid(id.0), &by).await?;
        Ok(done(request, DoneStatus::Discarded))
    }

    /// Pause replay on this host until it is resumed. For operators.
    #[oai(path = "/pause", method = "post", operation_id = "pauseReplay")]
    async fn pause(
        &self,
        #[oai(scope = "Permission::BufferWrite")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
    ) -> Result<Ready<DoneRead>, ApiError> {
        let by = user.0.user_id.to_string();
        state.buffer.pause(&by).await?;
        Ok(done(request, DoneStatus::Paused))
    }

    /// Resume replay on this host. For operators.
    #[oai(path = "/resume", method = "post", operation_id = "resumeReplay")]
    async fn resume(
        &self,
        #[oai(scope = "Permission::BufferWrite")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
    ) -> Result<Ready<DoneRead>, ApiError> {
        let by = user.0.user_id.to_string();
        state.buffer.resume(&by).await?;
        Ok(done(request, DoneStatus::Resumed))
    }
}

fn at_a_glance(stats: Stats, worker: Option<WorkerStatus>, paused: Option<Paused>) -> BufferView {
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

fn pending_view(entry: &Entry, with_payload: bool) -> BufferedOperation {
    let waits = Some(entry.not_before).filter(|at| *at > 0);
    let next_attempt_at = waits.and_then(DateTime::from_timestamp_millis).into();
    BufferedOperation {
        next_attempt_at,
        ..view(&entry.operation, entry.tries.in_all(), with_payload)
    }
}

fn dead_view(letter: &DeadEntry, with_payload: bool) -> BufferedOperation {
    BufferedOperation {
        state: letter.state.into(),
        died_at: DateTime::from_timestamp_millis(letter.died_at).into(),
        reason: Some(letter.reason.clone()).into(),
        ..view(&letter.operation, letter.attempts, with_payload)
    }
}

fn done(request: RequestId, status: DoneStatus) -> Ready<DoneRead> {
    DoneRead { data: Done { status }, meta: Meta::now(request.0) }.into()
}

fn fits(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn known_action(name: &str) -> Result<Action, ApiError> {
    Action::parse(name).map_err(|invalid| ApiError::parameter("action", invalid.to_string()))
}

fn state_of_death(name: &str) -> Result<OperationState, ApiError> {
    [OperationState::Rejected, OperationState::Expired]
        .into_iter()
        .find(|state| state.as_str() == name)
        .ok_or_else(|| ApiError::parameter("state", "must be rejected or expired"))
}

fn parse_cursor<T: FromStr>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::parameter("cursor", "must be a next_cursor of this list"))
}

fn parse_dead_cursor(text: &str) -> Result<(i64, Version), ApiError> {
    let (at, id) = text.split_once('_').unwrap_or((text, ""));
    Ok((parse_cursor(at)?, parse_cursor(id)?))
}
