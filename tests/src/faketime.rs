//! A wall clock that a test sets: libfaketime in a process of ours, its monotonic clock left alone.

use std::path::{Path, PathBuf};

use crate::process::Process;

const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The wall clock of one process.
#[derive(Debug)]
pub struct WallClock {
    file: PathBuf,
}

impl WallClock {
    /// Gives a process, from its next start on, a wall clock of its own; it shows the right time.
    ///
    /// # Panics
    /// When libfaketime is not installed.
    #[must_use]
    pub fn of(process: &mut Process, folder: &Path) -> Self {
        let library = library().expect("libfaketime is not installed; try `make setup`");
        let clock = Self { file: folder.join("wall-clock") };
        clock.set("+0");
        let launch = process.launch_mut();
        launch.set_env("LD_PRELOAD", library.to_string_lossy());
        launch.set_env("FAKETIME_TIMESTAMP_FILE", clock.file.to_string_lossy());
        launch.set_env("FAKETIME_NO_CACHE", "1");
        // Two names for the same wish: the older versions know the first.
        launch.set_env("DONT_FAKE_MONOTONIC", "1");
        launch.set_env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        clock
    }

    /// Makes the clock jump, at once and while the process runs, to as far from the right time as
    /// libfaketime reads it: `+10d`, `-1h`.
    ///
    /// # Panics
    /// When its file cannot be written.
    pub fn set(&self, offset: &str) {
        // By renaming: the process must never read half of it.
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{offset}\n")).expect("the clock's next file");
        std::fs::rename(&next, &self.file).expect("the clock's file");
    }
}

/// Debian has it below the folder of the architecture, others below one of the first three.
fn library() -> Option<PathBuf> {
    let roots = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    let below = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    roots
        .into_iter()
        .chain(below.map(|entry| entry.path()))
        .map(|root| root.join(LIBRARY))
        .find(|library| library.is_file())
}
