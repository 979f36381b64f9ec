//! Is the process there, can it take writes, and the whole truth.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Serialize;
use shared::attention::{Attention, Signs};
use shared::status::{WORKER, WorkerStatus};

use super::body::Ready;
use super::envelope::Meta;
use super::error::ApiError;
use super::schema::Nullable;
use super::shell::RequestId;
use crate::state::State;

/// That something is so.
#[derive(Serialize, Object)]
pub struct Answer {
    /// In one word.
    status: String,
}

/// That something is so, in the envelope.
#[derive(Serialize, Object)]
pub struct Told {
    /// What is so.
    data: Answer,
    /// About the answer.
    meta: Meta,
}

/// The whole truth about this node.
#[derive(Serialize, Object)]
pub struct Health {
    /// `healthy`, or `degraded` if PostgreSQL, Redis or the worker is not up, or what needs attention
    /// cannot wait.
    status: String,
    /// `up`, or `down`: writes go to the buffer.
    postgres: String,
    /// `up`, or `down`: everything is slower.
    redis: String,
    /// `up`; or `absent`, or `paused` by an operator: nothing is replayed.
    worker: String,
    /// The buffer.
    buffer: BufferHealth,
    /// What somebody should look at: `dead_letters` (replay has given operations up), `quarantine`
    /// (records cannot be read), `buffer_stuck` (replay never comes to what is pending), `paused`,
    /// `clock_skew` (the clocks of PostgreSQL and this host are more than a second apart), `old_copy` (the
    /// buffer file is an older copy of itself). The first two leave `status` as it is, and so does a
    /// `clock_skew` of up to a minute.
    attention: Vec<String>,
}

/// How full the buffer is.
#[derive(Serialize, Object)]
pub struct BufferHealth {
    /// Pending operations.
    pending: u64,
    /// Their bytes.
    bytes: u64,
    /// Dead letters.
    dead: u64,
    /// Records that cannot be read.
    quarantined: u64,
    /// When the oldest pending operation was queued.
    oldest_queued_at: Nullable<DateTime<Utc>>,
}

/// The whole truth, in the envelope.
#[derive(Serialize, Object)]
pub struct HealthRead {
    /// The whole truth.
    data: Health,
    /// About the answer.
    meta: Meta,
}

/// What health is answered with.
#[derive(ApiResponse)]
pub enum HealthAnswer {
    /// Everything is as it should be
    #[oai(status = 200)]
    Healthy(Ready<HealthRead>),
    /// Something is not; the service may well go on
    #[oai(status = 503)]
    Degraded(Ready<HealthRead>),
}

/// The routes of health.
pub struct HealthApi;

#[OpenApi]
impl HealthApi {
    /// The process is there.
    #[oai(path = "/live", method = "get", operation_id = "live")]
    async fn live(&self, request: RequestId) -> Ready<Told> {
        told(request, "live")
    }

    /// It can take writes, be it to the buffer.
    #[oai(path = "/ready", method = "get", operation_id = "ready")]
    async fn ready(
        &self,
        state: Data<&Arc<State>>,
        request: RequestId,
    ) -> Result<Ready<Told>, ApiError> {
        if !state.link.is_up() {
            // Asked for by anybody, as often as they like: looked at twice a second.
            let room = state.room.try_get_with((), async { state.buffer.has_room().await });
            room.await.map_err(|error| ApiError::buffer(&error))?;
        }
        Ok(told(request, "ready"))
    }

    /// The whole truth.
    #[oai(path = "/health", method = "get", operation_id = "health")]
    async fn health(
        &self,
        state: Data<&Arc<State>>,
        request: RequestId,
    ) -> Result<HealthAnswer, ApiError> {
        let (redis, stats, worker, paused) = tokio::join!(
            state.redis.is_up(),
            state.buffer.stats(),
            state.buffer.published::<WorkerStatus>(WORKER),
            state.buffer.paused()
        );
        let status = worker?;
        let heard = status.as_ref().is_some_and(WorkerStatus::is_recent);
        let signs = Signs {
            stats: stats?,
            is_paused: paused?.is_some(),
            clock_offset_us: state.store.clock_offset(),
            has_old_copy: state.buffer.is_old_copy()
                || status.as_ref().is_some_and(|status| status.has_old_copy),
            is_buffer_stuck: status.is_some_and(|status| status.is_buffer_stuck),
        };
        let worker = match (heard, signs.is_paused) {
            (true, false) => UP,
            (true, true) => "paused",
            (false, _) => "absent",
        };
        let data = health(state.link.is_up(), redis, worker, &signs);
        let healthy = data.status == HEALTHY;
        let body = Ready::from(HealthRead { data, meta: Meta::now(request.0) });
        Ok(if healthy { HealthAnswer::Healthy(body) } else { HealthAnswer::Degraded(body) })
    }
}

const HEALTHY: &str = "healthy";
const UP: &str = "up";

fn told(request: RequestId, status: &str) -> Ready<Told> {
    Told { data: Answer { status: status.to_owned() }, meta: Meta::now(request.0) }.into()
}

fn health(postgres: bool, redis: bool, worker: &str, signs: &Signs) -> Health {
    let up = |is_up: bool| if is_up { UP } else { "down" }.to_owned();
    let (healthy, stats) = (postgres && redis && worker == UP && !signs.are_grave(), &signs.stats);
    Health {
        status: if healthy { HEALTHY } else { "degraded" }.to_owned(),
        postgres: up(postgres),
        redis: up(redis),
        worker: worker.to_owned(),
        buffer: BufferHealth {
            pending: stats.pending,
            bytes: stats.bytes,
            dead: stats.dead,
            quarantined: stats.quarantined,
            oldest_queued_at: stats
                .oldest_queued_at
                .and_then(DateTime::from_timestamp_millis)
                .into(),
        },
        attention: signs
            .attention()
            .into_iter()
            .map(Attention::as_str)
            .map(str::to_owned)
            .collect(),
    }
}
