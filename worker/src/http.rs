//! The worker's own HTTP interface: `/live`, `/health`, `/metrics`.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use poem::http::StatusCode;
use poem::web::{Data, Json};
use poem::{Endpoint, EndpointExt, IntoResponse, Response, Route, get, handler};
use serde_json::json;
use shared::status::{WORKER, WorkerStatus};

use crate::context::Context;

/// Everything the worker answers.
pub fn routes(
    context: Arc<Context>,
    metrics: PrometheusHandle,
) -> impl Endpoint<Output = Response> + 'static {
    Route::new()
        .at("/live", get(live))
        .at("/health", get(health))
        .at("/metrics", get(write_metrics))
        .data(context)
        .data(metrics)
        .map_to_response()
}

#[handler]
fn live() -> Json<serde_json::Value> {
    Json(json!({ "data": { "status": "live" } }))
}

#[handler]
async fn health(context: Data<&Arc<Context>>) -> Response {
    let status = context.buffer.published::<WorkerStatus>(WORKER).await.ok().flatten();
    let up = |status: &WorkerStatus| status.is_recent() && status.postgres.up && status.redis.up;
    let healthy = status.as_ref().is_some_and(up);
    let word = if healthy { "healthy" } else { "degraded" };
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Json(json!({ "data": { "status": word, "worker": status } })).with_status(code).into_response()
}

#[handler]
fn write_metrics(metrics: Data<&PrometheusHandle>) -> String {
    metrics.render()
}
