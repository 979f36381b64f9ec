//! Sessions: login with a token of the identity provider, refresh, logout, and the list of a user's own
//! sessions.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::web::{Data, RemoteAddr};
use poem_openapi::param::Path;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::{Deserialize, Serialize};
use shared::buffer::unix_millis;
use shared::domain::{Actor, Change, EntityKind, Lane, SessionChange};
use shared::sessions::{Opened, RefreshToken, Renewal, Revocation, SessionTimes};
use uuid::Uuid;

use super::auth::{Authenticated, refused, welcome};
use super::body::JsonBody;
use super::code::Code;
use super::envelope::{Meta, WriteMeta};
use super::error::ApiError;
use super::ready::Ready;
use super::shell::{RequestId, Traceparent};
use super::written::{self, operation};
use crate::permission::Permission;
use crate::state::State;
use crate::tokens::ACCESS_SECONDS;

/// Clocks may differ by this much: a revocation is kept in mind for longer than tokens are good (ms).
const MARGIN_MS: i64 = 60_000;

/// The identity provider's word on who the client is.
#[derive(Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
pub struct Login {
    /// A token of the identity provider.
    #[oai(validator(max_length = 8192))]
    assertion: String,
}

/// The token that renews a session.
#[derive(Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
pub struct Refresh {
    /// The newest refresh token of the session. It is good for one use.
    #[oai(validator(max_length = 255))]
    refresh_token: String,
}

/// The tokens of a session.
#[derive(Serialize, Object)]
pub struct SessionTokens {
    /// The bearer token for the header `Authorization`.
    access_token: String,
    /// The token for `POST /api/v1/auth/refresh`. It is good for one use: a second use ends the session.
    refresh_token: String,
    /// Seconds until the access token expires.
    expires_in: u64,
    /// Always `Bearer`.
    token_type: String,
}

/// A session is open. These are its tokens.
#[derive(Serialize, Object)]
pub struct SessionGranted {
    /// The tokens.
    data: SessionTokens,
    /// About the answer.
    meta: Meta,
}

/// A session of the user.
#[derive(Serialize, Object)]
pub struct SessionView {
    /// The session's id.
    id: Uuid,
    /// When it was opened.
    created_at: DateTime<Utc>,
    /// When it was last renewed.
    used_at: DateTime<Utc>,
    /// True for the session that sent this request.
    current: bool,
}

/// The user's sessions.
#[derive(Serialize, Object)]
pub struct SessionList {
    /// The sessions, the newest first.
    data: Vec<SessionView>,
    /// About the answer.
    meta: Meta,
}

/// The id of a session that is being ended.
#[derive(Serialize, Object)]
pub struct EndingSession {
    /// The session's id.
    id: Uuid,
}

/// A session that is being ended.
#[derive(Serialize, Object)]
pub struct SessionEnding {
    /// The session that is being ended.
    data: EndingSession,
    /// About the answer.
    meta: WriteMeta,
}

/// What the end of a session is answered with.
#[derive(ApiResponse)]
pub enum Ended {
    /// The session has ended on all hosts.
    #[oai(status = 204)]
    Everywhere,
    /// Redis is away. The session has ended on this host, and ends on the others when Redis is back.
    #[oai(status = 202)]
    Here(Ready<SessionEnding>, #[oai(header = "Location")] String),
}

/// The routes of sessions.
pub struct SessionsApi;

#[OpenApi(prefix_path = "/api/v1/auth")]
impl SessionsApi {
    /// Log in: open a session with a token of the identity provider.
    #[oai(path = "/login", method = "post", operation_id = "login")]
    async fn login(
        &self,
        state: Data<&Arc<State>>,
        request: RequestId,
        peer: &RemoteAddr,
        body: JsonBody<Login>,
    ) -> Result<Ready<SessionGranted>, ApiError> {
        state.limits.check_login(peer)?;
        let actor = state
            .tokens
            .verify_assertion(&body.0.assertion)
            .map_err(|_| refused("assertion", Code::Unauthorized))?;
        welcome(&state, actor).await?;
        let lifetime = state.server.session_lifetime();
        let opened = state.sessions.open(actor.user_id, actor.role, lifetime).await?;
        tracing::info!(user_id = %actor.user_id, session_id = ?opened.actor.session_id, "opened");
        granted(&state, request, opened)
    }

    /// Renew a session.
    ///
    /// A refresh token is good for one use. Using it again ends the session.
    #[oai(path = "/refresh", method = "post", operation_id = "refresh")]
    async fn refresh(
        &self,
        state: Data<&Arc<State>>,
        request: RequestId,
        peer: &RemoteAddr,
        body: JsonBody<Refresh>,
    ) -> Result<Ready<SessionGranted>, ApiError> {
        state.limits.check_login(peer)?;
        let unknown = || refused("refresh", Code::Unauthorized);
        let token = RefreshToken::parse(&body.0.refresh_token).ok_or_else(unknown)?;
        let session_id = token.session_id();
        // Before it is renewed: of many requests with one token, those that come second end the session,
        // and the first is answered all the same.
        if let Some(user_id) = state.sessions.owner(session_id).await?
            && has_ended_here(&state, user_id, session_id).await?
        {
            // What waits in the buffer does it again, should Redis not do it now.
            let _ = state.sessions.revoke(user_id, session_id).await;
            return Err(unknown());
        }
        match state.sessions.renew(&token).await? {
            Renewal::Unknown => Err(unknown()),
            Renewal::Reused(user_id) => {
                tracing::warn!(%session_id, "a refresh token was used twice: its session has ended");
                keep_in_mind(&state, user_id, session_id).await?;
                Err(refused("reuse", Code::Unauthorized))
            }
            Renewal::Renewed(opened) => {
                welcome(&state, opened.actor).await?;
                granted(&state, request, opened)
            }
        }
    }

