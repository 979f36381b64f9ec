//! One program as a process of its own: started, stopped, killed, started again with the same settings.

use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;

use crate::launch::Launch;
use crate::probe::Probe;
use crate::signals;

/// How long a program may take from its start to its first answer.
const START_DEADLINE: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(5);
const TAIL_LINES: usize = 40;

/// A program that runs, or will run, under our eyes. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    launch: Launch,
    probe: Probe,
    child: Option<Child>,
}

impl Process {
    /// A program that is not started yet; `probe` tells when it is up.
    #[must_use]
    pub fn new(name: impl Into<String>, launch: Launch, probe: Probe) -> Self {
        Self { name: name.into(), launch, probe, child: None }
    }

    /// Starts the program without waiting for it to be up.
    ///
    /// # Errors
    /// When it runs already, or cannot be started.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        ensure!(!self.is_running(), "{} runs already", self.name);
        self.child = Some(self.launch.spawn()?);
        Ok(())
    }

    /// Starts the program and waits until it is up; answers the moment it was.
    ///
    /// # Errors
    /// When it ends instead or takes longer than 30 s; the end of its log is in the error.
    pub async fn start(&mut self) -> anyhow::Result<Instant> {
        self.spawn()?;
        self.wait_until_up().await
    }

    /// Waits until a program that was spawned is up; answers the moment it was.
    ///
    /// # Errors
    /// As for [`Process::start`].
    pub async fn wait_until_up(&mut self) -> anyhow::Result<Instant> {
        let probe = self.probe;
        let up = probe.wait(START_DEADLINE, || match self.exit_status() {
            Some(status) => bail!("{} ended with {status}", self.name),
            None => Ok(()),
        });
        up.await.with_context(|| {
            format!("{} did not come up; its log ends with:\n{}", self.name, self.log_tail())
        })
    }

    /// Ends the program the hard way, if it runs, and starts it again with the same settings;
    /// answers the moment it was up.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn restart(&mut self) -> Instant {
        self.kill();
        match self.start().await {
            Ok(up) => up,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// SIGKILL to the program and its children, suspended or not, and waits for its end. Nothing
    /// happens if it does not run.
    pub fn kill(&mut self) {
        let Some(pid) = self.pid() else { return };
        let killed = signals::kill_tree(pid);
        if let Some(child) = &mut self.child {
            // An error means that its end was noticed already.
            let _ = child.wait();
        }
        signals::reap(&killed[1..]);
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not run, or has not ended at the deadline; it is left running then.
    pub async fn terminate(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        ensure!(self.is_running(), "{} does not run", self.name);
        self.signal(Signal::SIGTERM);
        self.wait(deadline).await
    }

    /// Waits for the program to end by itself.
    ///
    /// # Errors
    /// When it was never started, or has not ended at the deadline.
    pub async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        ensure!(self.child.is_some(), "{} was never started", self.name);
        let started = Instant::now();
        loop {
            if let Some(status) = self.exit_status() {
                return Ok(status);
            }
            ensure!(
                started.elapsed() < deadline,
                "{} has not ended within {deadline:?}",
                self.name
            );
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// SIGSTOP: it keeps its connections and locks, and answers nothing.
    pub fn suspend(&mut self) {
        if let Some(pid) = self.pid() {
            signals::stop_tree(pid);
        }
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        if let Some(pid) = self.pid() {
            signals::continue_tree(pid);
        }
    }

    /// Sends any signal to the running program.
    pub fn signal(&mut self, signal: Signal) {
        if let Some(pid) = self.pid() {
            signals::send(pid, signal);
        }
    }

    /// Whether it was started and has not ended.
    pub fn is_running(&mut self) -> bool {
        self.pid().is_some()
    }

    /// The process id, while it runs.
    pub fn pid(&mut self) -> Option<u32> {
        // Reaping first: the id of a process that has ended may be somebody else's.
        match self.exit_status() {
            None => self.child.as_ref().map(Child::id),
            Some(_) => None,
        }
    }

    /// How the last run ended; `None` while it runs, or if there was none.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// The settings for the next start.
    pub fn launch_mut(&mut self) -> &mut Launch {
        &mut self.launch
    }

    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds the output of all its runs.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.launch.log().to_path_buf()
    }

    /// All that it has printed, over all its runs.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.launch.log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last 40 lines that it has printed.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
