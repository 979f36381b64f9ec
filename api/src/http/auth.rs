//! Authentication: turns the bearer token of a request into an actor, and checks whether that actor may
//! make the request.

use std::sync::Arc;

use poem::Request;
use poem_openapi::SecurityScheme;
use poem_openapi::auth::Bearer;
use shared::domain::{Actor, Role, Standing};
use uuid::Uuid;

use super::code::Code;
use super::error::ApiError;
use crate::metric;
use crate::state::State;

/// A request by a known user who may make it.
#[derive(SecurityScheme)]
#[oai(ty = "bearer", bearer_format = "JWT", checker = "check", rename = "bearer")]
pub struct Authenticated(pub Actor);

async fn check(request: &Request, bearer: Bearer) -> poem::Result<Actor> {
    let state = request.data::<Arc<State>>().ok_or(ApiError::from(Code::Internal))?;
    Ok(admit(state, request, &bearer.token).await?)
}

async fn admit(state: &State, request: &Request, token: &str) -> Result<Actor, ApiError> {
    let actor = state.tokens.verify(token).map_err(|denied| {
        tracing::debug!(%denied, "a bearer token was refused");
        refused("token", Code::Unauthorized)
    })?;
    state.limits.check_user(actor.user_id)?;
    if let Some(session_id) = actor.session_id
        && !goes_on(state, actor.user_id, session_id).await?
    {
        return Err(refused("session", Code::Unauthorized));
    }
    let role = welcome(state, actor).await?;
    let needed = state.routes.needed_for(request);
    if !needed.is_some_and(|permission| permission.is_given_to(role)) {
        return Err(refused("role", Code::Forbidden));
    }
    Ok(Actor { role, ..actor })
}

/// The role that counts for a user, unless they have been suspended.
pub(super) async fn welcome(state: &State, actor: Actor) -> Result<Role, ApiError> {
    let rights = state.standings.of(actor.user_id, actor.role).await?;
    match rights.standing {
        Standing::Suspended => Err(refused("suspended", Code::UserSuspended)),
        Standing::Active | Standing::Inactive => Ok(rights.role),
    }
}

/// Whether a session goes on, as far as can be told: with Redis away an access token stays good by its
/// signature, unless its session was revoked on this host.
async fn goes_on(state: &State, user_id: Uuid, session_id: Uuid) -> Result<bool, ApiError> {
    if state.buffer.is_revoked(user_id, session_id).await? {
        return Ok(false);
    }
    Ok(state.sessions.goes_on(session_id).await.unwrap_or(true))
}

/// Counts a refusal.
pub(super) fn refused(reason: &'static str, code: Code) -> ApiError {
    metrics::counter!(metric::AUTH_FAILURES.name, "reason" => reason).increment(1);
    code.into()
}
