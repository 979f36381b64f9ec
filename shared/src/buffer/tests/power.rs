//! Power is lost: what was acknowledged is on the disk. The disk is a file with an ext4 that is mounted
//! through a loop device; what has reached it at some moment is a copy of that file. It takes the right
//! to mount; without it there is nothing to test on, and the test says so.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::disk::{SmallDisk, described};
use super::*;
use crate::buffer::wal::file::Logged;

/// A disk, in a file.
struct Disk {
    folder: TempDir,
}

impl Disk {
    fn image(folder: &Path) -> PathBuf {
        folder.join("image")
    }

    /// A new one, with an empty filesystem.
    fn make() -> Option<Self> {
        Self::make_in(&std::env::temp_dir(), &[])
    }

    /// A new one, in a folder, made with more options of `mkfs.ext4`.
    fn make_in(parent: &Path, options: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir_in(parent).unwrap();
        let image = Self::image(folder.path());
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let mut command = Command::new("mkfs.ext4");
        let is_made = succeeds(command.args(["-q", "-F"]).args(options).arg(&image));
        if is_made { Self::mount(folder) } else { None }
    }

    /// One with what has reached this one by now.
    fn as_power_is_lost(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = Self::image(folder.path());
        std::fs::copy(Self::image(self.folder.path()), &image).unwrap();
        // Without a journal the filesystem's own books are wrong then. What it mends it tells by its exit code.
        succeeds(Command::new("e2fsck").args(["-f", "-y"]).arg(&image));
        Self::mount(folder).unwrap()
    }

