//! The middleware around every request: origin and rate limits, request id, deadline, the body of
//! failures, the headers of every answer, the log line and the metrics.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use poem::http::header::ALLOW;
use poem::http::{HeaderName, HeaderValue, Method, StatusCode};
use poem::{FromRequest, PathPattern, Request, RequestBody, Response};
use uuid::Uuid;

use super::code::Code;
use super::error::{ApiError, classify};
use super::headers::{is_https, protect};
use super::metered::Metered;
use crate::cors::{Caller, preflight};
use crate::state::State;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The most of a trace context that is kept (the format of version 00 has 55 bytes).
const TRACEPARENT_BYTES: usize = 128;

/// Routes that watch this process, and must not be kept from it.
pub(super) const UNLIMITED: [&str; 4] = ["/live", "/ready", "/health", "/metrics"];

/// The id of a request: the client's, if it sent a UUID in `X-Request-ID`, else a new one.
#[derive(Clone, Copy, Debug)]
pub struct RequestId(pub Uuid);

/// The W3C trace context a request came with.
#[derive(Clone, Debug)]
pub struct Traceparent(pub Option<String>);

impl<'a> FromRequest<'a> for RequestId {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        Ok(request.data::<Self>().copied().ok_or(ApiError::from(Code::Internal))?)
    }
}

impl<'a> FromRequest<'a> for Traceparent {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let value = request.header("traceparent").filter(|text| text.len() <= TRACEPARENT_BYTES);
        Ok(Self(value.map(str::to_owned)))
    }
}

/// Until when a request's body has to have come.
#[derive(Clone, Copy, Debug)]
pub struct BodyDeadline(pub tokio::time::Instant);

impl BodyDeadline {
    /// That of this request.
    pub fn of(request: &Request) -> Self {
        request.data::<Self>().copied().unwrap_or_else(|| Self(tokio::time::Instant::now()))
    }
}

/// What a request is answered with, unless something goes wrong.
type Answering<'a> = BoxFuture<'a, poem::Result<Response>>;

/// The shell of a process.
#[derive(Debug)]
pub struct Shell {
    state: Arc<State>,
    metered: Metered,
}

impl Shell {
    /// A shell with the settings of `state`, which requests will find in themselves.
    pub fn new(state: Arc<State>) -> Self {
        Self { state, metered: Metered::default() }
    }

    /// Answers a request with what `route` comes to.
    ///
    /// What can be done at once is not left to the future: a request is large, and would be carried
    /// along in it and in those around it.
    pub fn answer<'a>(
        &'a self,
        mut request: Request,
        route: impl FnOnce(Request) -> Answering<'a>,
    ) -> impl Future<Output = Response> + Send {
        let started = Instant::now();
        let request_id = request
            .header(&REQUEST_ID)
            .and_then(|text| Uuid::parse_str(text).ok())
            .unwrap_or_else(Uuid::new_v4);
        let method = request.method().clone();
        let caller = self.state.cors.caller(&request);
        let is_https = is_https(&request);
        let begun = match self.admit(&request, &caller) {
            Ok(()) => match preflight(&caller, &request) {
                Some(response) => Err(response),
                None => {
                    let body_deadline = started + self.state.server.body_timeout();
                    request.set_data(RequestId(request_id));
                    request.set_data(BodyDeadline(body_deadline.into()));
                    request.set_data(Arc::clone(&self.state));
                    Ok(route(request))
                }
            },
            Err(refused) => Err(refused.into_answer(request_id)),
        };
        async move {
            let mut response = match begun {
                Ok(answering) => self.finish(answering, request_id).await,
                Err(response) => response,
            };
            name_and_protect(&mut response, request_id, is_https);
            self.state.cors.mark(caller, response.headers_mut());
            let took = started.elapsed();
            log(&response, &method, request_id, took);
            self.metered.record(&response, &method, took);
            response
        }
    }

    /// Turns away who asks too often, and pages that may not ask at all.
    fn admit(&self, request: &Request, caller: &Caller) -> Result<(), ApiError> {
        if !UNLIMITED.contains(&request.uri().path()) {
            self.state.limits.check_address(request.remote_addr())?;
        }
        match caller {
            Caller::Unremarkable | Caller::Allowed(_) => Ok(()),
            Caller::Refused => Err(Code::OriginNotAllowed.into()),
        }
    }

    /// The answer, or the envelope of what went wrong.
    async fn finish(&self, answering: Answering<'_>, request_id: Uuid) -> Response {
        let answering = AssertUnwindSafe(answering).catch_unwind();
        let limit = self.state.server.request_timeout();
        let code = match tokio::time::timeout(limit, answering).await {
            Ok(Ok(Ok(response))) => return response,
            Ok(Ok(Err(error))) if error.is_from_response() => return error.into_response(),
            Ok(Ok(Err(error))) => {
                let pattern = error.data::<PathPattern>().cloned();
                let mut response = classify(&error).into_answer(request_id);
                if let Some(pattern) = pattern {
                    if response.status() == StatusCode::METHOD_NOT_ALLOWED
                        && let Ok(allowed) = self.state.routes.allowed_at(&pattern).parse()
                    {
                        response.headers_mut().insert(ALLOW, allowed);
                    }
                    response.set_data(pattern);
                }
                return response;
            }
            // The panic itself has been logged by its hook.
            Ok(Err(_)) => Code::Internal,
            Err(_) => Code::DeadlineExceeded,
        };
        ApiError::from(code).into_answer(request_id)
    }
}

/// What a client is told that makes one connection too many, as it goes over the line.
pub async fn connection_refusal() -> Vec<u8> {
    let request_id = Uuid::new_v4();
    let mut response = ApiError::from(Code::TooManyConnections).into_answer(request_id);
    name_and_protect(&mut response, request_id, false);
    let (parts, body) = response.into_parts();
    // It is a vector of bytes, which always can be read.
    let body = body.into_vec().await.unwrap_or_default();
    let length = body.len();
    let mut text = format!("HTTP/1.1 {}\r\n", parts.status).into_bytes();
    for (name, value) in &parts.headers {
        text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    text.extend(format!("content-length: {length}\r\nconnection: close\r\n\r\n").into_bytes());
    text.extend(body);
    text
}

fn name_and_protect(response: &mut Response, request_id: Uuid, is_https: bool) {
    let headers = response.headers_mut();
    let mut text = Uuid::encode_buffer();
    if let Ok(value) = HeaderValue::from_str(request_id.hyphenated().encode_lower(&mut text)) {
        headers.insert(&REQUEST_ID, value);
    }
    protect(headers, is_https);
}

/// What went well is counted, and logged for who wants to know.
fn log(response: &Response, method: &Method, request_id: Uuid, took: Duration) {
    let pattern = response.data::<PathPattern>();
    let route = pattern.map_or("unmatched", |pattern| &pattern.0);
    let (status, took_us) = (response.status().as_u16(), took.as_micros());
    if status < 400 {
        tracing::debug!(%request_id, %method, route, status, took_us, "answered");
    } else {
        tracing::info!(%request_id, %method, route, status, took_us, "answered");
    }
}
