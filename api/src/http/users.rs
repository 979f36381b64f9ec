//! Users, for admins: list them, show one, set role or standing, erase.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};
use serde::Deserialize;
use shared::domain::{
    self, Actor, Change, EntityKind, Invalid, Lane, Profile, Role, Standing, apply_to_profile,
};
use shared::store::Entity;
use uuid::Uuid;

use super::auth::Authenticated;
use super::body::JsonBody;
use super::code::Code;
use super::envelope::{Meta, PartMeta};
use super::error::ApiError;
use super::parameters::in_range;
use super::ready::Ready;
use super::shell::{RequestId, Traceparent};
use super::task_input::present;
use super::user_view::{
    Erased, ErasedUser, UserErasing, UserList, UserRead, UserView, UserWritten,
};
use super::written::{Accepted, Buffered, Changed, operation, submit};
use crate::permission::Permission;
use crate::state::State;

const DEFAULT_LIMIT: u64 = 50;
const MAX_LIMIT: u64 = 500;

/// A user's new role, status, or both.
#[derive(Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
pub struct UserChange {
    /// The new role. It counts from now on, whatever role the user's token names.
    #[serde(default, deserialize_with = "present")]
    role: Option<String>,
    /// The new status.
    #[serde(default, deserialize_with = "present")]
    status: Option<String>,
}

impl UserChange {
    fn parse(self, user_id: Uuid) -> Result<Change, ApiError> {
        let invalid = |field: &'static str| {
            move |invalid: Invalid| ApiError::field(field, invalid.to_string())
        };
        let role = self.role.as_deref().map(Role::parse).transpose().map_err(invalid("role"))?;
        let standing = self.status.as_deref().map(Standing::parse).transpose();
        let standing = standing.map_err(invalid("status"))?;
        if role.is_none() && standing.is_none() {
            return Err(ApiError::field("body", "must name role or status"));
        }
        Ok(Change::User(domain::UserChange::SetStanding { user_id, role, standing }))
    }
}

/// The routes of users.
pub struct UsersApi;

#[OpenApi(prefix_path = "/api/v1/users")]
impl UsersApi {
    /// List users in the order of their ids. For admins.
    ///
    /// It needs PostgreSQL.
    #[oai(path = "/", method = "get", operation_id = "listUsers")]
    #[allow(clippy::too_many_arguments)]
    async fn list(
        &self,
        #[oai(scope = "Permission::UserRead")] _admin: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        /// List users of this role only.
        role: Query<Option<String>>,
        /// List users of this status only.
        status: Query<Option<String>>,
        /// The `meta.next_cursor` of the part before.
        cursor: Query<Option<Uuid>>,
        /// Users in a part, up to 500. The default is 50.
        #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
        limit: Query<Option<u64>>,
    ) -> Result<Ready<UserList>, ApiError> {
        let limit = in_range("limit", limit.0.unwrap_or(DEFAULT_LIMIT), MAX_LIMIT)?;
        let invalid = |name: &'static str| {
            move |invalid: Invalid| ApiError::parameter(name, invalid.to_string())
        };
        let role = role.0.as_deref().map(Role::parse).transpose().map_err(invalid("role"))?;
        let standing = status.0.as_deref().map(Standing::parse).transpose();
        let standing = standing.map_err(invalid("status"))?;
        if !state.link.is_up() {
            return Err(Code::DatabaseUnavailable.into());
        }
        let after = cursor.0.unwrap_or(Uuid::nil());
        let found = state.store.profiles(after, role, standing, limit + 1).await;
        let mut found = found.inspect_err(|error| state.link.report(*error))?;
        state.clock.saw(found.iter().map(Profile::version).collect::<Vec<_>>()).await;
        let more = found.len() > usize::try_from(limit).unwrap_or(usize::MAX);
        if more {
            found.pop();
        }
        let next = found.last().filter(|_| more).map(|last| last.user_id.to_string());
        let data = found.iter().map(UserView::of).collect();
        Ok(UserList { data, meta: PartMeta::now(request.0, limit, next) }.into())
    }

    /// Read a user. For admins.
    #[oai(path = "/:id", method = "get", operation_id = "readUser")]
    async fn read(
        &self,
        #[oai(scope = "Permission::UserRead")] _admin: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        /// The user's id.
        id: Path<Uuid>,
    ) -> Result<Ready<UserRead>, ApiError> {
        let data = find(&state, id.0).await?;
        Ok(UserRead { data, meta: Meta::now(request.0) }.into())
    }

    /// Set a user's role, status, or both. For admins.
    ///
    /// They count within a few seconds, whatever role the user's token names.
    #[oai(path = "/:id", method = "patch", operation_id = "changeUser")]
    async fn change(
        &self,
        #[oai(scope = "Permission::UserWrite")] admin: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        trace: Traceparent,
        /// The user's id.
        id: Path<Uuid>,
        body: JsonBody<UserChange>,
    ) -> Result<Changed<UserWritten>, ApiError> {
        let change = body.0.parse(id.0)?;
        if admin.0.user_id == id.0 {
            return Err(Code::OwnAccount.into());
        }
        tracing::warn!(by = %admin.0.user_id, request_id = %request.0, ?change, "an admin sets a role or standing");
        let operation = operation(&state, admin.0, change, request, trace);
        let asked = UserView::asked(id.0, &operation);
        let accepted = submit(&state, operation).await;
        state.standings.forget(id.0).await;
        Ok(match accepted? {
            Accepted::Committed { entity, meta } | Accepted::Repeated { entity, meta } => {
                let profile = entity.and_then(Entity::into_profile);
                let data = profile.as_ref().map_or(asked, UserView::of);
                Changed::Committed(UserWritten { data, meta }.into())
            }
            Accepted::Buffered(Buffered { location, meta, .. }) => {
                Changed::Buffered(UserWritten { data: asked, meta }.into(), location)
            }
        })
    }

    /// Erase a user for good. For admins.
    ///
    /// Removes the user's tasks, preferences and sessions, and what the buffer of this host holds of the user.
    #[oai(path = "/:id", method = "delete", operation_id = "eraseUser")]
    async fn erase(
        &self,
        #[oai(scope = "Permission::UserWrite")] admin: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        trace: Traceparent,
        /// The user's id.
        id: Path<Uuid>,
    ) -> Result<Erased, ApiError> {
        if admin.0.user_id == id.0 {
            return Err(Code::OwnAccount.into());
        }
        tracing::warn!(by = %admin.0.user_id, request_id = %request.0, user_id = %id.0, "an admin erases a user");
        let change = Change::User(domain::UserChange::Erase { user_id: id.0 });
        let operation = operation(&state, admin.0, change, request, trace);
        let accepted = submit(&state, operation).await;
        state.standings.forget(id.0).await;
        let accepted = accepted?;
        // An admin of whom this process has read nothing may be none any more: replay will tell, and
        // the worker empties the buffer then.
        let believed = match accepted {
            Accepted::Committed { .. } | Accepted::Repeated { .. } => true,
            Accepted::Buffered(_) => state.standings.knows(admin.0.user_id),
        };
        if believed {
            empty(&state, admin.0, id.0).await?;
        }
        Ok(match accepted {
            Accepted::Committed { .. } | Accepted::Repeated { .. } => Erased::Everywhere,
            Accepted::Buffered(Buffered { location, meta, .. }) => {
                let body = UserErasing { data: ErasedUser { id: id.0 }, meta };
                Erased::Here(body.into(), location)
            }
        })
    }
}

