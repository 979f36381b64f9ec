//! Routes for operators (the roles `operator` and `admin`): look at the buffer of this host, and act on
//! it.

use std::str::FromStr;
use std::sync::Arc;

use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use shared::buffer::{DeadFilter, PendingFilter};
use shared::domain::{Action, EntityKind, Lane, OperationState, Version};
use shared::status::{WORKER, WorkerStatus};
use uuid::Uuid;

use super::auth::Authenticated;
use super::buffer_view::{
    BufferRead, BufferedOperations, Done, DoneRead, DoneStatus, at_a_glance, dead_view,
    pending_view,
};
use super::envelope::{Meta, PartMeta};
use super::error::ApiError;
use super::parameters::in_range;
use super::ready::Ready;
use super::shell::RequestId;
use crate::permission::Permission;
use crate::state::State;

const DEFAULT_LIMIT: u64 = 50;
const MAX_LIMIT: u64 = 500;

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
