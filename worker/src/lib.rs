//! The worker: watches PostgreSQL and Redis, replays buffered operations, and keeps the buffer in
//! order. One process, an apalis monitor with three named workers.

pub mod cli;
pub mod context;
pub mod erasure;
pub mod hosts;
pub mod http;
pub mod metric;
pub mod missing;
pub mod monitor;
pub mod outside;
pub mod pace;
pub mod replay;
pub mod retention;
pub mod sessions;
pub mod settings;
pub mod soundness;
pub mod source;
pub mod standby;
pub mod verdict;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use apalis::layers::WorkerBuilderExt;
use apalis_core::monitor::Monitor;
use apalis_core::worker::builder::WorkerBuilder;
use metrics_exporter_prometheus::PrometheusHandle;
use poem::Server;
use poem::listener::TcpAcceptor;
use shared::buffer::Buffer;
use shared::cache::EntityCache;
use shared::redis::Redis;
use shared::settings::{BufferSettings, RedisSettings, StoreSettings, load};
use shared::store::{Store, Usage};
use shared::telemetry::keep_condensing;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::settings::WorkerSettings;
use crate::source::Source;

/// How long replay waits for locks of others in PostgreSQL before it goes on with other lanes.
const LOCK_TIMEOUT: Duration = Duration::from_millis(100);
/// How long batches on their way may take once the end has come.
const GRACE: Duration = Duration::from_secs(4);

/// Opens what the named workers need. PostgreSQL and Redis need not be there.
///
/// # Errors
/// If a setting or the buffer file cannot be used.
pub async fn open() -> anyhow::Result<Context> {
    let settings: WorkerSettings = load()?;
    let buffer_settings: BufferSettings = load()?;
    let store_settings: StoreSettings = load()?;
    let usage = Usage {
        application_name: "holdfast-worker",
        write_timeout: settings.replay_timeout(),
        lock_timeout: LOCK_TIMEOUT,
    };
    let store = Store::new(&store_settings, usage).await?;
    let redis_settings: RedisSettings = load()?;
    let redis = Redis::new(&redis_settings)?;
    let cache = EntityCache::new(&redis_settings, &store)?;
    let buffer = Buffer::open_in_time(buffer_settings, Buffer::open).await?;
    Ok(Context::new(settings, store_settings, store, buffer, redis, cache))
}

/// Works until `shutdown`, then lets batches on their way finish. Stands by first while another worker
/// is active on the same buffer file; its HTTP interface answers meanwhile, unless the other has its port.
///
/// # Errors
/// If the named workers end for another reason, or the HTTP interface cannot be had.
pub async fn run(
    context: Context,
    metrics: PrometheusHandle,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let ended = CancellationToken::new();
    let signal = tokio::spawn({
        let ended = ended.clone();
        async move {
            shutdown.await;
            ended.cancel();
        }
    });
    let context = Arc::new(context);
    let address = SocketAddr::new(context.settings.worker_addr, context.settings.worker_port);
    let path = context.buffer.settings().buffer_path.clone();
    let serve = |listener| serve(&context, &metrics, listener, &ended);
    let mut served = None;
    let lock = {
        let waiting = ended.run_until_cancelled(standby::become_active(&path));
        let mut waiting = pin!(waiting);
        tokio::select! {
            biased;
            lock = &mut waiting => lock,
            listener = http::listen_when_free(address) => {
                served = Some(serve(listener)?);
                waiting.await
            }
        }
    };
    let Some(lock) = lock else { return end(served).await };
    let _active = lock.context("the worker's lock beside BUFFER_PATH")?;
    if served.is_none() {
        let listener = http::listen(address).await;
        served =
            Some(serve(listener.with_context(|| {
                format!("WORKER_ADDR, WORKER_PORT: cannot listen on {address}")
            })?)?);
    }
    context.is_active.store(true, Ordering::Relaxed);
    tracing::info!(%address, "active");
    let worked = tokio::select! {
        worked = supervise(&context, &ended) => worked,
        () = keep_condensing(&metrics) => Ok(()),
    };
    ended.cancel();
    signal.await.context("the task that waits for signals panicked")?;
    let served = end(served).await;
    worked?;
    served
}

type Served = JoinHandle<std::io::Result<()>>;

/// Begins to answer requests, until `ended`.
fn serve(
    context: &Arc<Context>,
    metrics: &PrometheusHandle,
    listener: TcpListener,
    ended: &CancellationToken,
) -> anyhow::Result<Served> {
    let server =
        Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?).name("holdfast-worker");
    let routes = http::routes(Arc::clone(context), metrics.clone());
    let ended = ended.clone().cancelled_owned();
    Ok(tokio::spawn(server.run_with_graceful_shutdown(routes, ended, Some(GRACE))))
}

/// Waits until the last request is answered.
async fn end(served: Option<Served>) -> anyhow::Result<()> {
    let Some(served) = served else { return Ok(()) };
    served.await.context("the HTTP interface panicked")?.context("the HTTP interface")
}

