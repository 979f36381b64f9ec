//! The error codes: one table with the status, the meaning and the message of each.
//!
//! A code is all that a program needs to decide what to do. `docs/errors.md` explains the codes to the
//! people who write such programs, and the OpenAPI document lists for each route those that can happen
//! there (`failures.rs`). Tests hold both to this table.

use std::fmt;

use poem::http::StatusCode;
use poem_openapi::Enum;
use serde::Serialize;
use shared::domain::{Action, EntityKind};

/// Makes the enum, its list and its properties of one table: meaning, name, status, code, message.
macro_rules! codes {
    ($($(#[doc = $meaning:literal])+ $name:ident, $status:ident, $code:literal, $message:literal;)+) => {
        /// Why a request failed, for programs. `docs/errors.md` explains each code.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Enum)]
        #[oai(rename = "ErrorCode")]
        pub enum Code {
            $(
                $(#[doc = $meaning])+
                #[serde(rename = $code)]
                #[oai(rename = $code)]
                $name,
            )+
        }

        impl Code {
            /// All of them, by status.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name in answers.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// The status it is answered with.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),+ }
            }

            /// The message it is answered with: what went wrong and what to do next, for people.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message),+ }
            }

            /// When it happens, for the documents.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($meaning),+).trim_start()),+ }
            }
        }
    };
}

impl Code {
    /// That an entity of this kind is not there.
    pub(super) fn not_found(kind: EntityKind) -> Self {
        match kind {
            EntityKind::Task => Self::TaskNotFound,
            EntityKind::Profile => Self::UserNotFound,
            EntityKind::Session => Self::SessionNotFound,
            // It is one, and always there.
            EntityKind::Cache => Self::Internal,
        }
    }

    /// The failure of a write whose entity was deleted before; `None` where that is what was asked for.
    pub(super) fn gone(kind: EntityKind, action: Action) -> Option<Self> {
        match (kind, action) {
            (EntityKind::Task, Action::Create) => Some(Self::TaskDeleted),
            (EntityKind::Task, Action::Replace | Action::Patch | Action::Delete) => {
                Some(Self::TaskNotFound)
            }
            (EntityKind::Profile, Action::Create | Action::Replace | Action::Patch) => {
                Some(Self::UserNotFound)
            }
            (EntityKind::Profile, Action::Delete)
            | (EntityKind::Session | EntityKind::Cache, _) => None,
        }
    }
}

