//! Urgency does not starve anybody: what is of low priority waits for a bounded time, under an
//! endless flood of what is more urgent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use serde_json::json;
use shared::buffer::Buffer;
use shared::domain::{Change, Clock, TaskChange};
use shared::settings::BufferSettings;
use tests::{World, wait_until};
use uuid::Uuid;

use crate::node::operation;
use crate::story::{DRAIN, user};

/// Deletes that wait at any time, at the least.
const FLOOD: u64 = 100;
/// A profile (2) stands below deletes (4) for twice this, and above all later ones after thrice.
const AGING_SECONDS: f64 = 1.0;
/// For the batch on its way, and a busy machine.
const SLACK_SECONDS: f64 = 3.0;

/// Keeps [`FLOOD`] deletes and more waiting, until it is told to stop.
async fn flood(buffer: Arc<Buffer>, stop: Arc<AtomicBool>) {
    let clock = Clock::default();
    let user = user();
    while !stop.load(Ordering::Relaxed) {
        if buffer.stats().await.unwrap().by_priority[3] > 2 * FLOOD {
            tokio::task::yield_now().await;
            continue;
        }
        let appended = join_all((0..FLOOD / 2).map(|_| {
            let change =
                Change::Task(TaskChange::Delete { task_id: Uuid::now_v7(), if_match: None });
            buffer.append(operation(clock.next(), user, change), None)
        }));
        assert!(appended.await.iter().all(Result::is_ok), "the flood was refused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_aging_bounds_the_wait_of_a_profile_under_an_endless_flood_of_deletes() {
    let world = World::builder()
        .env("PRIORITY_AGING_SECONDS", AGING_SECONDS.to_string())
        // One at a time, so that the flood is endless; its deletes, of nothing, end at once.
        .env("REPLAY_BATCH_SIZE", "1")
        .env("REPLAY_CONCURRENCY", "1")
        .env("MISSING_RETRY_SECONDS", "0")
        .start()
        .await;
    let client = world.client(user());
    let settings = BufferSettings {
        buffer_path: world.buffer_path(),
        buffer_timeout_ms: 20_000,
        ..BufferSettings::default()
    };
    let buffer = Arc::new(Buffer::open_existing(&settings).unwrap());
    world.postgres_line.cut().await;
    let preferences = json!({ "preferences": { "theme": "dark" } });
    let profile = client.put("/api/v1/profile", &preferences).await.expect(202);
    let stop = Arc::new(AtomicBool::new(false));
    let flooding = tokio::spawn(flood(Arc::clone(&buffer), Arc::clone(&stop)));
    wait_until(DRAIN, "the flood has come", async || {
        buffer.stats().await.unwrap().by_priority[3] >= FLOOD
    })
    .await;
    world.postgres_line.heal().await;

    let operation = profile.text("/meta/sync/operation_id");
    let waited = format!(
        "SELECT extract(epoch FROM applied_at - accepted_at) FROM operations WHERE id = '{operation}'"
    );
    let mut row = String::new();
    wait_until(DRAIN, "the profile was applied in the flood", async || {
        row = world.postgres.psql(&waited).await;
        !row.is_empty()
    })
    .await;
    let left = buffer.stats().await.unwrap();
    stop.store(true, Ordering::Relaxed);
    flooding.await.unwrap();
    let waited: f64 = row.parse().unwrap();
    eprintln!(
        "it waited {waited:.2} s beside {} deletes of which {} were dealt with",
        left.by_priority[3] + left.dead,
        left.dead
    );
    assert!(left.by_priority[3] > 0 && left.dead > 0, "the flood had ended: {left:?}");
    assert!(waited >= 2.0 * AGING_SECONDS, "it did not wait behind the flood");
    assert!(waited <= 3.0 * AGING_SECONDS + SLACK_SECONDS, "it waited {waited} s");
}