    fn mount(folder: TempDir) -> Option<Self> {
        let mounted = folder.path().join("mounted");
        std::fs::create_dir(&mounted).unwrap();
        let image = Self::image(folder.path());
        let mount = succeeds(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&mounted));
        mount.then_some(Self { folder })
    }

    fn settings(&self) -> BufferSettings {
        settings(&self.folder.path().join("mounted"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mounted = self.folder.path().join("mounted");
        let unmounted = succeeds(Command::new("umount").arg("--lazy").arg(mounted));
        assert!(unmounted || std::thread::panicking());
    }
}

fn succeeds(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Everything that was acknowledged is there after the loss of power, and nothing else.
async fn check(disk: &Disk, acknowledged: &[Version], when: &str) {
    let left = disk.as_power_is_lost();
    let buffer = Buffer::open(&left.settings()).unwrap();
    let page = buffer.pending_page(PendingFilter::default(), None, 10_000).await.unwrap();
    let found: Vec<_> = page.items.iter().map(|entry| entry.operation.id).collect();
    assert_eq!(found, acknowledged, "{when}");
    assert_eq!(buffer.stats().await.unwrap().quarantined, 0, "{when}");
    audit::check(&buffer).await;
}

#[tokio::test]
async fn i1_what_was_acknowledged_survives_the_loss_of_power() {
    let Some(disk) = Disk::make() else {
        return eprintln!("not tested: an ext4 cannot be made and mounted here");
    };
    let clock = Clock::default();
    let buffer = Buffer::open(&disk.settings()).unwrap();
    let peer = Buffer::open(&disk.settings()).unwrap();
    check(&disk, &[], "as it was opened").await;
    let mut acknowledged = Vec::new();
    let mut task = 0;
    for round in 0..6 {
        for by in [&buffer, &buffer, &peer] {
            task += 1;
            let appended = operation(&clock, task % 3, create(task));
            acknowledged.push(by.append(appended, None).await.unwrap());
            check(&disk, &acknowledged, &format!("after append {task}")).await;
        }
        // One of them empties the WAL; the next append is the first of a generation.
        let by = if round % 2 == 0 { &buffer } else { &peer };
        let settled = batch(by).await[0].clone();
        check(&disk, &acknowledged, &format!("emptied after append {task}")).await;
        settle(by, settled.place, Verdict::Done).await;
        acknowledged.retain(|id| *id != settled.operation.id);
        check(&disk, &acknowledged, &format!("settled after append {task}")).await;
    }
}

/// A process is killed between the write and the sync of a frame; another has read it.
#[tokio::test]
async fn i1_what_is_said_to_be_kept_survives_the_loss_of_power() {
    let Some(disk) = Disk::make() else {
        return eprintln!("not tested: an ext4 cannot be made and mounted here");
    };
    let clock = Clock::default();
    let buffer = Buffer::open(&disk.settings()).unwrap();
    let first = buffer.append(operation(&clock, 1, create(1)), None).await.unwrap();
    let (mark, end) = audit::tail(&buffer, |tail| (tail.mark(), tail.end()));
    let logged = Logged { generation: mark.generation, end, next: 1 };
    let unsynced = operation(&clock, 1, create(2));
    let payload = record::encode_payload(&unsynced, &Keys::default()).unwrap();
    let written = record::encode(1, &record::Header::of(&unsynced, unix_millis()), &payload);
    let wal = &buffer.handle.read().unwrap().clone().wal;
    wal.write_frame(logged, &[written.into()]).unwrap();
    check(&disk, &[first], "before the sync").await;
    assert!(buffer.is_kept(unsynced.id).await.unwrap());
    check(&disk, &[first, unsynced.id], "after it").await;
    assert!(!buffer.is_kept(clock.next()).await.unwrap());
}

/// The device has fewer blocks than it says: what is written to those that are missing looks written,
/// until a sync fails.
#[tokio::test]
async fn i1_what_the_kernel_has_in_memory_after_a_failed_sync_is_not_built_upon() {
    let Some(small) = SmallDisk::mount(48) else {
        return eprintln!("not tested: a tmpfs cannot be mounted here");
    };
    // With a journal the filesystem would end all writing.
    let Some(disk) = Disk::make_in(small.path(), &["-O", "^has_journal", "-e", "continue"]) else {
        return eprintln!("not tested: an ext4 cannot be made and mounted here");
    };
    let clock = Clock::default();
    let buffer = Buffer::open(&disk.settings()).unwrap();
    let peer = Buffer::open(&disk.settings()).unwrap();
    let (mut acknowledged, mut refused, mut unknown, mut task) = (Vec::new(), Vec::new(), 0, 0);
    for round in 0..4 {
        let is_short = round % 2 == 1;
        if is_short {
            small.fill();
        }
        let before = refused.len() + unknown;
        for _ in 0..160 {
            task += 1;
            let appended = operation(&clock, task, described(task, 9000));
            let id = appended.id;
            let by = if task % 3 == 0 { &peer } else { &buffer };
            match by.append(appended, None).await {
                Ok(_) => acknowledged.push(id),
                Err(BufferError::OutcomeUnknown(_)) => unknown += 1,
                Err(_) => refused.push(id),
            }
        }
        let number = refused.len() + unknown - before;
        // In a sound round those whose sync tells of an error of the round before.
        assert!(if is_short { number > 20 } else { number < 5 }, "round {round}: {number}");
        if is_short {
            small.clear();
        }
        for (place, disk) in [("here", None), ("on the disk", Some(disk.as_power_is_lost()))] {
            let left = disk.as_ref().map(|disk| Buffer::open(&disk.settings()).unwrap());
            let left = left.as_ref().unwrap_or(&buffer);
            let page = left.pending_page(PendingFilter::default(), None, 10_000).await.unwrap();
            let found: HashSet<_> = page.items.iter().map(|entry| entry.operation.id).collect();
            let is_there = |id: &&Version| found.contains(*id);
            assert_eq!(acknowledged.iter().filter(is_there).count(), acknowledged.len(), "{place}");
            assert_eq!(refused.iter().filter(is_there).count(), 0, "{place}");
            audit::check(left).await;
        }
    }
}
