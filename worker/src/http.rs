//! The worker's own HTTP interface: `/live`, `/health`, `/metrics`. A standby serves it as well, and
//! counts as healthy while it waits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use poem::http::StatusCode;
use poem::web::{Data, Json};
use poem::{Endpoint, EndpointExt, IntoResponse, Response, Route, get, handler};
use serde_json::json;
use shared::attention::{Attention, Signs};
use shared::buffer::BufferError;
use shared::status::{WORKER, WorkerStatus};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::context::Context;

/// Pause between two tries to have a port that somebody else has.
const AGAIN: Duration = Duration::from_millis(250);
/// How long a worker that takes over waits for the port of the one that has just ended.
const HANDOVER: Duration = Duration::from_secs(1);

/// Listens on an address as soon as nobody else does. On one host the active worker may well have it.
pub async fn listen_when_free(address: SocketAddr) -> TcpListener {
    let mut is_told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if !is_told => {
                tracing::info!(%address, %error, "a standby does not listen until it can");
                is_told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Listens on an address. What another worker had may be free a moment after its lock is.
///
/// # Errors
/// If the address cannot be had.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let started = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && started.elapsed() < HANDOVER =>
            {
                tokio::time::sleep(AGAIN).await;
            }
            bound => return bound,
        }
    }
}

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
    let signs = signs(&context, status.as_ref()).await.ok();
    // What was published is a moment old.
    let is_up = context.link.is_up();
    let up = |status: &WorkerStatus| {
        is_up && status.is_recent() && status.postgres.up && status.redis.up
    };
    let is_active = context.is_active.load(Ordering::Relaxed);
    let is_well = status.as_ref().is_some_and(up) && signs.is_some_and(|signs| !signs.are_grave());
    // Nothing is asked of a standby but that it waits.
    let healthy = is_well || !is_active;
    let word = if healthy { "healthy" } else { "degraded" };
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let attention = signs.map(|signs| signs.attention()).unwrap_or_default();
    let attention: Vec<&str> = attention.into_iter().map(Attention::as_str).collect();
    let role = if is_active { "active" } else { "standby" };
    let data = json!({ "status": word, "role": role, "attention": attention, "worker": status });
    Json(json!({ "data": data })).with_status(code).into_response()
}

async fn signs(context: &Context, status: Option<&WorkerStatus>) -> Result<Signs, BufferError> {
    let (stats, paused) = tokio::try_join!(context.buffer.stats(), context.buffer.paused())?;
    Ok(Signs {
        stats,
        is_paused: paused.is_some(),
        clock_offset_us: context.store.clock_offset(),
        has_old_copy: context.buffer.is_old_copy()
            || status.is_some_and(|status| status.has_old_copy),
        is_buffer_stuck: status.is_some_and(|status| status.is_buffer_stuck)
            || context.is_buffer_stuck.load(Ordering::Relaxed),
    })
}

#[handler]
fn write_metrics(metrics: Data<&PrometheusHandle>) -> String {
    metrics.render()
}
