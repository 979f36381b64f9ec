//! All routes of the api: the interface, and the pages beside it (`/docs`, the OpenAPI document,
//! `/metrics`), inside the middleware of `shell.rs`.

use std::future::Future;
use std::sync::Arc;

use poem::endpoint::{BoxEndpoint, DynEndpoint};
use poem::http::header::CONTENT_SECURITY_POLICY;
use poem::middleware::SetHeader;
use poem::web::Data;
use poem::{EndpointExt, IntoEndpoint, Request, Response, Route, get, handler};

use super::headers;
use super::interface::{document, service, yaml};
use super::shell::Shell;
use crate::state::State;

/// What there is beside the interface.
const DOCS: &str = "/docs";
const OPENAPI_JSON: &str = "/openapi.json";
const OPENAPI_YAML: &str = "/openapi.yaml";
const METRICS: &str = "/metrics";

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
