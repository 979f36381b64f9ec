//! A private PostgreSQL for one test: killed, stopped, suspended and started again at will.
//!
//! It is a real cluster with fsync on, on a free port of 127.0.0.1 and with no other socket.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::ports::free_port;
use crate::signals;
use crate::wait::wait_until;

mod cluster;
mod programs;
mod template;

pub use cluster::Cluster;
pub(crate) use cluster::url_at;
pub use programs::Programs;

const STOP_DEADLINE: Duration = Duration::from_secs(20);
const PSQL_DEADLINE: Duration = Duration::from_secs(30);

/// A PostgreSQL of our own with the empty database `holdfast`. Dropping it kills it.
#[derive(Debug)]
pub struct Postgres {
    cluster: Cluster,
    child: Option<Child>,
}

impl Postgres {
    /// A cluster that is made and not started, in `folder/postgres`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn prepare(folder: &Path) -> Self {
        let folder = folder.to_path_buf();
        let cluster = tokio::task::spawn_blocking(move || {
            let data = folder.join("postgres");
            template::copy_to(&data);
            Cluster::open(&data, &folder.join("postgres.log"), free_port())
                .expect("a private PostgreSQL")
        });
        Self { cluster: cluster.await.expect("the cluster is made"), child: None }
    }

    /// A running cluster in `folder/postgres`.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(folder: &Path) -> Self {
        let mut postgres = Self::prepare(folder).await;
        postgres.start_again().await;
        postgres
    }

    /// Starts it on the same port and data; answers the moment it accepted connections.
    ///
    /// # Panics
    /// When it runs already or does not come up.
    pub async fn start_again(&mut self) -> Instant {
        let started = async {
            signals::inherit_orphans();
            let child = self.child.insert(self.cluster.spawn(false)?);
            let ended = || match child.try_wait()? {
                Some(status) => bail!("PostgreSQL ended with {status}"),
                None => Ok(()),
            };
            self.cluster.wait_until_up(ended).await
        };
        match started.await {
            Ok(up) => up,
            Err(error) => panic!(
                "{error:#}\n{}",
                std::fs::read_to_string(self.cluster.log()).unwrap_or_default()
            ),
        }
    }

    /// SIGKILL to the server and every backend, suspended or not; back when all are gone. The next
    /// start has to recover.
    ///
    /// # Panics
    /// When one of them does not go.
    pub async fn kill(&mut self) {
        let Some(pid) = self.server() else { return };
        let killed = signals::kill_tree(pid);
        wait_until(STOP_DEADLINE, "a killed PostgreSQL is gone", async || {
            self.server().is_none() && !killed.iter().any(|pid| signals::is_alive(*pid))
        })
        .await;
        signals::reap(&killed[1..]);
    }

    /// A fast shutdown (SIGINT): clients are sent away, everything is written, then it ends.
    ///
    /// # Panics
    /// When it takes longer than 20 s.
    pub async fn stop_fast(&mut self) {
        if let Err(error) = self.cluster.stop_fast(STOP_DEADLINE).await {
            panic!("{error:#}");
        }
        wait_until(STOP_DEADLINE, "a stopped PostgreSQL is reaped", async || {
            self.server().is_none()
        })
        .await;
    }

    /// SIGSTOP to the server and every backend: connections stand, new ones are taken by the kernel,
    /// and nothing is answered.
    pub fn suspend(&mut self) {
        if let Some(pid) = self.server() {
            signals::stop_tree(pid);
        }
    }

    /// SIGCONT to all of them.
    pub fn resume(&mut self) {
        if let Some(pid) = self.server() {
            signals::continue_tree(pid);
        }
    }

    /// Copies its data, while it does not run.
    ///
    /// # Panics
    /// When it runs, or its data cannot be copied.
    pub fn back_up(&mut self, to: &Path) {
        assert!(!self.is_running(), "a running PostgreSQL cannot be copied like that");
        self.cluster.copy_data(to).expect("a copy of the data");
    }

    /// Puts a copy of its data in the place of what it has, while it does not run: older data under the
    /// same name, as when a disk is set back; or, with `recovers`, restored by a recovery, which begins a
    /// timeline of its own.
    ///
    /// # Panics
    /// When it runs, or the copy cannot be put there.
    pub fn restore(&mut self, copy: &Path, recovers: bool) {
        assert!(!self.is_running(), "the data of a running PostgreSQL cannot be exchanged");
        self.cluster.replace_data(copy, recovers).expect("the copy in place of the data");
    }

    /// Whether it was started and has not ended; a suspended one has not.
    pub fn is_running(&mut self) -> bool {
        self.server().is_some()
    }

    /// Runs SQL past the proxy; answers the rows as `psql -At` prints them, columns parted by `|`.
    ///
    /// # Panics
    /// When it fails.
    pub async fn psql(&self, sql: &str) -> String {
        match self.try_psql(sql).await {
            Ok(rows) => rows,
            Err(error) => panic!("{sql}: {error:#}"),
        }
    }

    /// Runs SQL past the proxy.
    ///
    /// # Errors
    /// What `psql` printed, or that it took longer than 30 s.
    pub async fn try_psql(&self, sql: &str) -> anyhow::Result<String> {
        let answered = tokio::time::timeout(PSQL_DEADLINE, self.cluster.psql(sql)).await;
        answered.with_context(|| format!("no answer within {PSQL_DEADLINE:?}"))?
    }

    /// Its port, for as long as this value lives.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// Its address, past every proxy.
    #[must_use]
    pub fn url(&self) -> String {
        self.cluster.url()
    }

    /// All that it has logged, over all its runs.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.cluster.log()).unwrap_or_default()
    }

    /// The process id of the server while it runs.
    fn server(&mut self) -> Option<u32> {
        let child = self.child.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(pid) = self.server() else { return };
        let killed = signals::kill_tree(pid);
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
        let started = Instant::now();
        while killed.iter().any(|pid| signals::is_alive(*pid)) && started.elapsed() < STOP_DEADLINE
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        signals::reap(&killed[1..]);
    }
}
