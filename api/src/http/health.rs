//! Probes: whether the process answers, whether it takes writes, and the state of this node in full.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use poem::web::Data;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Serialize;
use shared::attention::{Attention, Signs};
use shared::status::{WORKER, WorkerStatus};

use super::envelope::Meta;
use super::error::ApiError;
use super::ready::Ready;
use super::shell::RequestId;
use crate::shapes::Nullable;
use crate::state::State;

/// What a probe found: `live` or `ready`.
#[derive(Clone, Copy, Debug, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum ProbeStatus {
    /// The process answers.
    Live,
    /// The process takes writes.
    Ready,
}

/// The state of this process.
#[derive(Serialize, Object)]
pub struct Probe {
    /// The state of this process.
    status: ProbeStatus,
}

/// The process is as the probe asks.
#[derive(Serialize, Object)]
pub struct ProbeRead {
    /// The state of this process.
    data: Probe,
    /// About the answer.
    meta: Meta,
}

/// Whether this node is as it should be: `degraded` if PostgreSQL, Redis or the worker is not up, or
/// something needs attention that cannot wait. A degraded node may still serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum HealthStatus {
    /// All is as it should be.
    Healthy,
    /// Something is not.
    Degraded,
}

/// Whether a server can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum ServerStatus {
    /// It can.
    Up,
    /// It cannot. Without PostgreSQL, writes go to the buffer; without Redis, everything is slower.
    Down,
}

impl ServerStatus {
    fn of(is_up: bool) -> Self {
        if is_up { Self::Up } else { Self::Down }
    }
}

/// Whether the worker of this host replays: `absent` if none runs, `paused` if an operator has stopped
/// replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum ReplayStatus {
    /// It replays.
    Up,
    /// An operator has stopped replay.
    Paused,
    /// No worker runs.
    Absent,
}

/// What an operator should look at: `dead_letters` (replay has given operations up), `quarantine` (records
/// cannot be read), `buffer_stuck` (replay cannot reach some pending operations), `paused` (an operator has
/// stopped replay), `clock_skew` (the clocks of PostgreSQL and this host are more than a second apart),
/// `old_copy` (the buffer file is an older copy of itself).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename = "Attention", rename_all = "snake_case", remote = "Attention")]
pub enum AttentionName {
    /// Replay has given operations up.
    DeadLetters,
    /// Records cannot be read.
    Quarantine,
    /// Replay cannot reach some pending operations.
    BufferStuck,
    /// An operator has stopped replay.
    Paused,
    /// The clocks of PostgreSQL and this host are more than a second apart.
    ClockSkew,
    /// The buffer file is an older copy of itself.
    OldCopy,
}

/// The state of this node.
#[derive(Serialize, Object)]
pub struct Health {
    /// Whether the node is as it should be.
    status: HealthStatus,
    /// Whether PostgreSQL takes writes.
    postgres: ServerStatus,
    /// Whether Redis answers.
    redis: ServerStatus,
    /// Whether the worker replays.
    worker: ReplayStatus,
    /// The buffer.
    buffer: BufferHealth,
    /// What an operator should look at. `dead_letters`, `quarantine` and a `clock_skew` of up to a minute
    /// can wait, and leave `status` as it is.
    attention: Vec<AttentionName>,
}

/// What the buffer of this host holds.
#[derive(Serialize, Object)]
pub struct BufferHealth {
    /// Pending operations.
    pending: u64,
    /// Bytes that the pending operations take.
    bytes: u64,
    /// Dead letters: operations that replay has given up.
    dead: u64,
    /// Records in quarantine: they cannot be read.
    quarantined: u64,
    /// When the oldest pending operation came into the buffer. Null if none is pending.
    oldest_queued_at: Nullable<DateTime<Utc>>,
}

/// The state of this node.
#[derive(Serialize, Object)]
pub struct HealthRead {
    /// The state of this node.
    data: Health,
    /// About the answer.
    meta: Meta,
}

/// What health is answered with.
#[derive(ApiResponse)]
pub enum HealthAnswer {
    /// The node is healthy.
    #[oai(status = 200)]
    Healthy(Ready<HealthRead>),
    /// The node is degraded, and may still serve.
    #[oai(status = 503)]
    Degraded(Ready<HealthRead>),
}

/// The routes of health.
pub struct HealthApi;

#[OpenApi]
impl HealthApi {
    /// Probe whether the process answers.
    #[oai(path = "/live", method = "get", operation_id = "live")]
    async fn live(&self, request: RequestId) -> Ready<ProbeRead> {
        probed(request, ProbeStatus::Live)
    }

    /// Probe whether the process takes writes, to PostgreSQL or to the buffer.
    #[oai(path = "/ready", method = "get", operation_id = "ready")]
    async fn ready(
        &self,
        state: Data<&Arc<State>>,
        request: RequestId,
    ) -> Result<Ready<ProbeRead>, ApiError> {
        if !state.link.is_up() {
            // Asked for by anybody, as often as they like: looked at twice a second.
            let room = state.room.try_get_with((), async { state.buffer.has_room().await });
            room.await.map_err(|error| ApiError::from(&*error))?;
        }
        Ok(probed(request, ProbeStatus::Ready))
    }

    /// Read the state of this node: PostgreSQL, Redis, the worker, the buffer.
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
            (true, false) => ReplayStatus::Up,
            (true, true) => ReplayStatus::Paused,
            (false, _) => ReplayStatus::Absent,
        };
        let data = health(state.link.is_up(), redis, worker, &signs);
        let healthy = data.status == HealthStatus::Healthy;
        let body = Ready::from(HealthRead { data, meta: Meta::now(request.0) });
        Ok(if healthy { HealthAnswer::Healthy(body) } else { HealthAnswer::Degraded(body) })
    }
}

fn probed(request: RequestId, status: ProbeStatus) -> Ready<ProbeRead> {
    ProbeRead { data: Probe { status }, meta: Meta::now(request.0) }.into()
}

fn health(postgres: bool, redis: bool, worker: ReplayStatus, signs: &Signs) -> Health {
    let healthy = postgres && redis && worker == ReplayStatus::Up && !signs.are_grave();
    let stats = &signs.stats;
    Health {
        status: if healthy { HealthStatus::Healthy } else { HealthStatus::Degraded },
        postgres: ServerStatus::of(postgres),
        redis: ServerStatus::of(redis),
        worker,
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
        attention: signs.attention().into_iter().map(AttentionName::from).collect(),
    }
}
