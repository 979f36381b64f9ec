//! The server that Holdfast is compared with: given by its address or its command, never part of
//! this project.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::plan::Plan;
use super::sql;
use super::stage::PEER_DATABASE;
use crate::launch::{Launch, find_program};
use crate::ports::free_port;
use crate::probe::Probe;
use crate::process::Process;

const START_DEADLINE: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// What the other server meets with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// PostgreSQL is there.
    Online,
    /// PostgreSQL cannot be reached.
    Outage {
        /// Whether its buffer gathers commits.
        batch: bool,
    },
}

/// The other server, up. Dropping it kills it if it was started here.
#[derive(Debug)]
pub(super) struct Peer {
    url: String,
    process: Option<Process>,
}

impl Peer {
    /// Starts it, or finds the one that runs; `None` if none was given that can be had so.
    pub(super) async fn start(
        plan: &Plan,
        folder: &Path,
        postgres: u16,
        mode: Mode,
    ) -> anyhow::Result<Option<Self>> {
        let arguments = &plan.arguments;
        let peer = match (&arguments.peer, &arguments.peer_command) {
            (Some(url), _) if mode == Mode::Online => {
                Self { url: url.trim_end_matches('/').to_owned(), process: None }
            }
            (None, Some(template)) => {
                let port = free_port();
                let command =
                    fill_in(template, &arguments.peer_secret, folder, postgres, port, mode);
                let shell = find_program("sh").context("there is no sh")?;
                let launch = Launch::new(shell, folder.join("peer.log")).args(["-c", &command]);
                let mut process = Process::new("the peer", launch, Probe::Live(port));
                process.spawn()?;
                Self { url: format!("http://127.0.0.1:{port}"), process: Some(process) }
            }
            _ => return Ok(None),
        };
        peer.come_up().await.map(Some)
    }

    /// Whether it was started here, on a database and buffer of our making.
    pub(super) fn is_ours_to_fill(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    async fn come_up(mut self) -> anyhow::Result<Self> {
        let http = reqwest::Client::new();
        let started = std::time::Instant::now();
        loop {
            let asked = http.get(format!("{}/health", self.url)).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(self);
            }
            let log = || self.process.as_ref().map_or_else(String::new, Process::log_tail);
            ensure!(started.elapsed() < START_DEADLINE, "no peer at {}: {}", self.url, log());
            if let Some(status) = self.process.as_mut().and_then(Process::exit_status) {
                let log = self.process.as_ref().map_or_else(String::new, Process::log_tail);
                anyhow::bail!("the peer ended with {status}: {log}");
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

/// The command that a template stands for. A shell that is replaced by its command can be killed
/// with it.
fn fill_in(
    template: &str,
    secret: &str,
    folder: &Path,
    postgres: u16,
    port: u16,
    mode: Mode,
) -> String {
    let database = match mode {
        Mode::Online => sql::url(postgres, PEER_DATABASE),
        // Nobody listens there.
        Mode::Outage { .. } => sql::url(free_port(), PEER_DATABASE),
    };
    let batch = if mode == (Mode::Outage { batch: true }) { "-batch" } else { "" };
    let buffer = folder.join(format!("peer-{port}.db"));
    let command = template
        .replace("{pg}", &database)
        .replace("{port}", &port.to_string())
        .replace("{buffer}", &buffer.to_string_lossy())
        .replace("{secret}", secret)
        .replace("{batch}", batch);
    format!("exec {command}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_in() {
        let template =
            "peer -pg {pg} -listen 127.0.0.1:{port} -buffer {buffer} -secret {secret} {batch}";
        let folder = Path::new("/folder");
        let online = fill_in(template, "word", folder, 5432, 80, Mode::Online);
        let expected = "exec peer -pg postgres://holdfast@127.0.0.1:5432/peer \
            -listen 127.0.0.1:80 -buffer /folder/peer-80.db -secret word ";
        assert_eq!(online, expected);
        let outage = fill_in(template, "word", folder, 5432, 80, Mode::Outage { batch: true });
        assert!(outage.ends_with(" -batch") && !outage.contains(":5432/"), "{outage}");
    }
}
