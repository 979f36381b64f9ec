//! A buffer file filled fast: through the buffer itself, with the product's processes stopped.

use std::path::Path;
use std::sync::Arc;

use chrono::Utc;
use futures::{StreamExt, TryStreamExt, stream};
use shared::buffer::{Buffer, Stats};
use shared::domain::{
    Actor, Change, Clock, Description, Operation, Role, TaskFields, TaskStatus, Title,
};
use shared::settings::BufferSettings;
use uuid::Uuid;

/// Appends on their way at once: enough for full groups, and fewer than may wait.
const AT_ONCE: usize = 3000;
const FIRST_USER: u128 = 0x5eed_0000_0000_4000_8000_0000_0000_0000;

/// Appends creates of `users` users until there are `target`; what the buffer then holds.
pub(super) async fn fill(path: &Path, users: usize, target: u64) -> anyhow::Result<Stats> {
    let settings = BufferSettings {
        buffer_path: path.to_path_buf(),
        buffer_max_size: u64::MAX,
        buffer_max_bytes: u64::MAX,
        buffer_user_share: u64::MAX,
        buffer_user_bytes: u64::MAX,
        buffer_timeout_ms: 60_000,
        buffer_cache_bytes: 256 << 20,
        ..BufferSettings::default()
    };
    let buffer = Buffer::open(&settings)?;
    let clock = Arc::new(Clock::default());
    let missing = target.saturating_sub(buffer.stats().await?.pending);
    let appends = (0..missing).map(|number| {
        let user = FIRST_USER + u128::from(number) % users as u128;
        buffer.append(create(&clock, Uuid::from_u128(user)), Some(Arc::clone(&clock)))
    });
    stream::iter(appends).buffer_unordered(AT_ONCE).try_for_each(async |_| Ok(())).await?;
    Ok(buffer.stats().await?)
}

fn create(clock: &Clock, user_id: Uuid) -> Operation {
    let description =
        "The two on the left need more than the others, and the fern needs none at all this week.";
    let fields = TaskFields {
        title: Title::stored("Water the plants on the balcony".to_owned()),
        description: Some(Description::stored(description.to_owned())),
        status: TaskStatus::Pending,
    };
    Operation {
        id: clock.next(),
        actor: Actor { user_id, role: Role::User, session_id: None },
        change: Change::TaskCreate { task_id: clock.next().as_uuid(), fields },
        accepted_at: Utc::now(),
        request_id: Uuid::new_v4(),
        traceparent: None,
    }
}
