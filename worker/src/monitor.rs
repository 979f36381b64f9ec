//! The worker named `monitor`. It checks whether PostgreSQL and Redis are up, migrates the schema,
//! publishes its status in the buffer file, and wakes replay when PostgreSQL is back.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use apalis_core::error::BoxDynError;
use futures::{Stream, stream};
use sea_orm::{ConnectOptions, Database};
use secrecy::ExposeSecret;
use shared::buffer::unix_millis;
use shared::status::{DependencyStatus, HEARTBEAT_LIMIT_MS, ReplayStatus, WORKER, WorkerStatus};
use shared::store::{Class, LinkState, StoreError};
use tokio::sync::Mutex;

use crate::context::Context;
use crate::hosts;
use crate::metric;
use crate::sessions;
use crate::settings::Migrate;

/// Several heartbeats fit into the time after which a worker counts as absent.
const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_LIMIT_MS.unsigned_abs() / 5);
/// While something is down it is looked at no less often than this.
const ANXIOUS: Duration = Duration::from_secs(1);
/// While something is down it is published no more often than this.
const PUBLISH: Duration = Duration::from_secs(1);
/// Bringing the schema up to date may take long, but not for ever.
const MIGRATION: Duration = Duration::from_secs(300);
const MIGRATION_CONNECT: Duration = Duration::from_secs(2);

/// A moment to look.
#[derive(Clone, Copy, Debug)]
pub struct Tick;

/// What was last found and published.
#[derive(Debug, Default)]
pub struct Findings {
    postgres: Option<DependencyStatus>,
    redis: Option<DependencyStatus>,
    published: Option<Instant>,
    checked: Option<Instant>,
    busy_since: Option<(Instant, u64)>,
    /// Operations on sessions that have taken effect while PostgreSQL is away.
    ended_sessions: HashSet<u64>,
}

impl Findings {
    /// True if everything was checked within the interval that the settings name: while all is up,
    /// a heartbeat is all that is due then.
    fn are_fresh(&self, context: &Context) -> bool {
        let interval = Duration::from_secs(context.settings.monitor_interval_seconds);
        self.checked.is_some_and(|at| at.elapsed() + ANXIOUS / 2 < interval)
    }
}

/// Ticks: at once, then every interval, more often while PostgreSQL is away, and when it is lost.
pub fn ticks(context: Arc<Context>) -> impl Stream<Item = Tick> + Send + 'static {
    stream::unfold((context, true), |(context, first)| async move {
        if !first {
            wait(&context).await;
        }
        Some((Tick, (context, false)))
    })
}

async fn wait(context: &Context) {
    if context.link.is_up() {
        let interval = Duration::from_secs(context.settings.monitor_interval_seconds);
        let all_up = context.all_up.load(Ordering::Relaxed);
        let pause = if all_up { interval.clamp(ANXIOUS, HEARTBEAT) } else { ANXIOUS };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = context.link.left(LinkState::Up) => {}
        }
    } else {
        tokio::time::sleep(context.store_settings.probe_interval()).await;
    }
}

/// One look.
///
/// # Errors
/// None that would need apalis: what goes wrong is what is published.
pub async fn look(
    context: Arc<Context>,
    findings: Arc<Mutex<Findings>>,
) -> Result<(), BoxDynError> {
    let mut findings = findings.lock().await;
    let was_up = context.link.is_up();
    let started = Instant::now();
    if was_up && context.all_up.load(Ordering::Relaxed) && findings.are_fresh(&context) {
        hosts::report(&context).await;
        publish(&context, &mut findings).await;
        return Ok(());
    }
    if !was_up {
        context.hosts.forget();
    }
    findings.checked = Some(started);
    let (postgres, redis) = tokio::join!(check_postgres(&context), context.redis.is_up());
    let postgres = postgres.err().map(|error| format!("{} ({error})", error.class().as_str()));
    if context.link.is_up() {
        hosts::report(&context).await;
    }
    if !was_up && context.link.is_up() {
        context.pace.restart();
        context.wake.notify_one();
    }
    context.all_up.store(postgres.is_none() && redis, Ordering::Relaxed);
    if postgres.is_none() {
        findings.ended_sessions.clear();
    } else if redis
        && let Err(error) = sessions::end_early(&context, &mut findings.ended_sessions).await
    {
        tracing::error!(%error, "the buffer cannot be read");
    }
    let redis = (!redis).then(|| "does not answer".to_owned());
    let changed = note(&mut findings.postgres, "postgres", postgres, started)
        | note(&mut findings.redis, "redis", redis, started);
    if changed || findings.published.is_none_or(|at| at.elapsed() >= PUBLISH) {
        publish(&context, &mut findings).await;
    }
    Ok(())
}

