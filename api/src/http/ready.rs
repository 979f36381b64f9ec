//! Bodies of answers: types are written straight as JSON, without a tree of JSON values in between.

use std::marker::PhantomData;

use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::payload::Payload;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use serde::Serialize;

/// The content type of all bodies.
pub(super) const JSON: &str = "application/json";

/// Bytes that most answers do not exceed.
const USUAL: usize = 1024;

/// An answer's body, written as JSON when it is made.
pub struct Ready<T> {
    bytes: Vec<u8>,
    of: PhantomData<T>,
}

impl<T: Serialize> From<T> for Ready<T> {
    fn from(value: T) -> Self {
        let mut bytes = Vec::with_capacity(USUAL);
        // Envelopes are structs of strings, numbers, lists and JSON values, which always serialize.
        if serde_json::to_writer(&mut bytes, &value).is_err() {
            bytes.clear();
        }
        Self { bytes, of: PhantomData }
    }
}

impl<T: Send> IntoResponse for Ready<T> {
    fn into_response(self) -> Response {
        Response::builder().content_type(JSON).body(self.bytes)
    }
}

impl<T: Type> Payload for Ready<T> {
    const CONTENT_TYPE: &'static str = JSON;

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: Type> ApiResponse for Ready<T> {
    fn meta() -> MetaResponses {
        let content = vec![MetaMediaType { content_type: JSON, schema: T::schema_ref() }];
        let ok = MetaResponse {
            // `document.rs` takes that of the schema.
            description: "",
            status: Some(200),
            status_range: None,
            content,
            headers: Vec::new(),
        };
        MetaResponses { responses: vec![ok] }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}
