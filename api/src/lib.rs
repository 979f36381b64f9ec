//! The api: tasks and profiles over HTTP, written to PostgreSQL or, while that is away, durably to
//! the buffer.

pub mod http;
pub mod reads;
pub mod settings;
pub mod state;
pub mod tokens;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use poem::Server;
use poem::listener::TcpAcceptor;
use shared::buffer::Buffer;
use shared::domain::Clock;
use shared::redis::Redis;
use shared::settings::{BufferSettings, RedisSettings, StoreSettings, load};
use shared::store::{Link, Store, Usage};
use shared::telemetry::keep_condensing;
use shared::writes::Writes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::settings::{ServerSettings, TokenSettings};
use crate::state::State;
use crate::tokens::Tokens;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// How long a write waits for locks of others in PostgreSQL before it goes to the buffer.
const LOCK_TIMEOUT: Duration = Duration::from_millis(50);
/// How long open requests may take once the end has come.
const GRACE: Duration = Duration::from_secs(5);

/// Opens what requests need. PostgreSQL and Redis need not be there.
///
/// # Errors
/// If a setting or the buffer file cannot be used.
pub async fn open(metrics: PrometheusHandle) -> anyhow::Result<(State, StoreSettings)> {
    let server: ServerSettings = load()?;
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
    let clock = Arc::new(Clock::default());
    let writes = Writes::start(
        Arc::clone(&store),
        Arc::clone(&buffer),
        Arc::clone(&link),
        Arc::clone(&clock),
    );
    let state = State {
        server,
        tokens: Arc::new(tokens),
        clock,
        store,
        buffer,
        link,
        writes: Arc::new(writes),
        redis: Redis::new(&redis_settings)?,
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
/// If serving ends for another reason.
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
            let condensing = ended.run_until_cancelled(keep_condensing(&state.metrics));
            tokio::join!(probing, condensing);
        }
    });
    let writes = Arc::clone(&state.writes);
    let served = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?)
        .name("holdfast-api")
        .run_with_graceful_shutdown(http::routes(state), shutdown, Some(GRACE))
        .await;
    writes.close().await;
    ended.cancel();
    background.await.context("a background task panicked")?;
    served.context("serving")
}
