//! The one place where errors become HTTP: a status, a code, a message, and the field if there is
//! one. Nothing internal is told: no SQL, paths or versions.

use poem::error::{MethodNotAllowedError, NotFoundError, ReadBodyError, ResponseError};
use poem::http::StatusCode;
use poem::http::header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use poem::{IntoResponse, Response};
use poem_openapi::error::{AuthorizationError, ContentTypeError, ParseParamError, ParsePathError};
use poem_openapi::payload::Payload;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::{ApiResponse, Object};
use serde::Serialize;
use shared::buffer::{BufferError, OperatorError};
use shared::domain::{EntityKind, Refusal};
use shared::redis::RedisAway;
use shared::store::StoreError;
use shared::writes::WriteError;
use thiserror::Error;
use uuid::Uuid;

use super::body::Ready;
use super::envelope::Meta;
use crate::limits::Limited;

/// Seconds after which a client that was turned away may come back.
const RETRY_AFTER_SECONDS: u64 = 1;

/// What is wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Object)]
pub struct FieldProblem {
    /// The field, parameter or header.
    pub field: String,
    /// What would be accepted.
    pub message: String,
}

/// What is wrong.
#[derive(Debug, Serialize, Object)]
pub struct ErrorBody {
    /// For programs, for example `TASK_NOT_FOUND`.
    pub code: String,
    /// For people.
    pub message: String,
    /// The fields at fault, if any.
    pub details: Vec<FieldProblem>,
}

/// The envelope of every failure.
#[derive(Debug, Serialize, Object)]
pub struct ErrorEnvelope {
    /// What is wrong.
    pub error: ErrorBody,
    /// About the answer.
    pub meta: Meta,
}

/// A failure on its way to the client.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{code}")]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
    details: Vec<FieldProblem>,
    retry_after_seconds: u64,
}

