//! The buffer on a real file: what a group of appends and what a batch costs, empty and with many
//! entries. `cargo bench -p shared --bench buffer`
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has nothing to say")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use futures::future::join_all;
use shared::buffer::{BatchLimits, Buffer, unix_millis};
use shared::domain::{
    Actor, Change, Clock, Operation, Role, TaskChange, TaskFields, TaskStatus, Title,
};
use shared::settings::BufferSettings;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Appends that the buffer gathers into one commit at the most.
const GROUP: usize = 1024;
const DEEP: usize = 100_000;

fn main() {
    divan::main();
}

/// A buffer in a folder of its own, on the disk of the target folder.
struct Fixture {
    runtime: Runtime,
    buffer: Buffer,
    clock: Arc<Clock>,
    _folder: TempDir,
}

impl Fixture {
    fn with(entries: usize) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let settings = BufferSettings {
            buffer_path: folder.path().join("data/buffer.redb"),
            buffer_max_size: u64::MAX,
            buffer_user_share: u64::MAX,
            buffer_user_bytes: u64::MAX,
            buffer_timeout_ms: 60_000,
            ..BufferSettings::default()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let buffer = Buffer::open(&settings).unwrap();
        let fixture = Self { runtime, buffer, clock: Arc::default(), _folder: folder };
        for _ in 0..entries.div_ceil(GROUP) {
            fixture.append(fixture.creates(GROUP));
        }
        fixture
    }

    fn creates(&self, count: usize) -> Vec<Operation> {
        (0..count).map(|number| create(&self.clock, number)).collect()
    }

    fn append(&self, operations: Vec<Operation>) {
        let append = |operation| self.buffer.append(operation, Some(Arc::clone(&self.clock)));
        let appended = self.runtime.block_on(join_all(operations.into_iter().map(append)));
        assert!(appended.iter().all(Result::is_ok));
    }
}

fn create(clock: &Clock, number: usize) -> Operation {
    let title = Title::stored("Water the plants on the balcony".to_owned());
    let fields = TaskFields { title, description: None, status: TaskStatus::Pending };
    let user_id = Uuid::from_u128(1 + number as u128 % 100);
    Operation {
        id: clock.next(),
        actor: Actor { user_id, role: Role::User, session_id: None },
        change: Change::Task(TaskChange::Create { task_id: clock.next().as_uuid(), fields }),
        accepted_at: chrono::Utc::now(),
        request_id: Uuid::new_v4(),
        traceparent: None,
    }
}

/// A group of appends, durable: one commit each.
#[divan::bench(args = [1, 64, 1024], consts = [0, DEEP], sample_count = 20, sample_size = 1)]
fn append<const ENTRIES: usize>(bencher: Bencher<'_, '_>, group: usize) {
    let fixture = Fixture::with(ENTRIES);
    bencher
        .counter(ItemsCount::new(group))
        .with_inputs(|| fixture.creates(group))
        .bench_local_values(|operations| fixture.append(operations));
}

/// The next batch for replay, of 1,000 operations.
#[divan::bench(args = [0, 1_000, DEEP], sample_count = 50, sample_size = 1)]
fn next_batch(bencher: Bencher<'_, '_>, entries: usize) {
    let fixture = Fixture::with(entries);
    let limits = BatchLimits {
        operations: 1000,
        bytes: 4 << 20,
        aging: Duration::from_secs(60),
        longest_wait: Duration::from_secs(300),
    };
    bencher.bench_local(|| {
        let batch = fixture.buffer.next_batch(unix_millis(), limits, HashSet::new());
        black_box(fixture.runtime.block_on(batch).unwrap())
    });
}
