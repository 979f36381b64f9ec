//! The HTTP interface: routes, bodies, failures.

mod auth;
mod body;
mod buffer;
mod code;
mod cors;
mod document;
mod envelope;
mod error;
mod failures;
mod headers;
mod health;
mod list_query;
mod memo;
mod metered;
mod operations;
mod permission;
mod profile;
mod schema;
mod sessions;
mod shell;
mod task_input;
mod tasks;
mod users;
mod words;

use std::future::Future;
use std::sync::Arc;

use poem::endpoint::{BoxEndpoint, DynEndpoint};
use poem::http::header::CONTENT_SECURITY_POLICY;
use poem::middleware::SetHeader;
use poem::web::Data;
use poem::{EndpointExt, IntoEndpoint, Request, Response, Route, get, handler};
use poem_openapi::OpenApiService;

use chrono::SubsecRound;
use shared::domain::{Actor, Change, Operation, Version};

pub use code::Code;
pub use cors::Cors;
pub use envelope::Source;
pub use error::ApiError;
pub use permission::Routes;
pub use schema::{JsonObject, Nullable, nullable_time};
pub use shell::connection_refusal;
pub use words::{Role, TaskStatus, UserStatus};

use crate::state::State;
use shell::{RequestId, Shell, Traceparent};

/// What there is beside the interface.
const DOCS: &str = "/docs";
const OPENAPI_JSON: &str = "/openapi.json";
const OPENAPI_YAML: &str = "/openapi.yaml";
const METRICS: &str = "/metrics";

type Service = OpenApiService<
    (
        tasks::TasksApi,
        profile::ProfileApi,
        operations::OperationsApi,
        sessions::SessionsApi,
        users::UsersApi,
        buffer::BufferApi,
        health::HealthApi,
    ),
    (),
>;

/// The description of the interface and its implementation.
fn service() -> Service {
    let apis = (
        tasks::TasksApi,
        profile::ProfileApi,
        operations::OperationsApi,
        sessions::SessionsApi,
        users::UsersApi,
        buffer::BufferApi,
        health::HealthApi,
    );
    OpenApiService::new(apis, "Holdfast", env!("CARGO_PKG_VERSION")).description(
        "Tasks and profiles that go on being written while the database is away. A write is \
         answered 201, 200 or 204 when PostgreSQL has committed it, and 202 when this host's \
         buffer holds it, synced to the disk; `meta.sync` says which, and \
         `GET /api/v1/operations/{id}` what became of it.",
    )
}

/// The OpenAPI document.
fn document() -> serde_json::Value {
    document::complete(&service().spec())
}

/// The OpenAPI document, as YAML; `api/openapi.yaml` is kept equal to it.
#[must_use]
pub fn openapi_yaml() -> String {
    yaml(&document())
}

fn yaml(document: &serde_json::Value) -> String {
    // Whatever is JSON can be written as YAML.
    serde_yaml::to_string(document).unwrap_or_default()
}

/// The routes, as the OpenAPI document shows them.
#[must_use]
pub fn documented_routes() -> Routes {
    Routes::of(&document())
}

/// Everything this process answers: the interface, and the pages beside it, within their shell.
pub struct Site {
    shell: Shell,
    service: BoxEndpoint<'static>,
    pages: BoxEndpoint<'static>,
}

impl Site {
    /// The site of a process.
    #[must_use]
    pub fn new(state: Arc<State>) -> Self {
        let service = service();
        let document = document();
        let policy = headers::page_policy(&service.swagger_ui_html());
        let pages = Route::new()
            .nest(
                DOCS,
                service
                    .swagger_ui()
                    .with(SetHeader::new().overriding(CONTENT_SECURITY_POLICY, policy)),
            )
            .at(OPENAPI_JSON, written("application/json", document.to_string()))
            .at(OPENAPI_YAML, written("application/yaml", yaml(&document)))
            .at(METRICS, get(write_metrics))
            .boxed();
        Self { shell: Shell::new(state), service: service.into_endpoint(), pages }
    }

    /// Answers a request, whatever it asks for.
    pub fn answer(&self, request: Request) -> impl Future<Output = Response> + Send {
        self.shell.answer(request, |request| self.router_of(&request).call(request))
    }

    /// Two routers side by side: one with the interface nested in it would look each request up
    /// twice, and give it an address of its own for the second time.
    fn router_of(&self, request: &Request) -> &dyn DynEndpoint<Output = Response> {
        let path = request.uri().path();
        let is_docs =
            path.strip_prefix(DOCS).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if is_docs || [OPENAPI_JSON, OPENAPI_YAML, METRICS].contains(&path) {
            &*self.pages
        } else {
            &*self.service
        }
    }
}

/// A text that never changes.
fn written(content_type: &'static str, text: String) -> poem::RouteMethod {
    let text: Arc<str> = text.into();
    get(poem::endpoint::make_sync(move |_| {
        Response::builder().content_type(content_type).body(text.to_string())
    }))
}

#[handler]
async fn write_metrics(state: Data<&Arc<State>>) -> String {
    match state.buffer.stats().await {
        Ok(stats) => stats.record(),
        Err(error) => tracing::error!(%error, "the buffer cannot be read"),
    }
    state.metrics.render()
}

/// The operation that a request asks for.
fn operation(
    state: &State,
    actor: Actor,
    change: Change,
    request: RequestId,
    trace: Traceparent,
) -> Operation {
    // What a create sets has a version of its own: nothing has to be older than its id.
    let is_create = matches!(change, Change::TaskCreate { .. });
    let id = if is_create { state.clock.of_process().next() } else { state.clock.next() };
    Operation {
        id,
        actor,
        change,
        // PostgreSQL keeps microseconds: a finer time would change by being stored.
        accepted_at: chrono::Utc::now().trunc_subsecs(3),
        request_id: request.0,
        traceparent: trace.0,
    }
}

/// The path at which a buffered operation can be followed.
fn location(operation: Version) -> String {
    format!("/api/v1/operations/{operation}")
}

/// A number that must be between 1 and `max`.
fn in_range(name: &str, value: u64, max: u64) -> Result<u64, ApiError> {
    if (1..=max).contains(&value) {
        Ok(value)
    } else {
        Err(ApiError::parameter(name, format!("must be between 1 and {max}")))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_openapi_document_is_the_one_that_is_served() {
        let committed = include_str!("../../openapi.yaml");
        let made = super::openapi_yaml();
        assert!(
            committed.trim_end() == made.trim_end(),
            "run `cargo run -p api -- openapi > api/openapi.yaml`"
        );
    }
}
