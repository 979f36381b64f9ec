//! The worker named `retention`: makes dead letters of operations that have grown too old, and ends
//! the retention of dead letters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use apalis_core::error::BoxDynError;
use futures::{Stream, stream};
use shared::buffer::{BufferError, unix_millis};

use crate::context::Context;

/// How often old operations are looked for.
const INTERVAL: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 3_600_000;

/// A moment to look, by a clock that does not jump.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    now: i64,
}

/// Ticks once a minute. Their time is the wall clock at the start plus the time that has passed since
/// by the monotonic clock, so a wall clock that jumps ahead makes nothing old.
pub fn ticks() -> impl Stream<Item = Tick> + Send + 'static {
    let (wall, started) = (unix_millis(), Instant::now());
    stream::unfold((), move |()| async move {
        tokio::time::sleep(INTERVAL).await;
        let passed = i64::try_from(started.elapsed().as_millis()).unwrap_or(0);
        Some((Tick { now: wall.saturating_add(passed) }, ()))
    })
}

/// One look.
///
/// # Errors
/// None that would need apalis: what could not be done is done a minute later.
pub async fn sweep(context: Arc<Context>, tick: Tick) -> Result<(), BoxDynError> {
    let hours = |hours: u64| i64::try_from(hours).unwrap_or(i64::MAX).saturating_mul(HOUR_MS);
    let old = tick.now.saturating_sub(hours(context.settings.buffer_retention_hours));
    let dead = tick.now.saturating_sub(hours(context.settings.dead_retention_hours));
    // While PostgreSQL takes writes, replay is the better end for what is old.
    if !context.link.is_up()
        && let Err(error) = expire(&context, old).await
    {
        tracing::error!(%error, "old operations could not be set aside");
    }
    if let Err(error) = purge(&context, dead).await {
        tracing::error!(%error, "old dead letters could not be removed");
    }
    Ok(())
}

async fn expire(context: &Context, cutoff: i64) -> Result<(), BufferError> {
    loop {
        // Held until they are set aside, so that none of them is on its way to PostgreSQL.
        let busy = context.busy.lock().await;
        let expired = context.buffer.expire(cutoff, busy.clone()).await?;
        drop(busy);
        if expired == 0 {
            return Ok(());
        }
        metrics::counter!("expired_total").increment(expired as u64);
        tracing::error!(expired, "operations grew too old: they are dead letters now");
    }
}

async fn purge(context: &Context, cutoff: i64) -> Result<(), BufferError> {
    loop {
        let audit = context.buffer.purge_audit(cutoff).await?;
        let purged = context.buffer.purge_dead(cutoff).await?;
        if audit + purged == 0 {
            return Ok(());
        }
        tracing::warn!(
            dead = purged,
            audit,
            "the retention of old entries has ended: they were removed"
        );
    }
}
