//! A private Redis that keeps nothing on disk.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;

use crate::launch::{Launch, find_program};
use crate::ports::free_port;
use crate::probe::Probe;
use crate::process::Process;

/// A `redis-server` of our own on a free port. Dropping it kills it; with it goes what it held.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
}

impl Redis {
    /// A Redis that is not started yet, with its log in `folder`.
    ///
    /// # Panics
    /// When Redis is not installed.
    #[must_use]
    pub fn prepare(folder: &Path) -> Self {
        let port = free_port();
        let process = Self::process(folder, port).expect("a private Redis");
        Self { process, port }
    }

    /// A running Redis, with its log in `folder`.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(folder: &Path) -> Self {
        let mut redis = Self::prepare(folder);
        redis.start_again().await;
        redis
    }

    /// The bare process, for those who keep the port themselves.
    pub(crate) fn process(folder: &Path, port: u16) -> anyhow::Result<Process> {
        let program = find_program("redis-server")
            .context("redis-server is not installed; try `make setup`")?;
        let folder_text = folder.to_string_lossy();
        let port_text = port.to_string();
        let arguments = [
            ["--port", &port_text],
            ["--bind", "127.0.0.1"],
            ["--dir", &folder_text],
            ["--save", ""],
            ["--appendonly", "no"],
            ["--daemonize", "no"],
        ];
        let launch = Launch::new(program, folder.join("redis.log")).args(arguments.concat());
        Ok(Process::new("redis", launch, Probe::Redis(port)))
    }

    /// Starts it, empty, on the same port; answers the moment it answered.
    ///
    /// # Panics
    /// When it runs already or does not come up.
    pub async fn start_again(&mut self) -> Instant {
        match self.process.start().await {
            Ok(up) => up,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP: connections stand and nothing is answered.
    pub fn suspend(&mut self) {
        self.process.suspend();
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.process.resume();
    }

    /// Whether it was started and has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Its port, for as long as this value lives.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, past every proxy.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}