/// Works until `ended`, without an HTTP interface. Waits first while another worker is active on the
/// same buffer file.
///
/// # Errors
/// If the named workers end for another reason.
pub async fn work_until(context: Context, ended: CancellationToken) -> anyhow::Result<()> {
    let path = context.buffer.settings().buffer_path.clone();
    let Some(lock) = ended.run_until_cancelled(standby::become_active(&path)).await else {
        return Ok(());
    };
    let _active = lock.context("the worker's lock beside BUFFER_PATH")?;
    supervise(&Arc::new(context), &ended).await
}

/// Runs the three named workers until `ended`, and starts them anew when replay stalls: when it
/// neither finishes a batch nor looks for work any more.
async fn supervise(context: &Arc<Context>, ended: &CancellationToken) -> anyhow::Result<()> {
    loop {
        context.progress.send_replace(Instant::now());
        tokio::select! {
            worked = run_workers(context, ended) => return worked,
            () = context.link.keep_looking(&context.store) => {}
            () = soundness::watch(context) => {}
            () = stalled(context) => {
                metrics::counter!(metric::REPLAY_STALLS.name).increment(1);
                tracing::error!("replay has stalled: the named workers are started anew");
            }
        }
        context.busy.lock().await.clear();
    }
}

/// Returns when replay has made no progress for as long as the settings allow.
async fn stalled(context: &Context) {
    let mut progress = context.progress.subscribe();
    loop {
        let limit = *progress.borrow_and_update() + context.settings.replay_stall();
        if tokio::time::timeout_at(limit, progress.changed()).await.is_err() {
            return;
        }
    }
}

async fn run_workers(context: &Arc<Context>, ended: &CancellationToken) -> anyhow::Result<()> {
    let findings = Arc::new(Mutex::new(monitor::Findings::default()));
    let (of_monitor, of_replay, of_retention) =
        (Arc::clone(context), Arc::clone(context), Arc::clone(context));
    let monitor = Monitor::new()
        .register(move |_| {
            let (context, findings) = (Arc::clone(&of_monitor), Arc::clone(&findings));
            WorkerBuilder::new("monitor")
                .backend(Source::new(monitor::ticks(Arc::clone(&context))))
                .catch_panic()
                .concurrency(1)
                .build(move |_: monitor::Tick| {
                    monitor::look(Arc::clone(&context), Arc::clone(&findings))
                })
        })
        .register(move |_| {
            let context = Arc::clone(&of_replay);
            WorkerBuilder::new("replay")
                .backend(Source::new(replay::batches(Arc::clone(&context))))
                .catch_panic()
                .concurrency(context.settings.replay_concurrency.max(1))
                .build(move |claimed: replay::Claimed| {
                    replay::replay(Arc::clone(&context), claimed)
                })
        })
        .register(move |_| {
            let context = Arc::clone(&of_retention);
            WorkerBuilder::new("retention")
                .backend(Source::new(retention::ticks(&context)))
                .catch_panic()
                .concurrency(1)
                .build(move |_: retention::Tick| retention::sweep(Arc::clone(&context)))
        })
        .should_restart(|worker, error| {
            tracing::error!(worker = worker.name(), %error, "a named worker ended: restarting it");
            true
        })
        // Lazily: a sleep counts from when it was made.
        .with_terminator(async { tokio::time::sleep(GRACE).await });
    let asked = AtomicBool::new(false);
    let signal = async {
        ended.cancelled().await;
        asked.store(true, Ordering::Relaxed);
        Ok(())
    };
    let result = monitor.run_with_signal(signal).await;
    anyhow::ensure!(asked.load(Ordering::Relaxed), "all named workers have ended: {result:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) async fn context(folder: &std::path::Path) -> Context {
        let settings = WorkerSettings { replay_stall_seconds: 1, ..WorkerSettings::default() };
        let store_settings = StoreSettings::default();
        let usage = Usage {
            application_name: "tests",
            write_timeout: LOCK_TIMEOUT,
            lock_timeout: LOCK_TIMEOUT,
        };
        let buffer_settings = BufferSettings {
            buffer_path: folder.join("data/buffer.redb"),
            ..BufferSettings::default()
        };
        let store = Store::new(&store_settings, usage).await.unwrap();
        let redis = Redis::new(&RedisSettings::default()).unwrap();
        let cache = EntityCache::new(&RedisSettings::default(), &store).unwrap();
        let buffer = Buffer::open(&buffer_settings).unwrap();
        Context::new(settings, store_settings, store, buffer, redis, cache)
    }

    #[tokio::test]
    async fn a_replay_without_any_progress_is_noticed_and_one_that_progresses_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path()).await;
        let progressing = async {
            for _ in 0..15 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                context.progress.send_replace(Instant::now());
            }
        };
        let started = Instant::now();
        tokio::select! {
            () = stalled(&context) => panic!("noticed after {:?}", started.elapsed()),
            () = progressing => {}
        }
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, stalled(&context)).await.expect("the stall is noticed");
    }
}
