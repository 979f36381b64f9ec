//! A PostgreSQL data folder and the server on it, known by its files: any process that may signal
//! the server can kill it or start it again.

use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;

use super::programs::Programs;
use crate::account::Account;
use crate::launch::Launch;
use crate::probe::Probe;
use crate::signals;

/// Database and superuser of every cluster made here.
const NAME: &str = "holdfast";
const START_DEADLINE: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(5);

/// A data folder with a server that runs, or could.
#[derive(Clone, Debug)]
pub struct Cluster {
    programs: Programs,
    account: Option<Account>,
    data: PathBuf,
    log: PathBuf,
    port: u16,
}

impl Cluster {
    /// The cluster in `data`, made if there is none. It must be reachable for the servers' account
    /// (see [`crate::place`]).
    ///
    /// # Errors
    /// When PostgreSQL is missing, or no longer the one that made the cluster, or `initdb` fails.
    pub fn open(data: &Path, log: &Path, port: u16) -> anyhow::Result<Self> {
        let data = std::path::absolute(data)?;
        let account = Account::to_step_down_to()?;
        let programs = match std::fs::read_to_string(data.join("PG_VERSION")) {
            Ok(major) => Programs::of_major(major.trim().parse()?)
                .with_context(|| format!("{} was made by another PostgreSQL", data.display()))?,
            Err(_) => {
                let programs = Programs::newest()?;
                create(&programs, account, &data)?;
                programs
            }
        };
        Ok(Self { programs, account, data, log: log.to_path_buf(), port })
    }

    /// Drops every database but ours. A cluster then has a third of its files, and is copied and
    /// removed in a third of the time.
    ///
    /// # Errors
    /// When one of them cannot be dropped.
    pub(super) fn slim(&self) -> anyhow::Result<()> {
        let statements = "UPDATE pg_database SET datistemplate = false\n\
            DROP DATABASE postgres\nDROP DATABASE template0\nDROP DATABASE template1\n";
        single_user(&self.programs, self.account, &self.data, NAME, statements)
    }

    /// Starts the server. With `outliving_us` it stays when this process ends.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn spawn(&self, outliving_us: bool) -> anyhow::Result<Child> {
        if let Some(pid) = self.server() {
            bail!("PostgreSQL runs already, as process {pid}");
        }
        // What a killed server left. An id used again by some other process would make
        // PostgreSQL refuse to start, so a server that is not there must not seem to be.
        let _ = std::fs::remove_file(self.data.join("postmaster.pid"));
        let port = self.port.to_string();
        let launch = Launch::new(self.programs.program("postgres"), &self.log)
            .run_as(self.account)
            .env("LC_ALL", "C")
            .args([Path::new("-D"), &self.data, Path::new("-p"), Path::new(&port)])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        let launch = if outliving_us { launch.outliving_us().in_own_group() } else { launch };
        launch.spawn()
    }

    /// Waits until the server accepts connections; answers the moment it did.
    ///
    /// # Errors
    /// When it has not within a minute, or `still_possible` says that there is no use in waiting.
    pub async fn wait_until_up(
        &self,
        still_possible: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Instant> {
        let up = Probe::Postgres(self.port).wait(START_DEADLINE, still_possible).await;
        up.with_context(|| format!("see {}", self.log.display()))
    }

    /// The process id of the server on this data folder, while it lives.
    #[must_use]
    pub fn server(&self) -> Option<u32> {
        let file = std::fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let pid = file.lines().next()?.trim().parse().ok()?;
        let data = self.data.to_string_lossy();
        // The file outlives a killed server, and its id may be somebody else's by now.
        let ours =
            signals::is_alive(pid) && signals::command_line(pid).iter().any(|word| *word == data);
        ours.then_some(pid)
    }

    /// SIGKILL to the server and all its children; answers which they were.
    pub fn kill(&self) -> Vec<u32> {
        self.server().map(signals::kill_tree).unwrap_or_default()
    }

    /// Asks the server to stop without waiting for its clients, and waits until it has.
    ///
    /// # Errors
    /// When it has not within the deadline.
    pub async fn stop_fast(&self, deadline: Duration) -> anyhow::Result<()> {
        let Some(pid) = self.server() else { return Ok(()) };
        signals::continue_tree(pid);
        signals::send(pid, Signal::SIGINT);
        let started = Instant::now();
        while signals::is_alive(pid) {
            ensure!(started.elapsed() < deadline, "PostgreSQL has not stopped within {deadline:?}");
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    }

    /// Copies the data folder of a server that does not run, as an operator would for a backup.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub(super) fn copy_data(&self, to: &Path) -> anyhow::Result<()> {
        copy_folder(&self.data, to)
    }

    /// Puts a copy in the place of the data folder of a server that does not run. With `recovers` it
    /// starts as one that was restored from an archive does: on a timeline of its own.
    ///
    /// # Errors
    /// When it cannot be put there.
    pub(super) fn replace_data(&self, copy: &Path, recovers: bool) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.data)?;
        copy_folder(copy, &self.data)?;
        if recovers {
            let settings = self.data.join("postgresql.auto.conf");
            let mut settings = std::fs::OpenOptions::new().append(true).open(settings)?;
            writeln!(settings, "restore_command = 'false'")?;
            std::fs::write(self.data.join("recovery.signal"), "")?;
        }
        Ok(())
    }

    /// Runs SQL with `psql` and answers its rows, unaligned and without headings.
    ///
    /// # Errors
    /// What `psql` printed, when it fails.
    pub async fn psql(&self, sql: &str) -> anyhow::Result<String> {
        let launch = Launch::new(self.programs.program("psql"), &self.log)
            .env("PGCONNECT_TIMEOUT", "10")
            .args(["-AtXq", "-v", "ON_ERROR_STOP=1", "-d"])
            .args([self.url(), "-c".into(), sql.into()]);
        Ok(launch.output().await?.trim_end_matches('\n').to_owned())
    }

    /// The port it listens on when it runs.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, past every proxy.
    #[must_use]
    pub fn url(&self) -> String {
        url_at(self.port)
    }

    /// The file its output goes to.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }
}

