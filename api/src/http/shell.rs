//! What surrounds every request: its id, its deadline, the envelope of its failure, its log line and
//! its metrics.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures::FutureExt;
use poem::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use poem::http::{HeaderName, HeaderValue};
use poem::{
    Endpoint, FromRequest, IntoResponse, Middleware, PathPattern, Request, RequestBody, Response,
};
use uuid::Uuid;

use super::error::{ApiError, classify};
use crate::settings::ServerSettings;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The most of a trace context that is kept (the format of version 00 has 55 bytes).
const TRACEPARENT_BYTES: usize = 128;

/// The id of a request: the client's, if it sent a UUID in `X-Request-ID`, else a new one.
#[derive(Clone, Copy, Debug)]
pub struct RequestId(pub Uuid);

/// The W3C trace context a request came with.
#[derive(Clone, Debug)]
pub struct Traceparent(pub Option<String>);

impl<'a> FromRequest<'a> for RequestId {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        Ok(request.data::<Self>().copied().ok_or(ApiError::INTERNAL)?)
    }
}

impl<'a> FromRequest<'a> for Traceparent {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let value = request.header("traceparent").filter(|text| text.len() <= TRACEPARENT_BYTES);
        Ok(Self(value.map(str::to_owned)))
    }
}

/// Surrounds an endpoint.
#[derive(Clone, Debug)]
pub struct Shell(pub ServerSettings);

impl<E: Endpoint> Middleware<E> for Shell {
    type Output = Surrounded<E>;

    fn transform(&self, inner: E) -> Self::Output {
        Surrounded { inner, settings: self.0.clone() }
    }
}

/// A surrounded endpoint.
#[derive(Debug)]
pub struct Surrounded<E> {
    inner: E,
    settings: ServerSettings,
}

impl<E: Endpoint> Endpoint for Surrounded<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let started = Instant::now();
        let mut request = request;
        let request_id = request
            .header(&REQUEST_ID)
            .and_then(|text| Uuid::parse_str(text).ok())
            .unwrap_or_else(Uuid::new_v4);
        let method = request.method().clone();
        request.set_data(RequestId(request_id));
        let mut response = self.answer(request, request_id).await;
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&request_id.to_string()) {
            headers.insert(&REQUEST_ID, value);
        }
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let route = response
            .data::<PathPattern>()
            .map_or_else(|| "unmatched".to_owned(), |pattern| pattern.0.to_string());
        let (status, took) = (response.status().as_u16(), started.elapsed());
        tracing::info!(%request_id, %method, route, status, took_us = took.as_micros(), "answered");
        let labels = [
            ("method", known_method(&method).to_owned()),
            ("route", route),
            ("status", status.to_string()),
        ];
        metrics::counter!("http_requests_total", &labels).increment(1);
        metrics::histogram!("http_request_duration_seconds", &labels[..2]).record(took);
        Ok(response)
    }
}

impl<E: Endpoint> Surrounded<E> {
    /// The answer, or the envelope of what went wrong.
    async fn answer(&self, request: Request, request_id: Uuid) -> Response {
        let call = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let failure = match tokio::time::timeout(self.settings.request_timeout(), call).await {
            Ok(Ok(Ok(output))) => return output.into_response(),
            Ok(Ok(Err(error))) if error.is_from_response() => return error.into_response(),
            Ok(Ok(Err(error))) => {
                let pattern = error.data::<PathPattern>().cloned();
                let mut response = classify(&error).into_answer(request_id);
                if let Some(pattern) = pattern {
                    response.set_data(pattern);
                }
                return response;
            }
            // The panic itself has been logged by its hook.
            Ok(Err(_)) => ApiError::INTERNAL,
            Err(_) => ApiError::DEADLINE_EXCEEDED,
        };
        failure.into_answer(request_id)
    }
}

/// Methods as metrics name them: a client must not be able to invent labels.
fn known_method(method: &poem::http::Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
        _ => "other",
    }
}
