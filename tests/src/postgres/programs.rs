//! Which PostgreSQL to run: the newest installed server, 15 or later.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, ensure};

use crate::launch::find_program;

/// The oldest major version that will do.
const OLDEST_MAJOR: u32 = 15;
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql";

/// One installed PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    folder: PathBuf,
    version: String,
    major: u32,
}

impl Programs {
    /// The newest one: of Debian's folders, else what `pg_config` points at, else what is in `PATH`.
    ///
    /// # Errors
    /// When there is none, or it is too old.
    pub fn newest() -> anyhow::Result<Self> {
        static NEWEST: OnceLock<Option<Programs>> = OnceLock::new();
        let newest =
            NEWEST.get_or_init(|| installed().into_iter().max_by_key(|programs| programs.major));
        let newest =
            newest.clone().context("the PostgreSQL server is not installed; try `make setup`")?;
        ensure!(
            newest.major >= OLDEST_MAJOR,
            "PostgreSQL {} in {} is too old: {OLDEST_MAJOR} or later is needed",
            newest.version,
            newest.folder.display()
        );
        Ok(newest)
    }

    /// The one that can open a cluster made by this major version.
    ///
    /// # Errors
    /// When it is not installed (any more).
    pub fn of_major(major: u32) -> anyhow::Result<Self> {
        let found = installed().into_iter().find(|programs| programs.major == major);
        found.with_context(|| format!("PostgreSQL {major} is not installed"))
    }

    /// The full version, such as `15.14`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The path of one of its programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        let complete =
            ["initdb", "postgres", "psql"].iter().all(|name| folder.join(name).is_file());
        let output = complete
            .then(|| Command::new(folder.join("postgres")).arg("--version").output())?
            .ok()?;
        // "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().nth(2)?.to_owned();
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        Some(Self { folder: folder.to_path_buf(), major: digits.parse().ok()?, version })
    }
}

fn installed() -> Vec<Programs> {
    let debian = std::fs::read_dir(DEBIAN_FOLDER).into_iter().flatten().flatten();
    let found: Vec<_> =
        debian.filter_map(|entry| Programs::in_folder(&entry.path().join("bin"))).collect();
    if !found.is_empty() {
        return found;
    }
    let configured = find_program("pg_config").and_then(|program| {
        let output = Command::new(program).arg("--bindir").output().ok()?;
        Some(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    });
    let in_path =
        find_program("postgres").and_then(|program| Some(program.parent()?.to_path_buf()));
    [configured, in_path]
        .into_iter()
        .flatten()
        .filter_map(|folder| Programs::in_folder(&folder))
        .collect()
}