impl ApiError {
    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self {
            status,
            code,
            message,
            details: Vec::new(),
            retry_after_seconds: RETRY_AFTER_SECONDS,
        }
    }

    /// Fields that cannot be accepted.
    #[must_use]
    pub fn fields(details: Vec<FieldProblem>) -> Self {
        let message = "the request has fields that cannot be accepted";
        Self { details, ..Self::new(StatusCode::BAD_REQUEST, "INVALID_FIELD", message) }
    }

    /// One field that cannot be accepted.
    #[must_use]
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::fields(vec![FieldProblem { field: field.to_owned(), message: message.into() }])
    }

    /// A parameter or header that cannot be accepted.
    #[must_use]
    pub fn parameter(name: &str, message: impl Into<String>) -> Self {
        let details = vec![FieldProblem { field: name.to_owned(), message: message.into() }];
        let what = "the request has a parameter that cannot be accepted";
        Self { details, ..Self::new(StatusCode::BAD_REQUEST, "INVALID_PARAMETER", what) }
    }

    /// A body that is no JSON.
    #[must_use]
    pub fn malformed(message: String) -> Self {
        let details = vec![FieldProblem { field: "body".to_owned(), message }];
        let what = "the body is not valid JSON";
        Self { details, ..Self::new(StatusCode::BAD_REQUEST, "MALFORMED_JSON", what) }
    }

    /// A body over the limit.
    pub const TOO_LARGE: Self =
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", "the body is too large");

    /// A body that did not come in time.
    pub const REQUEST_TIMEOUT: Self =
        Self::new(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "the body did not come in time");

    /// A body that could not be read.
    pub const UNREADABLE: Self =
        Self::new(StatusCode::BAD_REQUEST, "UNREADABLE_BODY", "the body could not be read");

    /// A body that is not JSON by its own word, or is compressed.
    pub const UNSUPPORTED_MEDIA_TYPE: Self = Self::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UNSUPPORTED_MEDIA_TYPE",
        "send application/json, not compressed",
    );

    /// No token, or one that is not accepted.
    pub const UNAUTHORIZED: Self =
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "a valid bearer token is needed");

    /// A user who has been suspended.
    pub const USER_SUSPENDED: Self =
        Self::new(StatusCode::FORBIDDEN, "USER_SUSPENDED", "this user has been suspended");

    /// A token that belongs to no session, where one is to be ended.
    pub const NO_SESSION: Self =
        Self::new(StatusCode::CONFLICT, "NO_SESSION", "this token belongs to no session of ours");

    /// A session that is not there, or is somebody else's.
    pub const SESSION_NOT_FOUND: Self =
        Self::new(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND", "there is no such session");

    /// Sessions cannot be opened, renewed or listed while Redis is away.
    pub const SESSION_STORE_UNAVAILABLE: Self = Self::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "SESSION_STORE_UNAVAILABLE",
        "sessions cannot be reached now",
    );

    /// A user that has not been seen, or has been erased.
    pub const USER_NOT_FOUND: Self =
        Self::new(StatusCode::NOT_FOUND, "USER_NOT_FOUND", "there is no such user");

    /// Admins cannot erase themselves, nor set their own role or standing.
    pub const OWN_ACCOUNT: Self =
        Self::new(StatusCode::CONFLICT, "OWN_ACCOUNT", "another admin must do this");

    /// A user whose role does not allow it.
    pub const FORBIDDEN: Self =
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", "this is not allowed for this role");

    /// A page that is not listed in `CORS_ORIGINS`.
    pub const ORIGIN_NOT_ALLOWED: Self = Self::new(
        StatusCode::FORBIDDEN,
        "ORIGIN_NOT_ALLOWED",
        "pages of this origin may not call this service",
    );

    /// A connection over the limit.
    pub const TOO_MANY_CONNECTIONS: Self = Self::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "TOO_MANY_CONNECTIONS",
        "too many connections are open",
    );

    /// A task that is not there, deleted, or somebody else's.
    pub const TASK_NOT_FOUND: Self =
        Self::new(StatusCode::NOT_FOUND, "TASK_NOT_FOUND", "there is no such task");

    /// An operation that is not known, or is somebody else's.
    pub const OPERATION_NOT_FOUND: Self =
        Self::new(StatusCode::NOT_FOUND, "OPERATION_NOT_FOUND", "there is no such operation");

    /// An idempotency key whose task has been deleted.
    pub const TASK_DELETED: Self = Self::new(
        StatusCode::CONFLICT,
        "TASK_DELETED",
        "the task made with this Idempotency-Key has been deleted",
    );

    /// What is asked for can be told only by a database that is away.
    pub const DATABASE_UNAVAILABLE: Self = Self::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "DATABASE_UNAVAILABLE",
        "this cannot be told while the database is away",
    );

    /// More waits than this process takes on.
    pub const OVERLOADED: Self =
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", "too many requests are waiting");

    /// No answer could be given within the deadline.
    pub const DEADLINE_EXCEEDED: Self = Self::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "DEADLINE_EXCEEDED",
        "no answer could be given in time; the request may or may not have been carried out",
    );

    /// What the write was sent to failed in the middle of it.
    pub const OUTCOME_UNKNOWN: Self = Self::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "OUTCOME_UNKNOWN",
        "it is not known whether this was carried out; look before you repeat it",
    );

    /// A mistake of this program.
    pub const INTERNAL: Self =
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "this should not have happened");

    /// The status it is answered with.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer to the request with this id.
    #[must_use]
    pub fn into_answer(self, request_id: Uuid) -> Response {
        let retry = self.status == StatusCode::SERVICE_UNAVAILABLE
            || self.status == StatusCode::TOO_MANY_REQUESTS;
        let status = self.status;
        let body = ErrorEnvelope {
            error: ErrorBody {
                code: self.code.to_owned(),
                message: self.message.to_owned(),
                details: self.details,
            },
            meta: Meta::now(request_id),
        };
        let mut response = Ready::from(body).into_response();
        response.set_status(status);
        if retry {
            response.headers_mut().insert(RETRY_AFTER, self.retry_after_seconds.into());
        }
        if status == StatusCode::REQUEST_TIMEOUT {
            let close = poem::http::HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        if status == StatusCode::UNAUTHORIZED {
            let bearer = poem::http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

impl ResponseError for ApiError {
    fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<Limited> for ApiError {
    fn from(limited: Limited) -> Self {
        let message = "too many requests; Retry-After says when to come back";
        Self {
            retry_after_seconds: limited.retry_after_seconds,
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", message)
        }
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(refusal) => refusal.into(),
            WriteError::Buffer(error) => error.into(),
            WriteError::Unknown(error) => {
                tracing::error!(%error, "a write of unknown outcome could not be buffered");
                Self::OUTCOME_UNKNOWN
            }
            WriteError::Overloaded => Self::OVERLOADED,
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound(kind) | Refusal::NotOwner(kind) => Self::not_found(kind),
            Refusal::Suspended | Refusal::Erased => Self::USER_SUSPENDED,
            Refusal::NotAllowed => Self::FORBIDDEN,
            Refusal::PreconditionFailed(kind) | Refusal::VersionNotFound(kind) => {
                Self::of_another_version(kind)
            }
            Refusal::Data(_) => Self::new(
                StatusCode::CONFLICT,
                "DATA_REFUSED",
                "the database does not accept this data",
            ),
            Refusal::Internal(_) | Refusal::Busy => Self::INTERNAL,
        }
    }
}

impl ApiError {
    /// That an entity of this kind is not there.
    fn not_found(kind: EntityKind) -> Self {
        match kind {
            EntityKind::Task => Self::TASK_NOT_FOUND,
            EntityKind::Profile => Self::USER_NOT_FOUND,
            EntityKind::Session => Self::SESSION_NOT_FOUND,
            // It is one, and always there.
            EntityKind::Cache => Self::INTERNAL,
        }
    }

    /// That an entity of this kind does not have the version that a client asserts.
    fn of_another_version(kind: EntityKind) -> Self {
        let message = match kind {
            EntityKind::Task => "the task has another version than If-Match names",
            EntityKind::Profile => "the user has another version than If-Match names",
            EntityKind::Session => "the session has another version than If-Match names",
            EntityKind::Cache => "the cache has another version than If-Match names",
        };
        Self::new(StatusCode::PRECONDITION_FAILED, "PRECONDITION_FAILED", message)
    }

    /// What the buffer's refusal comes to.
    #[must_use]
    pub fn buffer(error: &BufferError) -> Self {
        const BUSY: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
        match error {
            BufferError::Full => Self::new(
                BUSY,
                "BUFFER_FULL",
                "the database is away and the buffer is full; nothing was kept",
            ),
            BufferError::UserShare => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "USER_BUFFER_QUOTA",
                "the database is away and this user's share of the buffer is used up",
            ),
            BufferError::LaneFull => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "LANE_BUFFER_QUOTA",
                "the database is away and too many changes of this task are waiting",
            ),
            BufferError::OutcomeUnknown(_) => {
                tracing::error!(%error, "the buffer failed in mid-write");
                Self::OUTCOME_UNKNOWN
            }
            BufferError::LowDisk
            | BufferError::Timeout
            | BufferError::Unavailable(_)
            | BufferError::Damaged(_)
            | BufferError::Redb(_) => {
                tracing::error!(%error, "the buffer cannot be used");
                Self::new(BUSY, "BUFFER_UNAVAILABLE", "the buffer cannot take this now")
            }
        }
    }
}

impl From<BufferError> for ApiError {
    fn from(error: BufferError) -> Self {
        Self::buffer(&error)
    }
}

impl From<OperatorError> for ApiError {
    fn from(error: OperatorError) -> Self {
        let conflict = |code, message| Self::new(StatusCode::CONFLICT, code, message);
        match error {
            OperatorError::NotFound => Self::OPERATION_NOT_FOUND,
            OperatorError::Pending => {
                conflict("OPERATION_PENDING", "the operation is pending, and no dead letter")
            }
            OperatorError::Quarantined => {
                conflict("OPERATION_QUARANTINED", "the operation's record is damaged")
            }
            OperatorError::AlreadyDiscarded => {
                conflict("ALREADY_DISCARDED", "the operation has been discarded already")
            }
            OperatorError::AlreadyPaused => conflict("ALREADY_PAUSED", "replay is paused already"),
            OperatorError::NotPaused => conflict("NOT_PAUSED", "replay is not paused"),
            OperatorError::Buffer(error) => error.into(),
        }
    }
}

impl From<RedisAway> for ApiError {
    fn from(_: RedisAway) -> Self {
        Self::SESSION_STORE_UNAVAILABLE
    }
}

impl From<StoreError> for ApiError {
    fn from(_: StoreError) -> Self {
        Self::DATABASE_UNAVAILABLE
    }
}

/// Makes a failure of ours of whatever poem and poem-openapi came up with, by its type.
#[must_use]
pub fn classify(error: &poem::Error) -> ApiError {
    if let Some(error) = error.downcast_ref::<ApiError>() {
        return error.clone();
    }
    if error.is::<NotFoundError>() {
        return ApiError::new(StatusCode::NOT_FOUND, "ROUTE_NOT_FOUND", "there is no such route");
    }
    if error.is::<MethodNotAllowedError>() {
        return ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            "this route does not have this method",
        );
    }
    if error.is::<AuthorizationError>() {
        return ApiError::UNAUTHORIZED;
    }
    if let Some(error) = error.downcast_ref::<ParseParamError>() {
        return ApiError::parameter(error.name, "does not have the form that is documented");
    }
    if let Some(error) = error.downcast_ref::<ParsePathError>() {
        return ApiError::parameter(error.name, "does not have the form that is documented");
    }
    if error.is::<ContentTypeError>() {
        return ApiError::UNSUPPORTED_MEDIA_TYPE;
    }
    if error.is::<ReadBodyError>() {
        return ApiError::UNREADABLE;
    }
    if error.status().is_client_error() {
        let message = "the request cannot be accepted";
        return ApiError::new(error.status(), "BAD_REQUEST", message);
    }
    tracing::error!(status = error.status().as_u16(), "an error of the framework without a code");
    ApiError::INTERNAL
}