/// The address of a cluster's database when it is reached through `port`.
pub(crate) fn url_at(port: u16) -> String {
    format!("postgres://{NAME}@127.0.0.1:{port}/{NAME}")
}

/// `initdb`, and the one database. Only this is done without fsync; the server itself syncs.
/// The folder gets its name when all is done, so that half a cluster is never taken for a whole one.
fn create(programs: &Programs, account: Option<Account>, data: &Path) -> anyhow::Result<()> {
    let making = data.with_extension("making");
    let _ = std::fs::remove_dir_all(&making);
    DirBuilder::new().recursive(true).mode(0o700).create(&making)?;
    if let Some(account) = account {
        account.own(&making)?;
    }
    let making_text = making.to_string_lossy();
    let mut initdb = command(programs, account, "initdb");
    initdb.args([
        "-D",
        &making_text,
        "-U",
        NAME,
        "-A",
        "trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    ]);
    run(initdb, "")?;
    single_user(programs, account, &making, "postgres", &format!("CREATE DATABASE {NAME}\n"))?;
    std::fs::rename(&making, data).with_context(|| format!("naming {}", data.display()))
}

/// Copies a folder with owners and modes.
fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut copy = Command::new("cp");
    copy.args(["-a", "--reflink=auto", "-T"]).arg(from).arg(to);
    run(copy, "")
}

/// Runs statements, one on each line, without a server.
fn single_user(
    programs: &Programs,
    account: Option<Account>,
    data: &Path,
    database: &str,
    statements: &str,
) -> anyhow::Result<()> {
    let mut postgres = command(programs, account, "postgres");
    postgres.arg("--single").arg("-D").arg(data).arg(database);
    run(postgres, statements)
}

fn command(programs: &Programs, account: Option<Account>, name: &str) -> Command {
    let mut command = Command::new(programs.program(name));
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").current_dir("/");
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

fn run(mut command: Command, input: &str) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let spawned =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.with_context(|| format!("starting {name}"))?;
    child.stdin.take().context("a pipe to the child")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // In single-user mode a failed statement is told and not answered with a status.
    let failed = !output.status.success() || said.contains("ERROR:");
    ensure!(!failed, "{name} failed with {}: {said}", output.status);
    Ok(())
}
