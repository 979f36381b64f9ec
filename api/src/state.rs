//! What every request may use.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use moka::future::Cache;
use shared::buffer::Buffer;
use shared::cache::EntityCache;
use shared::host_clock::HostClock;
use shared::redis::Redis;
use shared::sessions::Sessions;
use shared::store::{Link, Store};
use shared::writes::Writes;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::cors::Cors;
use crate::limits::Limits;
use crate::permission::Routes;
use crate::reads::{TaskReader, Totals};
use crate::settings::ServerSettings;
use crate::standings::Standings;
use crate::tokens::Tokens;

/// What every request may use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct State {
    /// How the api is reached.
    pub server: ServerSettings,
    /// Which pages may call from a browser.
    pub cors: Cors,
    /// How often one client may ask.
    pub limits: Arc<Limits>,
    /// Whose tokens are accepted.
    pub tokens: Arc<Tokens>,
    /// The clock that draws versions.
    pub clock: Arc<HostClock>,
    /// PostgreSQL.
    pub store: Arc<Store>,
    /// The buffer file.
    pub buffer: Arc<Buffer>,
    /// This process's opinion of PostgreSQL.
    pub link: Arc<Link>,
    /// The write path.
    pub writes: Arc<Writes>,
    /// The cache in Redis.
    pub cache: Arc<EntityCache>,
    /// Reads single tasks.
    pub reader: Arc<TaskReader>,
    /// Redis.
    pub redis: Redis,
    /// The sessions of all users.
    pub sessions: Sessions,
    /// What users may do now.
    pub standings: Standings,
    /// The routes as OpenAPI shows them.
    pub routes: Arc<Routes>,
    /// How many tasks users have, as counted lately.
    pub totals: Totals,
    /// That there was room in the buffer lately.
    pub room: Cache<(), ()>,
    /// What goes on when its request has ended; waited for at the end.
    pub tasks: TaskTracker,
    /// At most so many lists are read from PostgreSQL at once: writes need connections too.
    pub listing: Arc<Semaphore>,
    /// Metrics, to be written out.
    pub metrics: PrometheusHandle,
}
