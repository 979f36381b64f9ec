//! The worker named `replay`: brings buffered operations to PostgreSQL, batch by batch.
//!
//! A batch takes the most urgent lanes. It is applied in PostgreSQL, and then settled in the buffer. A
//! crash between the two leaves operations in the buffer that have ledger rows. The next replay finds
//! them to be duplicates and removes them.
//!
//! While a batch is in flight its lanes are busy. So batches in flight are disjoint, and no lane is
//! applied out of order.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use apalis_core::error::BoxDynError;
use futures::{Stream, stream};
use shared::buffer::{Batch, BatchLimits, Settlement, Verdict, unix_millis};
use shared::domain::{Lane, Operation, Outcome};
use shared::online::online;
use shared::store::{Applied, Effect, Source};
use tokio::time::Instant;

use crate::context::Context;
use crate::metric;
use crate::outside;
use crate::verdict::{Claim, verdict};

/// Bytes in a batch at the most.
const BATCH_BYTES: usize = 4 << 20;
/// How often the buffer is looked into while the link is up: other processes put operations there.
const LOOK: Duration = Duration::from_millis(100);
/// Pause after PostgreSQL or the buffer did not do what was asked, though the link is up.
const PAUSE: Duration = Duration::from_millis(200);

/// A batch whose lanes are marked busy.
#[derive(Debug)]
pub struct Claimed {
    batch: Batch,
    release: Release,
}

/// Batches, as they become due.
pub fn batches(context: Arc<Context>) -> impl Stream<Item = Claimed> + Send + 'static {
    stream::unfold(context, |context| async move {
        loop {
            context.progress.send_replace(Instant::now());
            if context.link.is_up()
                && context.is_buffer_checked.load(Ordering::Acquire)
                && context.hosts.have_been_told()
                && let Some(claimed) = claim(&context).await
            {
                return Some((claimed, context));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = context.wake.notified() => {}
            }
        }
    })
}

/// Takes the next batch and marks its lanes busy; `None` if there is nothing to do now.
async fn claim(context: &Arc<Context>) -> Option<Claimed> {
    match context.buffer.paused().await {
        Ok(None) => {}
        Ok(Some(_)) => return None,
        Err(error) => {
            tracing::error!(%error, "the buffer cannot be read");
            return None;
        }
    }
    let mut busy = context.busy.lock().await;
    if context.pace.one_at_a_time() && !busy.is_empty() {
        return None;
    }
    let limits = BatchLimits {
        operations: context.pace.size(),
        bytes: BATCH_BYTES,
        aging: Duration::from_secs(context.settings.priority_aging_seconds),
        longest_wait: Duration::from_millis(context.settings.retry_max_ms),
    };
    let batch = match context.buffer.next_batch(unix_millis(), limits, busy.clone()).await {
        Ok(batch) => batch,
        Err(error) => {
            tracing::error!(%error, "the buffer cannot be read");
            return None;
        }
    };
    if batch.entries.is_empty() && batch.damaged.is_empty() {
        return None;
    }
    let lanes: HashSet<Lane> = batch.entries.iter().map(|entry| entry.operation.lane()).collect();
    busy.extend(lanes.iter().copied());
    drop(busy);
    Some(Claimed { batch, release: Release { context: Arc::clone(context), lanes } })
}

/// Applies and settles one batch. One that takes longer than replay may stall is let go: its lanes
/// are free again, and the ledger tells what became of it.
///
/// # Errors
/// None that would need apalis: what could not be settled stays in the buffer and comes again.
pub async fn replay(context: Arc<Context>, claimed: Claimed) -> Result<(), BoxDynError> {
    let Claimed { batch, release } = claimed;
    let work = work_off(&context, batch);
    let rest = tokio::time::timeout(context.settings.replay_stall(), work).await;
    if rest.is_err() {
        metrics::counter!(metric::REPLAY_STALLS.name).increment(1);
        tracing::error!("a batch has stalled: it is let go and will come again");
    }
    context.progress.send_replace(Instant::now());
    tokio::time::sleep(rest.unwrap_or_default()).await;
    release.now().await;
    Ok(())
}