    /// Log out: end the session of this access token.
    #[oai(path = "/logout", method = "post", operation_id = "logout")]
    async fn logout(
        &self,
        #[oai(scope = "Permission::SessionWrite")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        trace: Traceparent,
    ) -> Result<Ended, ApiError> {
        let session_id = user.0.session_id.ok_or(Code::NoSession)?;
        end(&state, user.0, session_id, request, trace).await
    }

    /// List your sessions, the newest first.
    #[oai(path = "/sessions", method = "get", operation_id = "listSessions")]
    async fn list(
        &self,
        #[oai(scope = "Permission::SessionRead")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
    ) -> Result<Ready<SessionList>, ApiError> {
        let found = state.sessions.of_user(user.0.user_id).await?;
        let view = |session: SessionTimes| SessionView {
            id: session.id,
            created_at: session.created_at,
            used_at: session.used_at,
            current: user.0.session_id == Some(session.id),
        };
        let data = found.into_iter().map(view).collect();
        Ok(SessionList { data, meta: Meta::now(request.0) }.into())
    }

    /// End a session of yours.
    #[oai(path = "/sessions/:id", method = "delete", operation_id = "endSession")]
    async fn delete(
        &self,
        #[oai(scope = "Permission::SessionWrite")] user: Authenticated,
        state: Data<&Arc<State>>,
        request: RequestId,
        trace: Traceparent,
        /// The session's id.
        id: Path<Uuid>,
    ) -> Result<Ended, ApiError> {
        end(&state, user.0, id.0, request, trace).await
    }
}

fn granted(
    state: &State,
    request: RequestId,
    opened: Opened,
) -> Result<Ready<SessionGranted>, ApiError> {
    let access_token = state.tokens.access(opened.actor).map_err(|error| {
        tracing::error!(%error, "an access token cannot be signed");
        Code::Internal
    })?;
    let data = SessionTokens {
        access_token,
        refresh_token: opened.refresh.reveal(),
        expires_in: ACCESS_SECONDS,
        token_type: "Bearer".to_owned(),
    };
    Ok(SessionGranted { data, meta: Meta::now(request.0) }.into())
}

/// Ends a session of the actor: in Redis, or by way of the buffer while that is away.
async fn end(
    state: &State,
    actor: Actor,
    session_id: Uuid,
    request: RequestId,
    trace: Traceparent,
) -> Result<Ended, ApiError> {
    let own = actor.session_id == Some(session_id);
    let kept = match own {
        true => keep_in_mind(state, actor.user_id, session_id).await,
        false => Ok(()),
    };
    match state.sessions.revoke(actor.user_id, session_id).await {
        Ok(Revocation::Absent | Revocation::Foreign) if !own => Err(Code::SessionNotFound.into()),
        Ok(Revocation::Revoked | Revocation::Absent | Revocation::Foreign) => {
            let kept = match own {
                true => kept,
                false => keep_in_mind(state, actor.user_id, session_id).await,
            };
            if kept.is_err() {
                tracing::error!(%session_id, "a session has ended in Redis alone");
            }
            Ok(Ended::Everywhere)
        }
        Err(away) => {
            kept?;
            tracing::warn!(%away, %session_id, "a session is ended by way of the buffer");
            let change = Change::Session(SessionChange::Revoke { session_id });
            let operation = operation(state, actor, change, request, trace);
            // First, since the user's share of the buffer bounds what is kept in mind.
            let kept = written::keep(state, operation).await?;
            if !own {
                keep_in_mind(state, actor.user_id, session_id).await?;
            }
            let body = SessionEnding { data: EndingSession { id: session_id }, meta: kept.meta };
            Ok(Ended::Here(body.into(), kept.location))
        }
    }
}

/// Whether a session was ended on this host and Redis may not know it yet: its end is kept in mind, or
/// still waits in the buffer, which may take longer than any access token is good.
async fn has_ended_here(state: &State, user_id: Uuid, session_id: Uuid) -> Result<bool, ApiError> {
    if state.buffer.is_revoked(user_id, session_id).await? {
        return Ok(true);
    }
    let lane = Lane { kind: EntityKind::Session, id: session_id };
    let waiting = state.buffer.lane(lane).await?;
    Ok(waiting.iter().any(|operation| operation.actor.user_id == user_id))
}

/// Keeps in mind on this host, as long as its access tokens are good, that a session has ended: Redis
/// may be away, or lose its memory.
async fn keep_in_mind(state: &State, user_id: Uuid, session_id: Uuid) -> Result<(), ApiError> {
    let good_for = i64::try_from(ACCESS_SECONDS).unwrap_or(i64::MAX).saturating_mul(1000);
    let until = unix_millis().saturating_add(good_for).saturating_add(MARGIN_MS);
    Ok(state.buffer.revoke(user_id, session_id, until).await?)
}
