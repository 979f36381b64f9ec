//! The worker named `retention`. It turns operations that are too old into dead letters. It removes dead
//! letters, audit entries, ledger rows and tombstones whose retention has ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use apalis_core::error::BoxDynError;
use chrono::{DateTime, Utc};
use futures::{Stream, stream};
use shared::buffer::BufferError;
use shared::domain::Lane;
use shared::store::StoreError;

use crate::context::Context;
use crate::metric;

/// Statements per look that remove rows in PostgreSQL, for each table, at the most: what is left
/// waits for the next look.
const PURGES: usize = 100;
const HOUR_MS: i64 = 3_600_000;

/// A moment to look.
#[derive(Clone, Copy, Debug)]
pub struct Tick;

/// Ticks, every `RETENTION_INTERVAL_SECONDS`.
pub fn ticks(context: &Context) -> impl Stream<Item = Tick> + Send + 'static + use<> {
    let interval = Duration::from_secs(context.settings.retention_interval_seconds.max(1));
    stream::unfold((), move |()| async move {
        tokio::time::sleep(interval).await;
        Some((Tick, ()))
    })
}

/// One look.
///
/// # Errors
/// None that would need apalis: what could not be done is done at the next look.
pub async fn sweep(context: Arc<Context>) -> Result<(), BoxDynError> {
    let hours = |hours: u64| i64::try_from(hours).unwrap_or(i64::MAX).saturating_mul(HOUR_MS);
    let now = context.steady_now();
    let old = now.saturating_sub(hours(context.settings.buffer_retention_hours));
    let dead = now.saturating_sub(hours(context.settings.dead_retention_hours));
    if let Err(error) = expire(&context, old).await {
        tracing::error!(%error, "old operations could not be set aside");
    }
    if let Err(error) = purge(&context, now, dead).await {
        tracing::error!(%error, "old dead letters could not be removed");
    }
    if context.link.is_up()
        && let Err(error) = purge_rows(&context, now).await
    {
        context.link.report(error);
        tracing::error!(%error, "old rows could not be removed from PostgreSQL");
    }
    metrics::counter!(metric::RETENTION_SWEEPS.name).increment(1);
    Ok(())
}

/// While PostgreSQL takes writes, replay is the better end for what is old, and it may be about to: a host
/// that was switched off is no outage, and its PostgreSQL may come up a little later than this worker.
async fn expire(context: &Context, cutoff: i64) -> Result<(), BufferError> {
    loop {
        // Held until they are set aside, so that none of them is on its way to PostgreSQL.
        let busy = context.busy.lock().await;
        let away = context.link.away_for();
        let is_checked = context.is_buffer_checked.load(Ordering::Acquire);
        if !is_checked || away.is_none_or(|away| away < context.settings.expiry_grace()) {
            return Ok(());
        }
        let mut kept = busy.clone();
        // While one waits there, the cache is not read, whoever came to count on it since.
        kept.insert(Lane::CACHE);
        let expired = context.buffer.expire(cutoff, kept).await?;
        drop(busy);
        if expired == 0 {
            return Ok(());
        }
        metrics::counter!(metric::EXPIRED.name).increment(expired as u64);
        tracing::error!(expired, "operations grew too old: they are dead letters now");
    }
}

async fn purge(context: &Context, now: i64, cutoff: i64) -> Result<(), BufferError> {
    loop {
        let audit = context.buffer.purge_audit(cutoff).await?;
        let purged = context.buffer.purge_dead(cutoff).await?;
        if audit + purged == 0 {
            break;
        }
        tracing::warn!(
            dead = purged,
            audit,
            "the retention of old entries has ended: they were removed"
        );
    }
    while context.buffer.purge_revoked(now).await? > 0 {}
    context.buffer.forget_overtaken().await
}

async fn purge_rows(context: &Context, now: i64) -> Result<(), StoreError> {
    let now: DateTime<Utc> = DateTime::from_timestamp_millis(now).unwrap_or_default();
    let (settings, store) = (&context.settings, &context.store);
    let (mut ledger, mut tombstones) = (0, 0);
    for _ in 0..PURGES {
        let rows = store.purge_ledger(now, settings.ledger_retention_days).await?;
        let deleted = store.purge_tombstones(now, settings.tombstone_retention_days).await?
            + store.purge_erased().await?;
        if rows + deleted == 0 {
            break;
        }
        ledger += rows;
        tombstones += deleted;
    }
    if ledger + tombstones > 0 {
        tracing::info!(ledger, tombstones, "old rows were removed from PostgreSQL");
    }
    Ok(())
}
