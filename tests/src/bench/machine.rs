//! Where it was measured.

use std::fmt;
use std::process::Command;

use serde::Serialize;

use crate::binaries::workspace_root;
use crate::postgres::Programs;

/// What a figure depends on beside the code, and which code it was.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    cores: usize,
    cpu: String,
    memory_mb: u64,
    kernel: String,
    postgresql: String,
    commit: String,
    /// Whether the code differed from the commit.
    changed: bool,
}

impl Machine {
    pub(super) fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = value_of(&read("/proc/cpuinfo"), "model name");
        let memory = value_of(&read("/proc/meminfo"), "MemTotal");
        let kilobytes = memory.split_whitespace().next().and_then(|text| text.parse::<u64>().ok());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu,
            memory_mb: kilobytes.unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            postgresql: Programs::newest()
                .map(|programs| programs.version().to_owned())
                .unwrap_or_default(),
            commit: git(&["rev-parse", "--short=12", "HEAD"]),
            changed: !git(&["status", "--porcelain", "--untracked-files=no"]).is_empty(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changed = if self.changed { ", changed" } else { "" };
        write!(
            f,
            "{} cores of {}, {} MB; Linux {}; PostgreSQL {}, fsync on; commit {}{changed}",
            self.cores, self.cpu, self.memory_mb, self.kernel, self.postgresql, self.commit
        )
    }
}

/// What a line of `/proc` says after the colon; machines without such a line have none.
fn value_of(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
}

fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").current_dir(workspace_root()).args(arguments).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}
