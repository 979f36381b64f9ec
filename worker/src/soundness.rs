//! Checks whether the indexes of the buffer lead replay to all pending operations. If they do not, it
//! repairs the buffer file.
//!
//! It checks after the start, before replay takes anything out. It checks again when replay finds
//! nothing for `REPLAY_STALL_SECONDS` although operations are pending.

use std::sync::atomic::Ordering;

use shared::buffer::BufferError;

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

/// Whether something is pending that replay does not seem to find, or was damaged when it was last looked
/// at. Operations that wait for another attempt are no damage.
async fn is_suspect(context: &Context, stands_still: bool) -> Result<bool, BufferError> {
    let stats = context.buffer.stats().await?;
    let may_replay = context.link.is_up() && context.buffer.paused().await?.is_none();
    let is_idle = stands_still && may_replay && context.busy.lock().await.is_empty();
    let is_left = is_idle && stats.pending > 0 && stats.waiting_lanes == 0;
    Ok(stats.is_stuck || is_left || context.is_buffer_stuck.load(Ordering::Relaxed))
}

/// Checks the indexes, and repairs the file if they are wrong. Keeps whether they still are.
async fn look(context: &Context) {
    let is_stuck = match context.buffer.check_indexes().await {
        Ok(found) if found.problem_count == 0 => false,
        Ok(found) => {
            let problems = found.problem_count;
            tracing::error!(problems, first = ?found.problems.first(), "the buffer is damaged");
            !is_repaired(context).await
        }
        Err(BufferError::Damaged(problem)) => {
            tracing::error!(problem, "the buffer is damaged");
            !is_repaired(context).await
        }
        Err(error) => return tracing::error!(%error, "the buffer cannot be checked"),
    };
    context.is_buffer_stuck.store(is_stuck, Ordering::Relaxed);
}

async fn is_repaired(context: &Context) -> bool {
    match context.buffer.repair(BY, false).await {
        Ok(_) => {
            context.wake.notify_one();
            true
        }
        Err(error) => {
            tracing::error!(%error, "the buffer is not repaired");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::buffer::{Buffer, sibling};
    use shared::domain::{
        Actor, Change, Clock, Operation, Role, TaskChange, TaskFields, TaskStatus, Title, Version,
    };
    use shared::settings::BufferSettings;
    use uuid::Uuid;

    use super::*;
    use crate::tests::context;

    fn operation(clock: &Clock, task: u128) -> Operation {
        let title = Title::stored("title".to_owned());
        let fields = TaskFields { title, description: None, status: TaskStatus::Pending };
        let user_id = Uuid::from_u128(task % 7);
        Operation {
            id: clock.next(),
            actor: Actor { user_id, role: Role::User, session_id: None },
            change: Change::Task(TaskChange::Create { task_id: Uuid::from_u128(task), fields }),
            accepted_at: chrono::Utc::now(),
            request_id: Uuid::from_u128(3),
            traceparent: None,
        }
    }

    /// Has the index of ids name another one, in a file that nobody has open.
    fn damage(path: &std::path::Path, id: Version) {
        let mut bytes = std::fs::read(path).unwrap();
        let id = id.as_uuid().as_u128().to_le_bytes();
        let mut found = 0;
        for page in bytes.chunks_mut(4096) {
            let has = |page: &[u8], it: &[u8]| page.windows(it.len()).position(|its| its == it);
            if has(page, b"title").is_none()
                && let Some(at) = has(page, &id)
            {
                (page[at], found) = (!page[at], found + 1);
            }
        }
        assert!(found > 0);
        std::fs::write(path, bytes).unwrap();
    }

    #[tokio::test]
    async fn damage_that_cannot_be_repaired_is_kept_until_a_look_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/buffer.redb");
        let settings = BufferSettings { buffer_path: path.clone(), ..BufferSettings::default() };
        let buffer = Buffer::open(&settings).unwrap();
        // So many that the index has leaves, which are not looked at when a file is opened.
        let clock = Clock::default();
        let appends = (0..400).map(|task| buffer.append(operation(&clock, task), None));
        let ids = futures::future::try_join_all(appends).await.unwrap();
        drop(buffer);
        damage(&path, ids[0]);
        // Where the new file is made.
        let obstacle = sibling(&path, "repairing");
        std::fs::create_dir(&obstacle).unwrap();
        let context = context(folder.path()).await;
        let is_stuck = || context.is_buffer_stuck.load(Ordering::Relaxed);
        look(&context).await;
        assert!(is_stuck());
        assert!(is_suspect(&context, false).await.unwrap(), "it is looked at again");
        std::fs::remove_dir(&obstacle).unwrap();
        look(&context).await;
        assert!(!is_stuck());
        assert!(!is_suspect(&context, false).await.unwrap());
        look(&context).await;
        assert!(!is_stuck());
    }
}
