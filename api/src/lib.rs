//! The api: tasks and profiles over HTTP, written to PostgreSQL or, while that is away, durably to
//! the buffer.

pub mod connections;
pub mod cors;
pub mod http;
pub mod limits;
mod memo;
pub mod metric;
pub mod permission;
pub mod reads;
pub mod settings;
pub mod shapes;
pub mod standings;
pub mod state;
pub mod tokens;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use moka::future::Cache;
use shared::buffer::Buffer;
use shared::cache::EntityCache;
use shared::host_clock::HostClock;
use shared::redis::Redis;
use shared::sessions::Sessions;
use shared::settings::{BufferSettings, RedisSettings, StoreSettings, load};
use shared::store::{Link, Store, Usage};
use shared::telemetry::keep_condensing;
use shared::writes::Writes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connections::{Connections, serve};
use crate::cors::Cors;
use crate::http::Site;
use crate::limits::Limits;
use crate::reads::{Reader, TaskReader, Totals};
use crate::settings::{LimitSettings, ServerSettings, TokenSettings};
use crate::standings::Standings;
use crate::state::State;
use crate::tokens::Tokens;

/// How long it is remembered that there was room in the buffer.
const ROOM_FRESH: Duration = Duration::from_millis(500);
/// Lists that are read from PostgreSQL at once.
const LISTS: usize = 4;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// How long a write waits for locks of others in PostgreSQL before it goes to the buffer.
const LOCK_TIMEOUT: Duration = Duration::from_millis(50);
/// How long what requests have begun may take once they are answered.
const GRACE: Duration = Duration::from_secs(5);

/// Opens what requests need. PostgreSQL and Redis need not be there.
///
/// # Errors
/// If a setting or the buffer file cannot be used.
pub async fn open(metrics: PrometheusHandle) -> anyhow::Result<(State, StoreSettings)> {
    let server: ServerSettings = load()?;
    server.check()?;
    let limits = Limits::new(&load::<LimitSettings>()?)?;
    let cors = Cors::new(&server.cors_origins)?;
    let buffer_settings: BufferSettings = load()?;
    let store_settings: StoreSettings = load()?;
    let redis_settings: RedisSettings = load()?;
    let token_settings: TokenSettings = load()?;
    let path = buffer_settings.buffer_path.clone();
    let buffer = Buffer::open_in_time(buffer_settings, Buffer::open).await?;
    let tokens = Tokens::new(&token_settings, &path)?;
    let usage = Usage {
        application_name: "holdfast-api",
        write_timeout: Duration::from_millis(store_settings.db_write_timeout_ms),
        lock_timeout: LOCK_TIMEOUT,
    };
    let store = Arc::new(Store::new(&store_settings, usage).await?);
    let (buffer, link) = (Arc::new(buffer), Arc::new(Link::default()));
    let clock = Arc::new(HostClock::open(Arc::clone(&buffer))?);
    let cache = Arc::new(EntityCache::new(&redis_settings, &store)?);
    let writes = Writes::start(
        Arc::clone(&store),
        Arc::clone(&buffer),
        Arc::clone(&link),
        Arc::clone(&cache),
        Arc::clone(&clock),
    );
    let reader = TaskReader::start(Reader {
        store: Arc::clone(&store),
        buffer: Arc::clone(&buffer),
        link: Arc::clone(&link),
        cache: Arc::clone(&cache),
        clock: Arc::clone(&clock),
        known: writes.known().clone(),
    });
    let redis = Redis::new(&redis_settings)?;
    let state = State {
        server,
        sessions: Sessions::new(redis.clone()),
        standings: Standings::new(
            Arc::clone(&store),
            Arc::clone(&buffer),
            Arc::clone(&link),
            Arc::clone(&clock),
        ),
        routes: Arc::new(http::documented_routes()),
        cors,
        limits: Arc::new(limits),
        tokens: Arc::new(tokens),
        clock,
        store,
        buffer,
        link,
        writes: Arc::new(writes),
        cache,
        reader: Arc::new(reader),
        redis,
        totals: Totals::default(),
        room: Cache::builder().max_capacity(1).time_to_live(ROOM_FRESH).build(),
        tasks: TaskTracker::new(),
        listing: Arc::new(Semaphore::new(LISTS)),
        metrics,
    };
    Ok((state, store_settings))
}

/// Binds the address that the settings name.
///
/// # Errors
/// If it cannot be had.
pub fn listen(settings: &ServerSettings) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(settings.server_addr, settings.server_port);
    let bind = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // Inherited by accepted connections: answers are small and must not wait for more.
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().with_context(|| format!("SERVER_ADDR, SERVER_PORT: cannot listen on {address}"))
}

/// Serves until `shutdown`, then finishes what has been accepted.
///
/// # Errors
/// If the listener does not know its own address, or a background task panicked.
pub async fn run(
    listener: TcpListener,
    state: State,
    settings: &StoreSettings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    // With PostgreSQL there, the first request shall find the link up.
    let _ = state.link.probe(&state.store).await;
    let ended = CancellationToken::new();
    let background = tokio::spawn({
        let (state, interval) = (state.clone(), settings.probe_interval());
        let ended = ended.clone();
        async move {
            let probing = state.link.keep_probing(&state.store, interval, ended.clone());
            let looking = ended.run_until_cancelled(state.link.keep_looking(&state.store));
            let condensing = ended.run_until_cancelled(keep_condensing(&state.metrics));
            let sweeping = ended.run_until_cancelled(state.limits.keep_sweeping());
            let reading = ended.run_until_cancelled(state.tokens.keep_reading());
            let marking = ended.run_until_cancelled(state.clock.keep_marks());
            tokio::join!(probing, looking, condensing, sweeping, reading, marking);
        }
    });
    let tasks = state.tasks.clone();
    let (writes, reader) = (Arc::clone(&state.writes), Arc::clone(&state.reader));
    let closing = CancellationToken::new();
    let connections = Connections::new(listener, &state.server, closing.clone())?;
    let shutdown = async move {
        shutdown.await;
        closing.cancel();
    };
    serve(connections, Arc::new(Site::new(Arc::new(state))), shutdown).await;
    writes.close().await;
    reader.close().await;
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!("an erasure was not finished: the worker finishes it");
    }
    ended.cancel();
    background.await.context("a background task panicked")
}