/// The failures that any route may answer with, for OpenAPI.
const DOCUMENTED: [(u16, &str); 12] = [
    (400, "Something in the request cannot be accepted; `details` names the field"),
    (401, "No token, or one that is not accepted"),
    (403, "Not allowed for this user, or from a page of this origin"),
    (404, "Not there, deleted, or somebody else's"),
    (408, "The body did not come in time"),
    (409, "In conflict with what is stored"),
    (412, "The task has another version than `If-Match` names"),
    (413, "The body is over the limit"),
    (415, "The body is not `application/json`, or is compressed"),
    (
        429,
        "Too many requests, or the user's share of the buffer, or the task's, is used up; \
         `Retry-After` says when to come back",
    ),
    (500, "A mistake of this program"),
    (503, "Neither the database nor the buffer can answer; `Retry-After` says when to come back"),
];

impl ApiResponse for ApiError {
    fn meta() -> MetaResponses {
        let responses = DOCUMENTED
            .into_iter()
            .map(|(status, description)| MetaResponse {
                description,
                status: Some(status),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: Ready::<ErrorEnvelope>::CONTENT_TYPE,
                    schema: Ready::<ErrorEnvelope>::schema_ref(),
                }],
                headers: Vec::new(),
            })
            .collect();
        MetaResponses { responses }
    }

    fn register(registry: &mut Registry) {
        <Ready<ErrorEnvelope> as Payload>::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::{
        Actor, Change, Clock, Operation, Outcome, Preferences, Profile, ProfileChange, Role,
        TaskChange, apply_to_profile, apply_to_task,
    };

    use super::*;

    fn operation(change: Change) -> Operation {
        Operation {
            id: Clock::default().next(),
            actor: Actor { user_id: Uuid::from_u128(1), role: Role::User, session_id: None },
            change,
            accepted_at: chrono::DateTime::UNIX_EPOCH,
            request_id: Uuid::nil(),
            traceparent: None,
        }
    }

    fn answer(outcome: Outcome) -> ApiError {
        match outcome {
            Outcome::Refused(refusal) => refusal.into(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_there_is_called_what_it_is() {
        let delete = TaskChange::Delete { task_id: Uuid::from_u128(2), if_match: None };
        let delete = operation(Change::Task(delete));
        assert_eq!(answer(apply_to_task(&mut None, &delete)), ApiError::TASK_NOT_FOUND);
        let put =
            operation(Change::Profile(ProfileChange::Put { preferences: Preferences::default() }));
        let mut of_another = Profile::first_seen(Uuid::from_u128(3), put.accepted_at);
        assert_eq!(answer(apply_to_profile(&mut of_another, &put)), ApiError::USER_NOT_FOUND);
        let of_session = ApiError::from(Refusal::NotFound(EntityKind::Session));
        assert_eq!(of_session, ApiError::SESSION_NOT_FOUND);
    }
}