/// Works a batch off, and tells how long to rest after it.
async fn work_off(context: &Context, batch: Batch) -> Duration {
    let (started, size) = (Instant::now(), batch.entries.len());
    let settlements = apply(context, batch).await;
    let settled = settlements.len();
    if let Err(error) = context.buffer.settle(settlements).await {
        tracing::error!(%error, "a batch was applied and could not be settled: it will come again");
        tokio::time::sleep(PAUSE).await;
    } else if settled > 0 {
        context.settled.fetch_add(settled as u64, Ordering::Relaxed);
        context.settled_at.store(unix_millis(), Ordering::Relaxed);
    }
    let took = started.elapsed();
    metrics::histogram!(metric::REPLAY_BATCH_DURATION.name).record(took);
    let path = context.buffer.settings().buffer_path.clone();
    let online = tokio::task::spawn_blocking(move || online(&path)).await.unwrap_or_default();
    if context.link.is_up() { context.pace.rest_after(size, took, online) } else { Duration::ZERO }
}

/// Gives lanes free again, also if the batch is dropped on its way.
#[derive(Debug)]
struct Release {
    context: Arc<Context>,
    lanes: HashSet<Lane>,
}

impl Release {
    async fn now(mut self) {
        let lanes = std::mem::take(&mut self.lanes);
        self.context.busy.lock().await.retain(|lane| !lanes.contains(lane));
        self.context.wake.notify_one();
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        if self.lanes.is_empty() {
            return;
        }
        // Dropped on its way: give the lanes free as soon as nobody is choosing any.
        let (context, lanes) = (Arc::clone(&self.context), std::mem::take(&mut self.lanes));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                context.busy.lock().await.retain(|lane| !lanes.contains(lane));
            });
        }
    }
}

/// Applies a batch and tells what is to become of each operation that PostgreSQL has dealt with.
async fn apply(context: &Context, batch: Batch) -> Vec<Settlement> {
    let Batch { mut entries, damaged } = batch;
    if !damaged.is_empty() && !outside::after_damage(context, &mut entries).await {
        tokio::time::sleep(PAUSE).await;
        return Vec::new();
    }
    let damaged = damaged
        .into_iter()
        .map(|(place, damage)| Settlement { place, verdict: Verdict::Damaged(damage) });
    let mut settlements: Vec<Settlement> = damaged.collect();
    let (entries, waiting) = outside::before_postgres(context, entries).await;
    settlements.extend(waiting);
    if entries.is_empty() {
        return settlements;
    }
    let (claims, mut operations): (Vec<Claim>, Vec<Operation>) =
        entries.into_iter().map(Claim::of).unzip();
    let fenced = context.cache.fence(&operations).await;
    let Applied { effects, error } = context.store.apply(&mut operations, Source::Replay).await;
    if !context.cache.changed(fenced, &context.buffer).await {
        // They stay in the buffer, laid over what is read, and the ledger knows them.
        tokio::time::sleep(PAUSE).await;
        return settlements;
    }
    if let Err(error) = outside::after_postgres(context, &operations, &effects).await {
        tracing::error!(error = format!("{error:#}"), "a user cannot be erased yet");
        tokio::time::sleep(PAUSE).await;
        return settlements;
    }
    for ((claim, operation), effect) in claims.iter().zip(&operations).zip(&effects) {
        if let Some(verdict) = verdict(context, claim, operation, effect) {
            settlements.push(Settlement { place: claim.place, verdict });
        }
    }
    count(&claims, &effects);
    let Some(error) = error else { return settlements };
    context.link.report(error);
    context.pace.restart();
    if context.link.is_up() {
        tracing::warn!(%error, "a batch could not be applied: it will come again");
        tokio::time::sleep(PAUSE).await;
    }
    settlements
}

/// Counts what took effect, and how long it had waited.
fn count(claims: &[Claim], effects: &[Effect]) {
    let (now, lags) = (unix_millis(), metrics::histogram!(metric::REPLAY_LAG.name));
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    for (claim, effect) in claims.iter().zip(effects) {
        if let Some(state) = effect.outcome.and_then(Outcome::ledger_state) {
            *outcomes.entry(state.as_str()).or_default() += 1;
            let lag = u64::try_from(now - claim.queued_at).unwrap_or(0);
            lags.record(Duration::from_millis(lag));
        }
    }
    for (outcome, number) in outcomes {
        metrics::counter!(metric::REPLAY_OPERATIONS.name, "outcome" => outcome).increment(number);
    }
}
