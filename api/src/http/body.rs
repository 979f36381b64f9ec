//! Bodies of requests: JSON is parsed straight into types, without a tree of JSON values in between.

use std::sync::Arc;

use futures::StreamExt;
use poem::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::de::DeserializeOwned;

use super::code::Code;
use super::error::{ApiError, FieldProblem};
use super::ready::JSON;
use super::shell::BodyDeadline;
use crate::state::State;

/// How much of an over-long body is read and thrown away, so that the client gets to read the
/// answer instead of a reset connection (bytes).
const DRAIN: usize = 2 << 20;

/// A request's body, parsed.
pub struct JsonBody<T>(pub T);

impl<'a, T: DeserializeOwned + Type> ApiExtractor<'a> for JsonBody<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let content = vec![MetaMediaType { content_type: JSON, schema: T::schema_ref() }];
        Some(MetaRequest { description: None, content, required: true })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        check_headers(request)?;
        let limit = request.data::<Arc<State>>().map_or(0, |state| state.server.body_limit_bytes);
        let bytes = read(body, limit, BodyDeadline::of(request)).await?;
        Ok(Self(parse(&bytes)?))
    }
}

fn check_headers(request: &Request) -> Result<(), ApiError> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let essence = header(CONTENT_TYPE).and_then(|value| value.split(';').next());
    let is_json = essence.is_some_and(|value| value.trim().eq_ignore_ascii_case(JSON));
    let plain = request.headers().get(CONTENT_ENCODING).is_none();
    if is_json && plain { Ok(()) } else { Err(Code::UnsupportedMediaType.into()) }
}

/// Reads a body of any transfer coding, up to `limit` bytes, until `deadline`.
async fn read(
    body: &mut RequestBody,
    limit: usize,
    deadline: BodyDeadline,
) -> Result<Vec<u8>, ApiError> {
    let mut stream = body.take().map_err(|_| Code::UnreadableBody)?.into_bytes_stream();
    let (mut bytes, mut dropped) = (Vec::new(), 0);
    loop {
        let chunk = match tokio::time::timeout_at(deadline.0, stream.next()).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(_) if dropped == 0 => return Err(Code::RequestTimeout.into()),
            Err(_) => break,
        };
        let chunk = chunk.map_err(|_| Code::UnreadableBody)?;
        if dropped == 0 && bytes.len() + chunk.len() <= limit {
            bytes.extend_from_slice(&chunk);
        } else {
            dropped += chunk.len();
        }
        if dropped > DRAIN {
            break;
        }
    }
    if dropped == 0 { Ok(bytes) } else { Err(Code::BodyTooLarge.into()) }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // serde would also take a list for a struct, by the order of its fields.
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|byte| b"[\"-0123456789tfn".contains(byte)) {
        return Err(ApiError::field("body", "must be an object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let message = without_value(&inner.to_string());
        match inner.classify() {
            serde_json::error::Category::Data => {
                let field = field_of(path, &message);
                ApiError::fields(vec![FieldProblem { field, message }])
            }
            serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof
            | serde_json::error::Category::Io => ApiError::malformed(inner.to_string()),
        }
    })?;
    json.end().map_err(|error| ApiError::malformed(error.to_string()))?;
    Ok(value)
}

/// serde names a missing, unknown or repeated field in its message and the object in the path.
fn field_of(path: String, message: &str) -> String {
    let named = ["missing field `", "unknown field `", "duplicate field `"]
        .into_iter()
        .find_map(|prefix| message.strip_prefix(prefix)?.split('`').next());
    match named {
        Some(field) if path == "." || path == field => field.to_owned(),
        Some(field) if !path.ends_with(field) => format!("{path}.{field}"),
        Some(_) => path,
        None if path == "." => "body".to_owned(),
        None => path,
    }
}

/// What was expected, without the place and without what was found: that is the client's own, and may
/// be a secret in the wrong field.
fn without_value(message: &str) -> String {
    let found = ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant "];
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    match message.rsplit_once(", expected ") {
        Some((_, expected)) if found.iter().any(|prefix| message.starts_with(prefix)) => {
            let expected = if expected.starts_with("struct ") { "an object" } else { expected };
            format!("expected {expected}")
        }
        Some(_) | None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code)]
        name: String,
        #[allow(dead_code)]
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code)]
        count: u8,
    }

    #[test]
    fn what_cannot_be_accepted_is_named() {
        let table = [
            (r#"{"inner":null}"#, "name"),
            (r#"{"name":"a","color":1}"#, "color"),
            (r#"{"name":"a","name":"b"}"#, "name"),
            (r#"{"name":7}"#, "name"),
            (r#"{"name":"a","inner":{"count":300}}"#, "inner.count"),
            (r#"{"name":"a","inner":{"count":1,"x":2}}"#, "inner.x"),
            (r#"{"name":"a","inner":{}}"#, "inner.count"),
            (r#"["a"]"#, "body"),
            (" [1]", "body"),
            ("7", "body"),
            (r#""text""#, "body"),
        ];
        for (body, field) in table {
            let problem = parse::<Sample>(body.as_bytes()).unwrap_err();
            let expected = ApiError::field(field, "");
            let named = format!("{problem:?}");
            assert!(named.contains("INVALID_FIELD"), "{body}: {named}");
            assert!(named.contains(&format!("field: {field:?}")), "{body}: {named} {expected:?}");
        }
    }

    #[test]
    fn what_was_found_is_not_repeated() {
        for body in [
            r#"{"name":"a","inner":"canary, expected nothing at line 1"}"#,
            r#"{"name":"a","inner":{"count":"canary"}}"#,
        ] {
            let problem = format!("{:?}", parse::<Sample>(body.as_bytes()).unwrap_err());
            assert!(problem.contains("expected "), "{problem}");
            assert!(!problem.contains("canary") && !problem.contains("Inner"), "{problem}");
        }
    }

    #[test]
    fn what_is_no_json_is_told_apart() {
        let deep = "{\"a\":".repeat(200_000);
        let broken: [&[u8]; 5] = [b"", b"{", b"{} {}", b"{\"a\":\"\xff\"}", deep.as_bytes()];
        for body in broken {
            let problem = format!("{:?}", parse::<serde_json::Value>(body).unwrap_err());
            assert!(problem.contains("MALFORMED_JSON"), "{problem}");
        }
    }
}