async fn check_postgres(context: &Context) -> Result<(), StoreError> {
    if !context.migrated.load(Ordering::Relaxed) && context.settings.migrate == Migrate::Auto {
        // A role that may not migrate, or a line that breaks, is no reason not to look further.
        let migrated = migrate(context).await.is_ok();
        context.migrated.store(migrated, Ordering::Relaxed);
    }
    context.link.probe(&context.store).await.inspect_err(|error| {
        if error.class() == Class::Schema {
            context.migrated.store(false, Ordering::Relaxed);
        }
    })
}

/// Applies pending migrations, if there are any, on a connection of its own, which no statement
/// timeout ends.
async fn migrate(context: &Context) -> Result<(), StoreError> {
    let url = context.store_settings.url();
    let mut options = ConnectOptions::new(url.expose_secret());
    options
        .max_connections(1)
        .acquire_timeout(MIGRATION_CONNECT)
        .sqlx_logging(false)
        .set_application_name("holdfast-worker-migration");
    let work = async {
        let database = Database::connect(options).await?;
        let migrated = match migration::is_current(&database).await {
            Ok(true) => Ok(()),
            Ok(false) => migration::up(&database).await,
            Err(error) => Err(error),
        };
        // A connection that cannot be closed has been lost already.
        let _ = database.close().await;
        migrated
    };
    let migrated = tokio::time::timeout(MIGRATION, work).await;
    migrated.map_err(|_| StoreError::TimedOut)?.map_err(StoreError::from).inspect_err(|error| {
        if matches!(error.class(), Class::Schema | Class::Internal | Class::Auth) {
            tracing::error!(%error, "the schema could not be brought up to date");
        }
    })
}

/// Notes what was found of a service; true if it went up or down.
fn note(
    known: &mut Option<DependencyStatus>,
    service: &'static str,
    error: Option<String>,
    started: Instant,
) -> bool {
    let now = unix_millis();
    let up = error.is_none();
    let since = known.as_ref().filter(|known| known.up == up).map(|known| known.since);
    if since.is_none() {
        match &error {
            None => tracing::info!(service, "a service is up"),
            Some(error) => tracing::error!(service, error, "a service is down"),
        }
    }
    metrics::gauge!(metric::DEPENDENCY_UP.name, "service" => service).set(if up {
        1.0
    } else {
        0.0
    });
    let latency_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    *known = Some(DependencyStatus {
        up,
        since: since.unwrap_or(now),
        checked_at: now,
        latency_ms,
        error,
    });
    since.is_none()
}

async fn publish(context: &Context, findings: &mut Findings) {
    let (Some(postgres), Some(redis)) = (findings.postgres.clone(), findings.redis.clone()) else {
        return;
    };
    let settled = context.settled.load(Ordering::Relaxed);
    let settled_at = context.settled_at.load(Ordering::Relaxed);
    let (since, before) = *findings.busy_since.get_or_insert((Instant::now(), settled));
    let seconds = since.elapsed().as_secs().max(1);
    findings.busy_since = Some((Instant::now(), settled));
    let status = WorkerStatus {
        heartbeat_at: unix_millis(),
        node: context.store_settings.node(),
        postgres,
        redis,
        replay: ReplayStatus {
            last_at: Some(settled_at).filter(|at| *at > 0),
            settled,
            drain_rate: settled.saturating_sub(before) / seconds,
        },
        has_old_copy: context.hosts.has_old_copy() || context.buffer.is_old_copy(),
        is_buffer_stuck: context.is_buffer_stuck.load(Ordering::Relaxed),
    };
    findings.published = Some(Instant::now());
    metrics::gauge!(metric::WORKER_HEARTBEAT.name).set(status.heartbeat_at as f64 / 1000.0);
    if let Err(error) = context.buffer.publish(WORKER, &status).await {
        tracing::error!(%error, "the worker's status cannot be published");
    }
    match context.buffer.stats().await {
        Ok(mut stats) => {
            stats.is_stuck |= context.is_buffer_stuck.load(Ordering::Relaxed);
            stats.record();
        }
        Err(error) => tracing::error!(%error, "the buffer cannot be read"),
    }
}
