//! The one place where errors become HTTP answers. Each error becomes a code, whose status and message
//! are in `code.rs`. The answer also names the fields at fault, if there are any. It reveals nothing
//! internal: no SQL, paths or versions.

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
use shared::domain::Refusal;
use shared::redis::RedisAway;
use shared::store::StoreError;
use shared::writes::WriteError;
use thiserror::Error;
use uuid::Uuid;

use super::code::Code;
use super::envelope::Meta;
use super::ready::Ready;
use crate::limits::Limited;
use crate::reads::ReadError;
use crate::standings::StandingUnknown;

/// Seconds after which a client that was turned away may come back.
const RETRY_AFTER_SECONDS: u64 = 1;

/// A field, parameter or header that is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Object)]
pub struct FieldProblem {
    /// Its name.
    pub field: String,
    /// What would be accepted instead.
    pub message: String,
}

/// What went wrong.
#[derive(Debug, Serialize, Object)]
pub struct ErrorBody {
    /// Why it failed, for programs.
    pub code: Code,
    /// Why it failed and what to do next, for people. The text may change.
    pub message: String,
    /// The fields, parameters or headers at fault; empty for most codes.
    pub details: Vec<FieldProblem>,
}

/// The body of every answer that tells of a failure.
#[derive(Debug, Serialize, Object)]
pub struct ErrorEnvelope {
    /// What went wrong.
    pub error: ErrorBody,
    /// About the answer.
    pub meta: Meta,
}

/// A failure on its way to the client.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{code}")]
pub struct ApiError {
    code: Code,
    details: Vec<FieldProblem>,
    retry_after_seconds: u64,
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Self { code, details: Vec::new(), retry_after_seconds: RETRY_AFTER_SECONDS }
    }
}

impl ApiError {
    /// Fields that cannot be accepted.
    #[must_use]
    pub fn fields(details: Vec<FieldProblem>) -> Self {
        Self { details, ..Code::InvalidField.into() }
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
        Self { details, ..Code::InvalidParameter.into() }
    }

    /// A body that is no JSON.
    #[must_use]
    pub fn malformed(message: String) -> Self {
        let details = vec![FieldProblem { field: "body".to_owned(), message }];
        Self { details, ..Code::MalformedJson.into() }
    }