codes! {
    /// A field of the body is missing, is unknown, or has a value that is not accepted. `details` names
    /// each such field.
    InvalidField, BAD_REQUEST, "INVALID_FIELD",
        "The body has fields that are not accepted. See details.";

    /// A path or query parameter or a header has a value that is not accepted. `details` names it.
    InvalidParameter, BAD_REQUEST, "INVALID_PARAMETER",
        "A parameter or header is not accepted. See details.";

    /// The body is not valid JSON. `details` says where.
    MalformedJson, BAD_REQUEST, "MALFORMED_JSON",
        "The body is not valid JSON. See details.";

    /// The body broke off, or its transfer coding is wrong.
    UnreadableBody, BAD_REQUEST, "UNREADABLE_BODY",
        "The body could not be read to its end. Send the request again.";

    /// The request is not accepted for a reason that has no code of its own.
    BadRequest, BAD_REQUEST, "BAD_REQUEST",
        "The request is not accepted. Compare it with /openapi.json.";

    /// The token is missing, has expired, was revoked, or is not accepted: the bearer token, or at login
    /// and refresh the one in the body.
    Unauthorized, UNAUTHORIZED, "UNAUTHORIZED",
        "A valid token is needed. Refresh the session or log in again.";

    /// The user's role does not have the permission that the route needs.
    Forbidden, FORBIDDEN, "FORBIDDEN",
        "Your role does not allow this. Ask an admin for another role.";

    /// An admin has suspended or erased the user.
    UserSuspended, FORBIDDEN, "USER_SUSPENDED",
        "This user is suspended. Ask an admin.";

    /// A web page sent the request, and its origin is not listed in `CORS_ORIGINS`.
    OriginNotAllowed, FORBIDDEN, "ORIGIN_NOT_ALLOWED",
        "Pages of this origin may not call this service. Ask its operator to allow the origin.";

    /// No route has this path.
    RouteNotFound, NOT_FOUND, "ROUTE_NOT_FOUND",
        "No route has this path. /openapi.json lists the routes.";

    /// The task does not exist, was deleted, or belongs to another user.
    TaskNotFound, NOT_FOUND, "TASK_NOT_FOUND",
        "You have no task with this id. It may have been deleted.";

    /// The operation is not known, or belongs to another user.
    OperationNotFound, NOT_FOUND, "OPERATION_NOT_FOUND",
        "There is no operation with this id that you may see.";

    /// The session has ended, never existed, or belongs to another user.
    SessionNotFound, NOT_FOUND, "SESSION_NOT_FOUND",
        "You have no session with this id. It may have ended.";

    /// The user has never sent a request, or was erased.
    UserNotFound, NOT_FOUND, "USER_NOT_FOUND",
        "There is no user with this id. The user may have been erased.";

    /// The route does not have this method. The header `Allow` lists those it has.
    MethodNotAllowed, METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED",
        "This route does not have this method. The Allow header lists those it has.";

    /// The body did not arrive in time. The server closes the connection.
    RequestTimeout, REQUEST_TIMEOUT, "REQUEST_TIMEOUT",
        "The body did not arrive in time. Send the request again on a new connection.";

    /// A logout came with a token that belongs to no session, such as one of the identity provider.
    NoSession, CONFLICT, "NO_SESSION",
        "This token belongs to no session, so there is none to end. Drop the token.";

    /// An admin tries to change or erase their own account.
    OwnAccount, CONFLICT, "OWN_ACCOUNT",
        "You cannot change or erase your own account here. Ask another admin.";

    /// The task that was made with this `Idempotency-Key` was deleted.
    TaskDeleted, CONFLICT, "TASK_DELETED",
        "The task made with this Idempotency-Key was deleted. Use a new key to create another task.";

    /// PostgreSQL refuses the data, for example because a constraint forbids it.
    DataRefused, CONFLICT, "DATA_REFUSED",
        "The database does not accept this data. Change it before you send it again.";

    /// The operation is no dead letter: it waits for replay.
    OperationPending, CONFLICT, "OPERATION_PENDING",
        "The operation waits for replay and is no dead letter. Leave it to replay.";

    /// The operation's record cannot be read: it is damaged, or its key is missing.
    OperationQuarantined, CONFLICT, "OPERATION_QUARANTINED",
        "The operation's record cannot be read. If its key is missing from BUFFER_KEYS, add it and try again.";

    /// An operator has discarded the operation before.
    AlreadyDiscarded, CONFLICT, "ALREADY_DISCARDED",
        "The operation was discarded before. There is nothing left to do.";

    /// Replay is paused already.
    AlreadyPaused, CONFLICT, "ALREADY_PAUSED",
        "Replay is paused already. There is nothing left to do.";

    /// Replay is not paused.
    NotPaused, CONFLICT, "NOT_PAUSED",
        "Replay is not paused. There is nothing left to do.";

    /// The task has another version than `If-Match` names.
    PreconditionFailed, PRECONDITION_FAILED, "PRECONDITION_FAILED",
        "The task has another version than If-Match names. Read it again and decide anew.";

    /// The body is longer than `BODY_LIMIT_BYTES`.
    BodyTooLarge, PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE",
        "The body is too large. Send a shorter one.";

    /// The body is not declared as `application/json`, or is compressed.
    UnsupportedMediaType, UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE",
        "Send the body as application/json, without compression.";

    /// The user or the address sends more requests than its rate limit allows.
    RateLimited, TOO_MANY_REQUESTS, "RATE_LIMITED",
        "Too many requests. Wait for as many seconds as Retry-After says.";

    /// PostgreSQL takes no writes, and this user's share of the buffer is used up.
    UserBufferQuota, TOO_MANY_REQUESTS, "USER_BUFFER_QUOTA",
        "The database is away and you have too many changes waiting. Nothing was kept. Try again later.";

    /// PostgreSQL takes no writes, and too many changes of this entity wait in the buffer.
    LaneBufferQuota, TOO_MANY_REQUESTS, "LANE_BUFFER_QUOTA",
        "The database is away and too many changes of this entity are waiting. Nothing was kept. \
         Try again later.";

    /// A defect of Holdfast.
    Internal, INTERNAL_SERVER_ERROR, "INTERNAL",
        "A defect of the server stopped this request. Report it with the request's id.";

    /// As many connections are open as `MAX_CONNECTIONS` allows. The server closes this one.
    TooManyConnections, SERVICE_UNAVAILABLE, "TOO_MANY_CONNECTIONS",
        "Too many connections are open. Try again in a few seconds.";

    /// Too many requests are waiting, or the server is shutting down. Nothing was done.
    Overloaded, SERVICE_UNAVAILABLE, "OVERLOADED",
        "Too many requests are waiting. Nothing was done. Try again in a few seconds.";

    /// PostgreSQL cannot be reached, and nothing on this host has what was asked for.
    DatabaseUnavailable, SERVICE_UNAVAILABLE, "DATABASE_UNAVAILABLE",
        "The database cannot be reached, and this server has no copy of what you asked for. \
         Try again in a few seconds.";

    /// PostgreSQL takes no writes and the buffer is full. Nothing was kept.
    BufferFull, SERVICE_UNAVAILABLE, "BUFFER_FULL",
        "The database is away and the buffer is full. Nothing was kept. Try again later.";

    /// The buffer file cannot be read or written: its disk is full or fails, it is damaged, or it did not
    /// answer in time.
    BufferUnavailable, SERVICE_UNAVAILABLE, "BUFFER_UNAVAILABLE",
        "The server's buffer cannot be used. Try again in a few seconds.";

    /// Redis cannot be reached, so sessions cannot be opened, renewed or listed.
    SessionStoreUnavailable, SERVICE_UNAVAILABLE, "SESSION_STORE_UNAVAILABLE",
        "Sessions cannot be reached. Try again in a few seconds.";

    /// The request took longer than `REQUEST_TIMEOUT_MS`. It may or may not have been carried out.
    DeadlineExceeded, SERVICE_UNAVAILABLE, "DEADLINE_EXCEEDED",
        "The request took too long. It may or may not have been carried out: look before you repeat it.";

    /// PostgreSQL or the disk failed in the middle of the write. It may or may not have been carried out.
    OutcomeUnknown, SERVICE_UNAVAILABLE, "OUTCOME_UNKNOWN",
        "It is not known whether the change was carried out. Look before you repeat it.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Code, status and meaning of each row of the tables in `docs/errors.md`.
    fn documented() -> BTreeMap<&'static str, (u16, &'static str)> {
        let page = include_str!("../../../docs/errors.md");
        let rows = page.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let code = cells.next()?.strip_suffix('`')?;
            let status = cells.next()?.parse().ok()?;
            let (meaning, advice) = (cells.next()?, cells.next()?.strip_suffix(" |")?);
            assert!(!advice.is_empty(), "{code}: it is not said what to do");
            Some((code, (status, meaning)))
        });
        let mut documented = BTreeMap::new();
        for (code, row) in rows {
            assert_eq!(documented.insert(code, row), None, "{code} is documented twice");
        }
        documented
    }

    #[test]
    fn the_page_of_errors_has_each_code_with_its_status_and_meaning_and_no_other() {
        let made: BTreeMap<_, _> = Code::ALL
            .iter()
            .map(|code| (code.as_str(), (code.status().as_u16(), code.meaning())))
            .collect();
        assert_eq!(documented(), made);
    }

    #[test]
    fn codes_stand_in_the_order_of_their_statuses_and_only_failures_have_one() {
        assert!(Code::ALL.is_sorted_by_key(|code| code.status().as_u16()));
        assert!(Code::ALL.iter().all(|code| code.status().as_u16() >= 400));
    }
}
