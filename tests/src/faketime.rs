//! A wall clock that a test sets: libfaketime in a process of ours, its monotonic clock left alone.

use std::path::{Path, PathBuf};

use crate::preload::library;
use crate::process::Process;

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
        let clock = Self { file: folder.join("wall-clock") };
        clock.set("+0");
        let launch = process.launch_mut();
        launch.set_env("LD_PRELOAD", library("faketime/libfaketimeMT.so.1"));
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
