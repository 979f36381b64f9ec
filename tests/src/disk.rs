//! A disk that fails: libfiu, in a process of ours, lets calls to it fail as the kernel would (EIO).

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use crate::launch::{Launch, find_program};
use crate::preload::library;
use crate::process::Process;

/// `EIO`, as libfiu is told it.
const EIO: i32 = 5;
const DEADLINE: Duration = Duration::from_secs(10);

/// What may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskCall {
    /// `fsync`, `fdatasync`.
    Sync,
    /// `pwrite`. Sockets and pipes are not written to by it.
    Write,
}

impl DiskCall {
    /// Its points of failure, by libfiu's names.
    fn points(self) -> &'static [&'static str] {
        match self {
            Self::Sync => &["posix/io/sync/fsync", "posix/io/sync/fdatasync"],
            Self::Write => &["posix/io/rw/pwrite"],
        }
    }
}

/// The disk as one process has it.
#[derive(Debug)]
pub struct Disk {
    pipes: PathBuf,
}

impl Disk {
    /// Gives a process, from its next start on, a disk that can be made to fail; it is sound after each
    /// start.
    ///
    /// # Panics
    /// When libfiu is not installed.
    #[must_use]
    pub fn of(process: &mut Process, folder: &Path) -> Self {
        let disk = Self { pipes: folder.join(format!("disk-of-{}", process.name())) };
        let libraries = ["fiu/fiu_run_preload.so", "fiu/fiu_posix_preload.so"].map(library);
        let launch = process.launch_mut();
        launch.set_env("LD_PRELOAD", libraries.join(" "));
        launch.set_env("FIU_CTRL_FIFO", disk.pipes.to_string_lossy());
        disk
    }

    /// From now on each call of this kind fails, with a chance between 0 and 1.
    ///
    /// # Panics
    /// When the process does not run, or was started before it was given this disk.
    pub async fn fail(&self, process: &mut Process, call: DiskCall, chance: f32) {
        let how = format!("probability={chance},failinfo={EIO}");
        self.order(process, call, |point| format!("enable_random name={point},{how}")).await;
    }

    /// Ends what [`Disk::fail`] began.
    ///
    /// # Panics
    /// As for [`Disk::fail`].
    pub async fn mend(&self, process: &mut Process, call: DiskCall) {
        self.order(process, call, |point| format!("disable name={point}")).await;
    }

    async fn order(&self, process: &mut Process, call: DiskCall, command: impl Fn(&str) -> String) {
        let pid = process.pid().expect("a process that runs");
        let program =
            find_program("fiu-ctrl").expect("libfiu is not installed; try `scripts/setup.sh test`");
        let mut launch = Launch::new(program, self.pipes.with_extension("log"));
        launch = launch.args(["-f".into(), self.pipes.clone().into_os_string()]);
        for point in call.points() {
            launch = launch.args(["-c".to_owned(), command(point)]);
        }
        let launch = launch.args([pid.to_string()]);
        let said = timeout(DEADLINE, launch.output()).await.expect("the process hears");
        let said = said.expect("libfiu's fiu-ctrl");
        // It ends as if nothing were wrong also if there is.
        assert_eq!(said, "", "fiu-ctrl");
    }
}
