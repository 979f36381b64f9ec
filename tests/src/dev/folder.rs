//! The folder of the development stack: who uses it, and on which ports.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::binaries::workspace_root;
use crate::ports::{free_port, is_free};
use crate::postgres::Cluster;
use crate::scratch::place;

const USUAL_API_PORT: u16 = 8080;
const USUAL_WORKER_PORT: u16 = 9100;

/// `data/dev` in the source tree.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

/// What was chosen at the last start; `ports.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) postgres: u16,
    pub(super) redis: u16,
    pub(super) api: u16,
    pub(super) worker: u16,
    /// Usually beside this file; elsewhere when the server's account cannot reach it.
    pub(super) cluster: PathBuf,
}

/// Held by the running `up`, for as long as it runs; the kernel lets go of it with the process.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Folder {
    pub(super) fn of_this_tree() -> Self {
        Self { path: workspace_root().join("data/dev") }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }

    /// Takes the stack for ourselves.
    pub(super) fn lock(&self) -> anyhow::Result<Lock> {
        std::fs::create_dir_all(&self.path)?;
        let path = self.path.join("lock");
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.rewind()?;
                write!(file, "{}", std::process::id())?;
                Ok(Lock { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                bail!(
                    "`make dev` is running already, as process {holder}; stop it there with Ctrl-C"
                )
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("locking {}", path.display()))
            }
        }
    }

    /// The ports of the running `up`.
    pub(super) fn ports_of_running(&self) -> anyhow::Result<Ports> {
        let file = File::open(self.path.join("lock"));
        let running =
            file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)));
        match self.ports() {
            Some(ports) if running => Ok(ports),
            _ => bail!("`make dev` is not running: start it in another terminal first"),
        }
    }

    /// What the last start chose, if there was one.
    pub(super) fn ports(&self) -> Option<Ports> {
        let text = std::fs::read(self.path.join("ports.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Chooses ports, those of the last time where they are free, and remembers them.
    pub(super) fn choose_ports(&self) -> anyhow::Result<Ports> {
        let last = self.ports();
        let again = |last: Option<u16>, usual: Option<u16>| {
            [usual, last]
                .into_iter()
                .flatten()
                .find(|port| is_free(*port))
                .unwrap_or_else(free_port)
        };
        let cluster = match &last {
            Some(last) if last.cluster.is_dir() => last.cluster.clone(),
            _ => place(&self.path)?.join("postgres"),
        };
        let ports = Ports {
            postgres: again(last.as_ref().map(|ports| ports.postgres), None),
            redis: again(last.as_ref().map(|ports| ports.redis), None),
            api: again(last.as_ref().map(|ports| ports.api), Some(USUAL_API_PORT)),
            worker: again(last.as_ref().map(|ports| ports.worker), Some(USUAL_WORKER_PORT)),
            cluster,
        };
        std::fs::write(self.path.join("ports.json"), serde_json::to_vec_pretty(&ports)?)?;
        Ok(ports)
    }

    /// The cluster of these ports, made if there is none.
    pub(super) fn cluster(&self, ports: &Ports) -> anyhow::Result<Cluster> {
        let opened = Cluster::open(&ports.cluster, &self.log("postgres"), ports.postgres);
        opened.context("`make clean-dev` removes the old data, if you do not need it")
    }
}
