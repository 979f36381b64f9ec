//! The codes that each operation of the OpenAPI document can fail with.
//!
//! Most of them follow from the shape of an operation: whether it needs a token, takes parameters or a
//! body. One table adds those of its handler, by the operation's id. A handler that can fail in a new
//! way needs a new entry there: clients do not expect a code that the document does not list.

use serde_json::Value;

use super::code::Code;
use super::shell::UNLIMITED;

/// Of every request: what `shell.rs` answers, and whoever accepts connections.
const ANY: &[Code] =
    &[Code::OriginNotAllowed, Code::Internal, Code::TooManyConnections, Code::DeadlineExceeded];

/// Of a request that needs a token (`auth.rs`): the session and the standing of its user are looked up.
const TOKEN: &[Code] =
    &[Code::Unauthorized, Code::Forbidden, Code::UserSuspended, Code::BufferUnavailable];

/// Of a request with parameters.
const PARAMETERS: &[Code] = &[Code::InvalidParameter, Code::BadRequest];

/// Of a request with a body (`body.rs`).
const BODY: &[Code] = &[
    Code::InvalidField,
    Code::MalformedJson,
    Code::UnreadableBody,
    Code::RequestTimeout,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
];

/// Of what is put into the buffer.
const APPEND: &[Code] = &[
    Code::UserBufferQuota,
    Code::LaneBufferQuota,
    Code::BufferFull,
    Code::BufferUnavailable,
    Code::OutcomeUnknown,
];

/// Of a write: to PostgreSQL, or else to the buffer.
const WRITE: &[Code] = &[Code::DataRefused, Code::Overloaded];

/// Of a change of a task that is there.
const TASK: &[Code] = &[Code::TaskNotFound, Code::PreconditionFailed];

/// Of what opens or renews a session.
const GRANT: &[Code] = &[
    Code::Unauthorized,
    Code::UserSuspended,
    Code::BufferUnavailable,
    Code::SessionStoreUnavailable,
];

/// Of what an operator does to a dead letter.
const DEAD_LETTER: &[Code] = &[
    Code::OperationNotFound,
    Code::OperationPending,
    Code::OperationQuarantined,
    Code::AlreadyDiscarded,
    Code::OutcomeUnknown,
];

/// Of an operation, what does not follow from its shape.
const OPERATIONS: &[(&str, &[&[Code]])] = &[
    ("createTask", &[WRITE, APPEND, &[Code::TaskDeleted]]),
    ("listTasks", &[]),
    ("readTask", &[&[Code::TaskNotFound, Code::DatabaseUnavailable, Code::Overloaded]]),
    ("replaceTask", &[WRITE, APPEND, TASK]),
    ("changeTask", &[WRITE, APPEND, TASK]),
    ("deleteTask", &[WRITE, APPEND, TASK]),
    ("readProfile", &[&[Code::DatabaseUnavailable]]),
    ("replaceProfile", &[WRITE, APPEND, &[Code::UserNotFound]]),
    ("changeProfile", &[WRITE, APPEND, &[Code::UserNotFound]]),
    ("readOperation", &[&[Code::OperationNotFound, Code::DatabaseUnavailable]]),
    ("login", &[GRANT]),
    ("refresh", &[GRANT, &[Code::OutcomeUnknown]]),
    ("logout", &[APPEND, &[Code::NoSession]]),
    ("listSessions", &[&[Code::SessionStoreUnavailable]]),
    ("endSession", &[APPEND, &[Code::SessionNotFound]]),
    ("listUsers", &[&[Code::DatabaseUnavailable]]),
    ("readUser", &[&[Code::UserNotFound, Code::DatabaseUnavailable]]),
    ("changeUser", &[WRITE, APPEND, &[Code::OwnAccount, Code::UserNotFound]]),
    ("eraseUser", &[WRITE, APPEND, &[Code::OwnAccount, Code::DatabaseUnavailable]]),
    ("readBuffer", &[]),
    ("listPending", &[]),
    ("listDead", &[]),
    ("retryDead", &[DEAD_LETTER]),
    ("discardDead", &[DEAD_LETTER]),
    ("pauseReplay", &[&[Code::AlreadyPaused, Code::OutcomeUnknown]]),
    ("resumeReplay", &[&[Code::NotPaused, Code::OutcomeUnknown]]),
    ("live", &[]),
    ("ready", &[&[Code::BufferFull, Code::BufferUnavailable]]),
    ("health", &[&[Code::BufferUnavailable]]),
];

/// The codes that an operation of the document, at this path, can fail with: each once, by status.
pub(super) fn codes_of(path: &str, operation: &Value) -> Vec<Code> {
    let id = operation["operationId"].as_str().unwrap_or_default();
    let of_handler = OPERATIONS.iter().find(|(name, _)| *name == id);
    let has = |part: &str| !operation[part].as_array().is_none_or(Vec::is_empty);
    let by_shape: [(bool, &[Code]); 5] = [
        (true, ANY),
        (!UNLIMITED.contains(&path), &[Code::RateLimited]),
        (has("security"), TOKEN),
        (has("parameters"), PARAMETERS),
        (operation["requestBody"].is_object(), BODY),
    ];
    let by_shape = by_shape.into_iter().filter_map(|(applies, codes)| applies.then_some(codes));
    let of_handler = of_handler.into_iter().flat_map(|(_, groups)| groups.iter().copied());
    let mut codes: Vec<Code> = by_shape.chain(of_handler).flatten().copied().collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Path, id and description of every operation of the document.
    fn documented(document: &Value) -> Vec<(&str, &str, &Value)> {
        let paths = document["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, methods)| {
            methods.as_object().unwrap().values().map(move |operation| {
                (path.as_str(), operation["operationId"].as_str().unwrap(), operation)
            })
        });
        operations.collect()
    }

    #[test]
    fn every_operation_of_the_document_has_an_entry_and_every_entry_an_operation() {
        let document = super::super::interface::document();
        let documented: BTreeSet<_> =
            documented(&document).into_iter().map(|(_, id, _)| id).collect();
        let listed: BTreeSet<_> = OPERATIONS.iter().map(|(id, _)| *id).collect();
        assert_eq!(listed, documented);
        assert_eq!(listed.len(), OPERATIONS.len(), "an operation is listed twice");
    }

    #[test]
    fn every_route_of_the_document_lists_its_codes_under_their_statuses() {
        let document = super::super::interface::document();
        for (path, id, operation) in documented(&document) {
            let responses = operation["responses"].as_object().unwrap();
            let listed: BTreeSet<(u16, &str)> = responses
                .iter()
                .flat_map(|(status, response)| {
                    let codes = response["x-error-codes"].as_array().into_iter().flatten();
                    codes.map(|code| (status.parse().unwrap(), code.as_str().unwrap()))
                })
                .collect();
            let expected: BTreeSet<(u16, &str)> = codes_of(path, operation)
                .into_iter()
                .map(|code| (code.status().as_u16(), code.as_str()))
                .collect();
            assert_eq!(listed, expected, "{id}");
            assert!(listed.contains(&(500, "INTERNAL")), "{id}");
        }
    }

    #[test]
    fn every_code_can_happen_at_some_route_except_where_there_is_no_route() {
        let document = super::super::interface::document();
        let happening: BTreeSet<Code> = documented(&document)
            .into_iter()
            .flat_map(|(path, _, operation)| codes_of(path, operation))
            .collect();
        let nowhere: Vec<Code> =
            Code::ALL.iter().copied().filter(|code| !happening.contains(code)).collect();
        assert_eq!(nowhere, [Code::RouteNotFound, Code::MethodNotAllowed]);
    }
}