    /// The answer to the request with this id.
    #[must_use]
    pub fn into_answer(self, request_id: Uuid) -> Response {
        let status = self.code.status();
        let body = ErrorEnvelope {
            error: ErrorBody {
                code: self.code,
                message: self.code.message().to_owned(),
                details: self.details,
            },
            meta: Meta::now(request_id),
        };
        let mut response = Ready::from(body).into_response();
        response.set_status(status);
        if has_retry_after(status) {
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

/// Whether a failure with this status says when to come back.
pub(super) fn has_retry_after(status: StatusCode) -> bool {
    status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS
}

impl ResponseError for ApiError {
    fn status(&self) -> StatusCode {
        self.code.status()
    }
}

impl From<Limited> for ApiError {
    fn from(limited: Limited) -> Self {
        let retry_after_seconds = limited.retry_after_seconds;
        Self { retry_after_seconds, ..Code::RateLimited.into() }
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(refusal) => refusal.into(),
            WriteError::Buffer(error) => error.into(),
            WriteError::Unknown(error) => {
                tracing::error!(%error, "a write of unknown outcome could not be buffered");
                Code::OutcomeUnknown.into()
            }
            WriteError::Overloaded => Code::Overloaded.into(),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NotFound(kind) | Refusal::NotOwner(kind) => Code::not_found(kind),
            Refusal::Suspended | Refusal::Erased => Code::UserSuspended,
            Refusal::NotAllowed => Code::Forbidden,
            Refusal::PreconditionFailed(_) | Refusal::VersionNotFound(_) => {
                Code::PreconditionFailed
            }
            Refusal::Data(_) => Code::DataRefused,
            Refusal::Internal(_) | Refusal::Busy => Code::Internal,
        };
        code.into()
    }
}

impl From<&BufferError> for ApiError {
    fn from(error: &BufferError) -> Self {
        let code = match error {
            BufferError::Full => Code::BufferFull,
            BufferError::UserShare => Code::UserBufferQuota,
            BufferError::LaneFull => Code::LaneBufferQuota,
            BufferError::OutcomeUnknown(_) => {
                tracing::error!(%error, "the buffer failed in mid-write");
                Code::OutcomeUnknown
            }
            BufferError::LowDisk
            | BufferError::Timeout
            | BufferError::Unavailable(_)
            | BufferError::Damaged(_)
            | BufferError::Redb(_) => {
                tracing::error!(%error, "the buffer cannot be used");
                Code::BufferUnavailable
            }
        };
        code.into()
    }
}

impl From<BufferError> for ApiError {
    fn from(error: BufferError) -> Self {
        Self::from(&error)
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        let code = match error {
            ReadError::NotFound(kind) => Code::not_found(kind),
            ReadError::Deleted => Code::TaskDeleted,
            ReadError::Unknown => Code::DatabaseUnavailable,
            ReadError::Overloaded => Code::Overloaded,
            ReadError::Buffer(error) => return Self::from(&*error),
        };
        code.into()
    }
}

impl From<StandingUnknown> for ApiError {
    fn from(StandingUnknown(error): StandingUnknown) -> Self {
        Self::from(&*error)
    }
}

impl From<OperatorError> for ApiError {
    fn from(error: OperatorError) -> Self {
        let code = match error {
            OperatorError::NotFound => Code::OperationNotFound,
            OperatorError::Pending => Code::OperationPending,
            OperatorError::Quarantined => Code::OperationQuarantined,
            OperatorError::AlreadyDiscarded => Code::AlreadyDiscarded,
            OperatorError::AlreadyPaused => Code::AlreadyPaused,
            OperatorError::NotPaused => Code::NotPaused,
            OperatorError::Buffer(error) => return error.into(),
        };
        code.into()
    }
}

impl From<RedisAway> for ApiError {
    fn from(_: RedisAway) -> Self {
        Code::SessionStoreUnavailable.into()
    }
}

impl From<StoreError> for ApiError {
    fn from(_: StoreError) -> Self {
        Code::DatabaseUnavailable.into()
    }
}

/// Makes a failure of ours of whatever poem and poem-openapi came up with, by its type.
#[must_use]
pub fn classify(error: &poem::Error) -> ApiError {
    if let Some(error) = error.downcast_ref::<ApiError>() {
        return error.clone();
    }
    let parameter =
        |name| ApiError::parameter(name, "must have the form that the OpenAPI document gives");
    if let Some(error) = error.downcast_ref::<ParseParamError>() {
        return parameter(error.name);
    }
    if let Some(error) = error.downcast_ref::<ParsePathError>() {
        return parameter(error.name);
    }
    let code = if error.is::<NotFoundError>() {
        Code::RouteNotFound
    } else if error.is::<MethodNotAllowedError>() {
        Code::MethodNotAllowed
    } else if error.is::<AuthorizationError>() {
        Code::Unauthorized
    } else if error.is::<ContentTypeError>() {
        Code::UnsupportedMediaType
    } else if error.is::<ReadBodyError>() {
        Code::UnreadableBody
    } else if error.status().is_client_error() {
        Code::BadRequest
    } else {
        let status = error.status().as_u16();
        tracing::error!(status, "an error of the framework without a code");
        Code::Internal
    };
    code.into()
}

/// One failure that every route may answer with; `failures.rs` lists all of them, for each route.
impl ApiResponse for ApiError {
    fn meta() -> MetaResponses {
        let internal = MetaResponse {
            description: "A defect of Holdfast",
            status: Some(StatusCode::INTERNAL_SERVER_ERROR.as_u16()),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: Ready::<ErrorEnvelope>::CONTENT_TYPE,
                schema: Ready::<ErrorEnvelope>::schema_ref(),
            }],
            headers: Vec::new(),
        };
        MetaResponses { responses: vec![internal] }
    }

    fn register(registry: &mut Registry) {
        <Ready<ErrorEnvelope> as Payload>::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::{
        Actor, Change, Clock, EntityKind, Operation, Outcome, Preferences, Profile, ProfileChange,
        Role, TaskChange, apply_to_profile, apply_to_task,
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
        assert_eq!(answer(apply_to_task(&mut None, &delete)), Code::TaskNotFound.into());
        let put =
            operation(Change::Profile(ProfileChange::Put { preferences: Preferences::default() }));
        let mut of_another = Profile::first_seen(Uuid::from_u128(3), put.accepted_at);
        assert_eq!(answer(apply_to_profile(&mut of_another, &put)), Code::UserNotFound.into());
        let of_session = ApiError::from(Refusal::NotFound(EntityKind::Session));
        assert_eq!(of_session, Code::SessionNotFound.into());
    }
}
