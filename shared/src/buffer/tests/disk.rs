//! A disk that others fill up: what was acknowledged is there, nothing more comes in, and all of it
//! can be drained. The disk is a small tmpfs, which takes the right to mount; without it there is
//! nothing to test on, and the test says so.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

use futures::{StreamExt, stream};
use tempfile::TempDir;

use super::*;

/// Users and tasks that operations are spread over: many, so that each touches pages of its own.
const SPREAD: u128 = 100_000;

/// A filesystem of some megabytes.
pub(super) struct SmallDisk(TempDir);

impl SmallDisk {
    pub(super) fn mount(megabytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=700"), "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    /// Takes all room that is left, as another program.
    pub(super) fn fill(&self) {
        let mut file = File::create(self.neighbour()).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
    }

    pub(super) fn clear(&self) {
        std::fs::remove_file(self.neighbour()).unwrap();
    }

    pub(super) fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    fn neighbour(&self) -> std::path::PathBuf {
        self.0.path().join("neighbour")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// A create with a description of this length.
pub(super) fn described(task: u128, length: usize) -> Change {
    let fields = TaskFields {
        title: Title::stored("title".to_owned()),
        description: Some(Description::stored("x".repeat(length))),
        status: TaskStatus::Pending,
    };
    Change::Task(TaskChange::Create { task_id: Uuid::from_u128(task), fields })
}

/// Appends until nothing is taken in any more; how many were.
async fn append_until_full(
    buffer: &Buffer,
    clock: &Arc<Clock>,
    at_once: usize,
    length: usize,
) -> u64 {
    let mut kept = 0;
    loop {
        let appends = (0..2000).map(async |_| {
            let number = Uuid::new_v4().as_u128() % SPREAD;
            let change =
                if number.is_multiple_of(3) { delete(number) } else { described(number, length) };
            buffer.append(operation(clock, number, change), Some(Arc::clone(clock))).await.is_ok()
        });
        let taken = stream::iter(appends).buffer_unordered(at_once);
        let taken = taken.filter(|taken| std::future::ready(*taken)).count().await as u64;
        kept += taken;
        if taken == 0 {
            return kept;
        }
    }
}

#[tokio::test]
async fn a_buffer_on_a_disk_that_others_have_filled_can_be_drained_to_its_end() {
    for (at_once, length) in [(16, 10), (1000, 10), (16, 9000), (300, 9000)] {
        let Some(disk) = SmallDisk::mount(12) else {
            return eprintln!("not tested: a tmpfs cannot be mounted here");
        };
        let clock = Arc::new(Clock::default());
        let buffer = Buffer::open(&BufferSettings {
            buffer_min_free_bytes: 1_000_000,
            ..settings(disk.0.path())
        })
        .unwrap();
        let kept = append_until_full(&buffer, &clock, at_once, length).await;
        disk.fill();
        assert!(kept > 100, "{kept}");
        buffer.append(operation(&clock, 1, create(1)), None).await.unwrap_err();
        assert_eq!(buffer.stats().await.unwrap().pending, kept);
        let limits = BatchLimits { operations: 1000, ..LIMITS };
        let mut drained = 0;
        while drained < kept {
            let batch = buffer.next_batch(unix_millis(), limits, HashSet::new()).await.unwrap();
            assert!(!batch.entries.is_empty(), "{drained} of {kept}");
            let done = |entry: &Entry| Settlement { place: entry.place, verdict: Verdict::Done };
            buffer.settle(batch.entries.iter().map(done).collect()).await.unwrap();
            drained += batch.entries.len() as u64;
        }
        assert_eq!(buffer.stats().await.unwrap().pending, 0);
        disk.clear();
        audit::check(&buffer).await;
    }
}
