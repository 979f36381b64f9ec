//! Power is lost: what was acknowledged is on the disk. The disk is a file with an ext4 that is mounted
//! through a loop device; what has reached it at some moment is a copy of that file. It takes the right
//! to mount; without it there is nothing to test on, and the test says so.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::super::log::Logged;
use super::*;

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
        let folder = tempfile::tempdir().unwrap();
        let image = Self::image(folder.path());
        std::fs::File::create(&image).unwrap().set_len(48 << 20).unwrap();
        let is_made = succeeds(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        if is_made { Self::mount(folder) } else { None }
    }

    /// One with what has reached this one by now.
    fn as_power_is_lost(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(Self::image(self.folder.path()), Self::image(folder.path())).unwrap();
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
        assert!(succeeds(Command::new("umount").arg("--lazy").arg(mounted)));
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
        // One of them empties the log; the next append is the first of a generation.
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
    let log = &buffer.handle.read().unwrap().clone().log;
    log.write_frame(logged, &[written.into()]).unwrap();
    check(&disk, &[first], "before the sync").await;
    assert!(buffer.is_kept(unsynced.id).await.unwrap());
    check(&disk, &[first, unsynced.id], "after it").await;
    assert!(!buffer.is_kept(clock.next()).await.unwrap());
}