/// A user with what is pending laid over.
async fn find(state: &State, user_id: Uuid) -> Result<UserView, ApiError> {
    let pending = state.buffer.lane(Lane { kind: EntityKind::Profile, id: user_id }).await?;
    let stored = if state.link.is_up() {
        let found = state.store.profile(user_id).await;
        let found = found.inspect_err(|error| state.link.report(*error))?;
        state.clock.saw(found.iter().map(Profile::version).collect::<Vec<_>>()).await;
        Some(found)
    } else {
        None
    };
    let known = stored.is_some();
    let first_seen =
        || pending.first().map(|first| Profile::first_seen(user_id, first.accepted_at));
    let Some(mut profile) = stored.flatten().or_else(first_seen) else {
        let code = if known { Code::UserNotFound } else { Code::DatabaseUnavailable };
        return Err(code.into());
    };
    for operation in &pending {
        apply_to_profile(&mut profile, operation);
    }
    if profile.erased_at.is_some() {
        return Err(Code::UserNotFound.into());
    }
    Ok(if known { UserView::of(&profile) } else { UserView::as_set(&profile) })
}

/// Removes what is left of a user in PostgreSQL and on this host. Once begun it is finished, also if the
/// admin hangs up or the deadline passes.
async fn empty(state: &State, admin: Actor, user_id: Uuid) -> Result<(), ApiError> {
    let of = state.clone();
    let emptied = state.tasks.spawn(async move {
        while of.link.is_up()
            && of.store.purge_erased().await.inspect_err(|error| of.link.report(*error))? > 0
        {
        }
        of.writes.known().forget_user(user_id);
        // Redis away: sessions hold no personal data, erased users cannot use them, and they end.
        let _ = of.sessions.revoke_all(user_id).await;
        let erased = of.buffer.erase_user(user_id, &admin.user_id.to_string()).await?;
        tracing::warn!(%user_id, ?erased, "what the buffer held of a user was erased");
        Ok::<(), ApiError>(())
    });
    emptied.await.map_err(|_| Code::Internal)?
}
