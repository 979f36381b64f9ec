//! How one program is started: what it is given, and what becomes of it when we die.
//!
//! A test run that is killed must leave nothing behind. `setpriv` (util-linux) asks the kernel to
//! kill the program when the thread that started it ends, so all of them are started by one
//! thread that lives as long as this process. Without `setpriv`, only a proper end cleans up.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;

use anyhow::{Context, ensure};

use crate::account::Account;

/// A program, its arguments and environment, and the file its output goes to.
#[derive(Clone, Debug)]
pub struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: BTreeMap<String, String>,
    inherits_environment: bool,
    account: Option<Account>,
    log: PathBuf,
    outlives_us: bool,
    own_group: bool,
}

impl Launch {
    /// A program whose output is appended to `log`. Its environment is empty but for `PATH`, `HOME`
    /// and what is given with [`Launch::env`], so that nobody's shell changes a test.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            inherits_environment: false,
            account: None,
            log: log.into(),
            outlives_us: false,
            own_group: false,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets one variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.set_env(name, value);
        self
    }

    /// Sets one variable for the starts to come.
    pub fn set_env(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.environment.insert(name.into(), value.into());
    }

    /// Takes one variable away for the starts to come.
    pub fn unset_env(&mut self, name: &str) {
        self.environment.remove(name);
    }

    /// Passes our own environment on, beneath what is set here.
    #[must_use]
    pub fn inheriting_env(mut self) -> Self {
        self.inherits_environment = true;
        self
    }

    /// Runs as this account; `None` is ourselves.
    #[must_use]
    pub fn run_as(mut self, account: Option<Account>) -> Self {
        self.account = account;
        self
    }

    /// Lets the program live on when we end.
    #[must_use]
    pub fn outliving_us(mut self) -> Self {
        self.outlives_us = true;
        self
    }

    /// Keeps the terminal's Ctrl-C from the program: whoever started it ends it, in good order.
    #[must_use]
    pub fn in_own_group(mut self) -> Self {
        self.own_group = true;
        self
    }

    /// Appends what it prints to another file.
    #[must_use]
    pub fn logging_to(mut self, log: impl Into<PathBuf>) -> Self {
        self.log = log.into();
        self
    }

    /// The file that the program's output goes to.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts the program, its output going to the log file.
    ///
    /// # Errors
    /// When there is no such program, or it cannot be started.
    pub fn spawn(&self) -> anyhow::Result<Child> {
        let log = open_log(&self.log)?;
        let mut command = self.command()?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        start_on_the_lasting_thread(command)
            .with_context(|| format!("starting {}", self.program.display()))
    }

    /// Runs the program to its end and answers what it printed; it is killed when nobody waits.
    ///
    /// # Errors
    /// When it cannot be started, or fails; what it said is in the error.
    pub async fn output(&self) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::from(self.clone().outliving_us().command()?);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
        let output = output.with_context(|| format!("starting {}", self.program.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout);
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        let told = format!("{}\n{printed}", said.trim());
        ensure!(output.status.success(), "{name} failed with {}: {told}", output.status);
        Ok(printed.into_owned())
    }

    fn command(&self) -> anyhow::Result<Command> {
        ensure!(self.program.is_file(), "there is no program {}", self.program.display());
        let mut command = match (setpriv(), self.outlives_us) {
            (Some(setpriv), false) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program);
                command
            }
            _ => Command::new(&self.program),
        };
        command.args(&self.arguments);
        if !self.inherits_environment {
            command.env_clear();
            let passed_on = ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"];
            command.envs(passed_on.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        }
        command.envs(&self.environment);
        if let Some(account) = self.account {
            // A folder that the account may not enter is no place to start in.
            command.uid(account.uid).gid(account.gid).current_dir("/");
        }
        if self.own_group {
            command.process_group(0);
        }
        Ok(command)
    }
}

/// The path of an installed program: from `PATH`, then from where distributions put servers.
#[must_use]
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.with_context(|| format!("opening {}", path.display()))
}

fn setpriv() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| find_program("setpriv")).as_deref()
}

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

fn start_on_the_lasting_thread(command: Command) -> std::io::Result<Child> {
    static ORDERS: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (orders, received) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in received {
                // Nobody waits for the answer any more: the child is dropped, not ours to end.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, answered) = mpsc::channel();
    orders.send((command, answer)).expect("the starting thread lives as long as we do");
    answered.recv().expect("the starting thread answers every order")
}
