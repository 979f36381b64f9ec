//! Whether the indexes of the buffer lead replay to all that is pending: looked at after the start, before
//! anything is taken out, and when replay finds nothing for `REPLAY_STALL_SECONDS` although something is pending. If they do not, the
//! buffer file is repaired.

use std::sync::atomic::Ordering;

use shared::buffer::{BufferError, RepairError};

use crate::context::Context;

/// How the buffer's audit log names the worker.
const BY: &str = "worker";

/// Looks for as long as the worker works.
pub async fn watch(context: &Context) {
    look(context).await;
    context.is_buffer_checked.store(true, Ordering::Release);
    context.wake.notify_one();
    let mut settled = context.settled.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(context.settings.replay_stall()).await;
        let before = std::mem::replace(&mut settled, context.settled.load(Ordering::Relaxed));
        match is_suspect(context, before == settled).await {
            Ok(true) => look(context).await,
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the buffer cannot be read"),
        }
    }
}

/// Whether something is pending that replay does not seem to find. Operations that wait for another
/// attempt are no damage, and a look finds none.
async fn is_suspect(context: &Context, stands_still: bool) -> Result<bool, BufferError> {
    let stats = context.buffer.stats().await?;
    let may_replay = context.link.is_up() && context.buffer.paused().await?.is_none();
    let is_idle = stands_still && may_replay && context.busy.lock().await.is_empty();
    Ok(stats.is_stuck || is_idle && stats.pending > 0)
}

/// Checks the indexes, and repairs the file if they are wrong.
async fn look(context: &Context) {
    match context.buffer.check_indexes().await {
        Ok(found) if found.problem_count == 0 => return,
        Ok(found) => {
            let problems = found.problem_count;
            tracing::error!(problems, first = ?found.problems.first(), "the buffer is damaged");
        }
        Err(BufferError::Damaged(problem)) => tracing::error!(problem, "the buffer is damaged"),
        Err(error) => return tracing::error!(%error, "the buffer cannot be checked"),
    }
    if let Err(error) = repair(context).await {
        tracing::error!(%error, "the buffer is not repaired");
    }
}

async fn repair(context: &Context) -> Result<(), RepairError> {
    context.buffer.repair(BY, false).await?;
    context.wake.notify_one();
    Ok(())
}
