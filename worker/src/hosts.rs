//! The hosts that share a PostgreSQL. Before replay begins after an outage, and with each heartbeat,
//! this host reports what its buffer file has pending. It also reads the reports of the other hosts.
//!
//! The report covers pending operations on tasks, because one of them may be the create that another
//! host waits for. It leaves out an operation that itself waits for a create of another host, and those
//! behind it in its lane. Otherwise two hosts with such operations would wait for one another.
//!
//! The row of this host also tells whether its buffer file is an older copy that was put back.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use shared::buffer::{BufferError, FileId};
use shared::domain::{Lane, Operation};
use shared::store::{HostReport, OtherHosts};

use crate::context::Context;
use crate::missing::{Missing, Patience, is_gone};

/// Lanes whose waiting is kept in mind at the most.
const LANES: usize = 10_000;

/// What is known of other hosts, and what here waits for them.
#[derive(Debug, Default)]
pub struct Hosts {
    /// What they have said; `None` if they could not be asked.
    others: Mutex<Option<OtherHosts>>,
    /// Lanes whose head waits for a create.
    waiting: Mutex<HashSet<Lane>>,
    /// Whether this host has tried to report since PostgreSQL is up.
    has_reported: AtomicBool,
    has_old_copy: AtomicBool,
    /// Whether people know that reports fail.
    is_failing: AtomicBool,
}

impl Hosts {
    /// True if replay may begin: others were told first that something is pending here.
    #[must_use]
    pub fn have_been_told(&self) -> bool {
        self.has_reported.load(Ordering::Acquire)
    }

    /// True if PostgreSQL knew a newer state of the buffer file since this process started.
    #[must_use]
    pub fn has_old_copy(&self) -> bool {
        self.has_old_copy.load(Ordering::Relaxed)
    }

    /// PostgreSQL is away: what is known of other hosts is no longer true when it comes back.
    pub fn forget(&self) {
        self.has_reported.store(false, Ordering::Release);
        *locked(&self.others) = None;
    }

    /// Notes that the head of a lane waits for its entity.
    pub fn waits(&self, lane: Lane) {
        let mut waiting = locked(&self.waiting);
        if waiting.len() < LANES {
            waiting.insert(lane);
        }
    }

    /// Notes that the head of a lane does not wait for its entity any more.
    pub fn goes_on(&self, lane: Lane) {
        locked(&self.waiting).remove(&lane);
    }

    fn waiting(&self) -> HashSet<Lane> {
        locked(&self.waiting).clone()
    }

    fn others(&self) -> Option<OtherHosts> {
        *locked(&self.others)
    }
}

/// True if an operation's entity is not there and will not come any more.
pub fn is_given_up(context: &Context, operation: &Operation, queued_at: i64) -> bool {
    let settings = &context.settings;
    let patience = Patience { least: settings.missing_retry(), most: settings.buffer_retention() };
    let queued_for = context.steady_now().saturating_sub(queued_at);
    let queued_for = Duration::from_millis(u64::try_from(queued_for).unwrap_or(0));
    let missing = Missing {
        accepted_at: by_postgres(context, operation.accepted_at),
        queued_for,
        up_for: context.link.up_within(queued_for),
    };
    is_gone(&missing, patience, context.hosts.others())
}

/// Says how the buffer file stands, and reads what other hosts have said. That this fails is no outage:
/// then nobody knows what others hold.
pub async fn report(context: &Context) {
    let hosts = &context.hosts;
    match exchange(context).await {
        Ok(others) => {
            *locked(&hosts.others) = Some(others);
            hosts.is_failing.store(false, Ordering::Relaxed);
        }
        Err(error) => {
            *locked(&hosts.others) = None;
            if !hosts.is_failing.swap(true, Ordering::Relaxed) {
                let error = format!("{error:#}");
                tracing::warn!(
                    error,
                    "other hosts cannot be asked what they hold: changes of what is not there wait"
                );
            }
        }
    }
    hosts.has_reported.store(true, Ordering::Release);
}

async fn exchange(context: &Context) -> anyhow::Result<OtherHosts> {
    let (report, id) = prepare(context).await?;
    let known = context.store.report_host(report, context.settings.buffer_retention()).await?;
    if let Some((generation, heard_at)) = known.own
        && generation > id.generation
    {
        context.hosts.has_old_copy.store(true, Ordering::Relaxed);
        tracing::warn!(newer_was_seen_at = %heard_at, "PostgreSQL knows a newer buffer file");
        if !context.buffer.is_old_copy() {
            context.buffer.tell_of_old_copy();
        }
    }
    Ok(known.others)
}

async fn prepare(context: &Context) -> Result<(HostReport, FileId), BufferError> {
    let id = context.buffer.file_id().await?;
    let oldest = context.buffer.oldest_task_but(context.hosts.waiting()).await?;
    let oldest = oldest.and_then(DateTime::from_timestamp_millis);
    let report = HostReport {
        file: id.file,
        generation: id.generation,
        oldest_pending_at: oldest.map(|at| by_postgres(context, at)),
    };
    Ok((report, id))
}

/// A time of this host by PostgreSQL's clock, as they are apart now.
fn by_postgres(context: &Context, at: DateTime<Utc>) -> DateTime<Utc> {
    at.checked_add_signed(TimeDelta::microseconds(context.store.clock_offset())).unwrap_or(at)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
