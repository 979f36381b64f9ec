//! What every request may use.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use shared::buffer::Buffer;
use shared::domain::Clock;
use shared::redis::Redis;
use shared::store::{Link, Store};
use shared::writes::Writes;

use crate::settings::ServerSettings;
use crate::tokens::Tokens;

/// What every request may use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct State {
    /// How the api is reached.
    pub server: ServerSettings,
    /// Whose tokens are accepted.
    pub tokens: Arc<Tokens>,
    /// The clock that draws versions.
    pub clock: Arc<Clock>,
    /// PostgreSQL.
    pub store: Arc<Store>,
    /// The buffer file.
    pub buffer: Arc<Buffer>,
    /// This process's opinion of PostgreSQL.
    pub link: Arc<Link>,
    /// The write path.
    pub writes: Arc<Writes>,
    /// Redis.
    pub redis: Redis,
    /// Metrics, to be written out.
    pub metrics: PrometheusHandle,
}
