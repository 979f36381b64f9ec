//! The running parts of the development stack, in the order they start and stop.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, bail};

use super::folder::{Folder, Ports};
use crate::binaries::binaries;
use crate::launch::Launch;
use crate::postgres::Cluster;
use crate::probe::Probe;
use crate::process::Process;
use crate::redis::Redis;
use crate::signals;

/// Together the three stay under ten seconds.
const PRODUCT_STOP_DEADLINE: Duration = Duration::from_secs(5);
const POSTGRES_STOP_DEADLINE: Duration = Duration::from_secs(3);
const REDIS_STOP_DEADLINE: Duration = Duration::from_secs(1);

pub(super) struct Stack {
    folder: Folder,
    ports: Ports,
    cluster: Cluster,
    /// While PostgreSQL is our own child; after a recovery it is not.
    postgres: Option<Child>,
    postgres_was_up: bool,
    redis: Process,
    api: Process,
    worker: Process,
}

impl Stack {
    /// All parts, none of them started.
    pub(super) async fn prepare(folder: &Folder) -> anyhow::Result<Self> {
        if let Some(last) = folder.ports().filter(|last| last.cluster.is_dir()) {
            // A run that was killed left its PostgreSQL behind.
            folder.cluster(&last)?.stop_fast(POSTGRES_STOP_DEADLINE).await?;
        }
        let ports = folder.choose_ports()?;
        let cluster = {
            let (folder, ports) = (folder.clone(), ports.clone());
            tokio::task::spawn_blocking(move || folder.cluster(&ports)).await??
        };
        let buffer = folder.path().join("buffer");
        DirBuilder::new().recursive(true).mode(0o700).create(&buffer)?;
        let mut redis = Redis::process(folder.path(), ports.redis)?;
        *redis.launch_mut() = redis.launch_mut().clone().in_own_group();
        let process = |name: &str, subcommand: &str, port| {
            Process::new(
                name,
                launch(folder, &ports, &cluster, name).args([subcommand]),
                Probe::Live(port),
            )
        };
        let (api, worker) =
            (process("api", "serve", ports.api), process("worker", "run", ports.worker));
        Ok(Self {
            folder: folder.clone(),
            ports,
            postgres: None,
            postgres_was_up: false,
            redis,
            api,
            worker,
            cluster,
        })
    }

    /// Starts all parts; back when all of them are up.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let child = self.postgres.insert(self.cluster.spawn(false)?);
        let postgres = self.cluster.wait_until_up(|| match child.try_wait()? {
            Some(status) => bail!("PostgreSQL ended with {status}"),
            None => Ok(()),
        });
        tokio::try_join!(postgres, self.redis.start())?;
        self.postgres_was_up = true;
        self.product("migration").args(["up"]).output().await.context("migrating")?;
        tokio::try_join!(self.api.start(), self.worker.start())?;
        Ok(())
    }

    /// Whatever was started, stopped in good order; what does not stop in time is killed.
    pub(super) async fn stop(&mut self) {
        let (api, worker) = (&mut self.api, &mut self.worker);
        tokio::join!(stop(api, PRODUCT_STOP_DEADLINE), stop(worker, PRODUCT_STOP_DEADLINE));
        if let Err(error) = self.cluster.stop_fast(POSTGRES_STOP_DEADLINE).await {
            println!("{error:#}; killing it.");
            self.cluster.kill();
        }
        stop(&mut self.redis, REDIS_STOP_DEADLINE).await;
    }

    /// Starts what has ended without being told to, and answers a message for each thing noticed.
    /// PostgreSQL alone stays down: an outage is what this stack is for.
    pub(super) fn look_after(&mut self) -> Vec<String> {
        let mut noticed = Vec::new();
        for process in [&mut self.redis, &mut self.api, &mut self.worker] {
            let Some(status) = process.exit_status() else { continue };
            let again = match process.spawn() {
                Ok(()) => "starting it again".to_owned(),
                Err(error) => format!("it cannot be started: {error:#}"),
            };
            let log = process.log_path();
            noticed.push(format!(
                "{} ended ({status}); {again}. Its log: {}",
                process.name(),
                log.display()
            ));
        }
        // A killed server that nobody reaps would still seem to hold its data.
        let reaped =
            self.postgres.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        if reaped {
            self.postgres = None;
        }
        let up = self.cluster.server().is_some();
        if up != std::mem::replace(&mut self.postgres_was_up, up) {
            noticed.push(match up {
                true => "PostgreSQL was started again.".to_owned(),
                false => "PostgreSQL is down; `make recover` starts it again.".to_owned(),
            });
        }
        noticed
    }

    /// A token for a user, made by the api itself.
    pub(super) async fn token(&self, user: &str) -> anyhow::Result<String> {
        let printed = self.product("api").args(["token", "--user", user]).output().await?;
        Ok(printed.trim().to_owned())
    }

    pub(super) fn ports(&self) -> &Ports {
        &self.ports
    }

    pub(super) fn database_url(&self) -> String {
        self.cluster.url()
    }

    fn product(&self, name: &str) -> Launch {
        launch(&self.folder, &self.ports, &self.cluster, name)
    }
}

impl Drop for Stack {
    /// The way out of a panic; a stack that was stopped has nothing left to kill.
    fn drop(&mut self) {
        if let Some(pid) = self.cluster.server() {
            signals::kill_tree(pid);
        }
        if let Some(child) = &mut self.postgres {
            let _ = child.wait();
        }
    }
}

/// One of the product's programs, with the settings of this stack over those of the terminal.
fn launch(folder: &Folder, ports: &Ports, cluster: &Cluster, name: &str) -> Launch {
    let settings = [
        ("DATABASE_URL", cluster.url()),
        ("REDIS_URL", redis_url(ports)),
        ("SERVER_ADDR", "127.0.0.1".to_owned()),
        ("SERVER_PORT", ports.api.to_string()),
        ("WORKER_ADDR", "127.0.0.1".to_owned()),
        ("WORKER_PORT", ports.worker.to_string()),
        ("BUFFER_PATH", folder.path().join("buffer/buffer.redb").to_string_lossy().into_owned()),
        ("NODE_ID", "dev".to_owned()),
        // Empty counts as unset: the token is signed with the secret beside the buffer file.
        ("JWT_SECRET", String::new()),
    ];
    let launch = Launch::new(binaries().join(format!("holdfast-{name}")), folder.log(name));
    let launch = launch.inheriting_env().in_own_group();
    settings.into_iter().fold(launch, |launch, (name, value)| launch.env(name, value))
}

pub(super) fn redis_url(ports: &Ports) -> String {
    format!("redis://127.0.0.1:{}", ports.redis)
}

async fn stop(process: &mut Process, deadline: Duration) {
    if !process.is_running() {
        return;
    }
    process.resume();
    if let Err(error) = process.terminate(deadline).await {
        println!("{error:#}; killing it.");
        process.kill();
    }
}
