//! The route that tells what became of an accepted operation.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::{Object, OpenApi};
use serde::Serialize;
use shared::buffer::{Act, Found};
use shared::domain::{self, Actor, Lane, Operation, Version};
use shared::store::LedgerEntry;
use uuid::Uuid;

use super::auth::Authenticated;
use super::code::Code;
use super::envelope::Meta;
use super::error::ApiError;
use super::ready::Ready;
use super::shell::RequestId;
use crate::permission::Permission;
use crate::shapes::{ActionName, EntityName, Nullable, OperationState};
use crate::state::State;

/// An accepted operation.
#[derive(Serialize, Object)]
pub struct OperationView {
    /// The operation's id.
    id: Uuid,
    /// What became of it.
    state: OperationState,
    /// What it changes.
    entity: EntityName,
    /// The id of the entity that it changes.
    entity_id: Uuid,
    /// What it does.
    action: ActionName,
    /// How urgent it is, from 1 (low) to 5 (high). Null once it has left the buffer.
    priority: Nullable<u8>,
    /// How often replay has tried it in vain, waits for other hosts included. Null once it has left the buffer.
    attempts: Nullable<u32>,
    /// When the request that carried it was accepted.
    accepted_at: DateTime<Utc>,
    /// When replay tries it again. Null if it does not wait for that.
    next_attempt_at: Nullable<DateTime<Utc>>,
    /// When it was settled in PostgreSQL. Null if it was not.
    applied_at: Nullable<DateTime<Utc>>,
    /// Why it did not take effect. Null if it did, or still may.
    reason: Nullable<String>,
}

/// What became of an operation.
#[derive(Serialize, Object)]
pub struct OperationRead {
    /// The operation.
    data: OperationView,
    /// About the answer.
    meta: Meta,
}

impl OperationView {
    fn buffered(operation: &Operation, state: domain::OperationState, attempts: u32) -> Self {
        let lane = operation.lane();
        Self {
            id: operation.id.as_uuid(),
            state: state.into(),
            entity: lane.kind.into(),
            entity_id: lane.id,
            action: operation.action().into(),
            priority: Some(operation.priority()).into(),
            attempts: Some(attempts).into(),
            accepted_at: operation.accepted_at,
            next_attempt_at: None.into(),
            applied_at: None.into(),
            reason: None.into(),
        }
    }

    /// An operation whose record cannot be read. Where not even its owner can be told, operators
    /// alone see it.
    fn quarantined(id: Version, of: Option<(Uuid, Lane)>) -> (Uuid, Self) {
        let (owner, lane) = of.unzip();
        let view = Self {
            id: id.as_uuid(),
            state: OperationState::Rejected,
            entity: lane.map_or(EntityName::Unknown, |lane: Lane| lane.kind.into()),
            entity_id: lane.map_or(Uuid::nil(), |lane| lane.id),
            action: ActionName::Unknown,
            priority: None.into(),
            attempts: None.into(),
            accepted_at: id.timestamp(),
            next_attempt_at: None.into(),
            applied_at: None.into(),
            reason: Some("quarantined".to_owned()).into(),
        };
        (owner.unwrap_or(Uuid::nil()), view)
    }

    fn discarded(id: Version, act: Act) -> (Uuid, Self) {
        let operation = act.operation.unwrap_or_default();
        let view = Self {
            id: id.as_uuid(),
            state: OperationState::Discarded,
            entity: EntityName::read(&operation.entity),
            entity_id: operation.entity_id,
            action: ActionName::read(&operation.action),
            priority: None.into(),
            attempts: None.into(),
            accepted_at: operation.accepted_at,
            next_attempt_at: None.into(),
            applied_at: None.into(),
            reason: Some(operation.reason).into(),
        };
        (operation.user_id, view)
    }

    fn settled(id: Version, entry: LedgerEntry) -> Self {
        Self {
            id: id.as_uuid(),
            state: entry.state.into(),
            entity: EntityName::read(&entry.entity),
            entity_id: entry.entity_id,
            action: ActionName::read(&entry.action),
            priority: None.into(),
            attempts: None.into(),
            accepted_at: entry.accepted_at,
            next_attempt_at: None.into(),
            applied_at: Some(entry.applied_at).into(),
            reason: entry.reason.into(),
        }
    }
}

/// The routes of operations.
pub struct OperationsApi;

#[OpenApi(prefix_path = "/api/v1")]
impl OperationsApi {
    /// Read what became of a write.
    ///
    /// Users see their own operations; operators and admins see all.
    #[oai(path = "/operations/:id", method = "get", operation_id = "readOperation")]
    async fn read(
        &self,
        #[oai(scope = "Permission::OperationRead")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        /// The operation's id: `meta.sync.operation_id` of the write's answer.
        id: Path<Uuid>,
    ) -> Result<Ready<OperationRead>, ApiError> {
        let data = find(&state, user.0, Version::from_uuid(id.0)).await?;
        Ok(OperationRead { data, meta: Meta::now(request.0) }.into())
    }
}

async fn find(state: &State, actor: Actor, id: Version) -> Result<OperationView, ApiError> {
    let (owner, view) = match state.buffer.find(id).await? {
        Some(Found::Pending { operation, attempts, not_before }) => {
            let mut view =
                OperationView::buffered(&operation, domain::OperationState::Pending, attempts);
            view.next_attempt_at = not_before.and_then(DateTime::from_timestamp_millis).into();
            (operation.actor.user_id, view)
        }
        Some(Found::Dead(letter)) => {
            let mut view =
                OperationView::buffered(&letter.operation, letter.state, letter.attempts);
            view.reason = Some(letter.reason).into();
            (letter.operation.actor.user_id, view)
        }
        Some(Found::Discarded(act)) => OperationView::discarded(id, act),
        Some(Found::Quarantined { of }) => OperationView::quarantined(id, of),
        None => settled(state, id).await?,
    };
    let may_see = owner == actor.user_id || Permission::BufferRead.is_given_to(actor.role);
    if may_see { Ok(view) } else { Err(Code::OperationNotFound.into()) }
}

/// What the ledger knows. An operation leaves the buffer only after its ledger row was committed,
/// so one that neither has was never accepted.
async fn settled(state: &State, id: Version) -> Result<(Uuid, OperationView), ApiError> {
    if !state.link.is_up() {
        return Err(Code::DatabaseUnavailable.into());
    }
    let entry =
        state.store.ledger_entry(id).await.inspect_err(|error| state.link.report(*error))?;
    let entry = entry.ok_or(Code::OperationNotFound)?;
    Ok((entry.user_id, OperationView::settled(id, entry)))
}
