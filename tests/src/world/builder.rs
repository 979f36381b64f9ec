//! How a world begins.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;

use super::{Secrets, World};
use crate::binaries::binaries;
use crate::launch::Launch;
use crate::ports::free_port;
use crate::postgres::{Postgres, url_at};
use crate::probe::Probe;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::redis::Redis;
use crate::scratch::scratch_folder;
use crate::wait::wait_until;

/// Longer than any promise of the product: a hang fails the test, and not the test run.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections are not used again for longer than this: the api closes one that has never sent
/// anything after 10 s, and a request must not meet that.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The worker migrates, and the api notices, after their first answers.
const SETTLE_DEADLINE: Duration = Duration::from_secs(15);

/// What is there at the start of a world, and how the product is set up. The default is everything.
#[derive(Clone, Debug)]
pub struct Builder {
    postgres: bool,
    redis: bool,
    api: bool,
    worker: bool,
    lines: bool,
    environment: BTreeMap<String, String>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            postgres: true,
            redis: true,
            api: true,
            worker: true,
            lines: true,
            environment: BTreeMap::new(),
        }
    }
}

impl Builder {
    /// PostgreSQL has an empty cluster and does not run; `postgres.start_again()` starts it.
    #[must_use]
    pub fn without_postgres(mut self) -> Self {
        self.postgres = false;
        self
    }

    /// Redis does not run; `redis.start_again()` starts it.
    #[must_use]
    pub fn without_redis(mut self) -> Self {
        self.redis = false;
        self
    }

    /// The api does not run; `api.start()` starts it.
    #[must_use]
    pub fn without_api(mut self) -> Self {
        self.api = false;
        self
    }

    /// The worker does not run; `worker.start()` starts it. Nothing migrates before that.
    #[must_use]
    pub fn without_worker(mut self) -> Self {
        self.worker = false;
        self
    }

    /// Api and worker reach the servers straight: a killed server then refuses connections, where
    /// a line would accept and reset them. The world's lines lie unused.
    #[must_use]
    pub fn without_lines(mut self) -> Self {
        self.lines = false;
        self
    }

    /// Sets one variable for api and worker, over the world's own settings.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Starts all that was chosen, and waits until it is up: migrated, if there is somebody to do it,
    /// and healthy, if nothing is missing.
    ///
    /// # Panics
    /// When something does not come up.
    pub async fn start(self) -> World {
        tokio::task::spawn_blocking(binaries).await.expect("the product is built");
        let mut world = self.assemble().await;
        world.bring_up_servers(&self).await;
        world.bring_up_product(&self).await;
        world
    }

    /// The whole world, with nothing started but the lines.
    async fn assemble(&self) -> World {
        let folder = scratch_folder("world");
        let postgres = Postgres::prepare(folder.path()).await;
        let redis = Redis::prepare(folder.path());
        let postgres_line = Proxy::to_postgres(postgres.port()).await;
        let redis_line = Proxy::start(redis.port()).await;
        let (postgres_port, redis_port) = match self.lines {
            true => (postgres_line.port(), redis_line.port()),
            false => (postgres.port(), redis.port()),
        };
        let (server_port, worker_port) = (free_port(), free_port());
        let secrets = Secrets { own: secret(), provider: secret() };
        let buffer = folder.path().join("data");
        DirBuilder::new().mode(0o700).create(&buffer).expect("a folder for the buffer");
        let environment = self.environment_with([
            ("DATABASE_URL", url_at(postgres_port)),
            ("REDIS_URL", format!("redis://127.0.0.1:{redis_port}")),
            ("SERVER_PORT", server_port.to_string()),
            ("WORKER_PORT", worker_port.to_string()),
            ("BUFFER_PATH", buffer.join("buffer.redb").to_string_lossy().into_owned()),
            ("JWT_SECRET", secrets.own.clone()),
            ("PROVIDER_JWT_SECRET", secrets.provider.clone()),
        ]);
        let process = |name: &str, subcommand: &str, port| {
            let launch = launch(folder.path(), name, subcommand, &environment);
            Process::new(name, launch, Probe::Live(port))
        };
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .build();
        World {
            api: process("api", "serve", server_port),
            worker: process("worker", "run", worker_port),
            postgres,
            redis,
            postgres_line,
            redis_line,
            secrets,
            server_port,
            worker_port,
            http: http.expect("an HTTP client"),
            tokens: Arc::new(Mutex::new(Vec::new())),
            folder,
        }
    }

    fn environment_with<const N: usize>(
        &self,
        own: [(&str, String); N],
    ) -> BTreeMap<String, String> {
        let fixed = [
            ("SERVER_ADDR", "127.0.0.1"),
            ("PROVIDER_ISSUER", World::PROVIDER_ISSUER),
            ("PROVIDER_AUDIENCE", World::PROVIDER_AUDIENCE),
            ("RATE_LIMIT_RPS", "0"),
            ("NODE_ID", "tests"),
            ("LOG_FORMAT", "json"),
            ("RUST_LOG", "info"),
            ("RUST_BACKTRACE", "1"),
        ];
        let mut environment: BTreeMap<String, String> =
            fixed.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        environment.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
        environment.extend(self.environment.clone());
        environment
    }
}

impl World {
    /// Whether the schema is there.
    pub async fn is_migrated(&self) -> bool {
        self.postgres.psql("SELECT to_regclass('operations') IS NOT NULL").await == "t"
    }

    /// Whether `/health` answers 200.
    pub async fn is_healthy(&self) -> bool {
        self.anonymous().get("/health").await.status == 200
    }

    async fn bring_up_servers(&mut self, chosen: &Builder) {
        let (postgres, redis) = (&mut self.postgres, &mut self.redis);
        tokio::join!(
            async {
                if chosen.postgres {
                    postgres.start_again().await;
                }
            },
            async {
                if chosen.redis {
                    redis.start_again().await;
                }
            },
        );
    }

    async fn bring_up_product(&mut self, chosen: &Builder) {
        let (api, worker) = (&mut self.api, &mut self.worker);
        let started = tokio::try_join!(
            async { if chosen.api { api.start().await.map(drop) } else { Ok(()) } },
            async { if chosen.worker { worker.start().await.map(drop) } else { Ok(()) } },
        );
        if let Err(error) = started {
            panic!("{error:#}");
        }
        let somebody_migrates = chosen.postgres && chosen.worker;
        if somebody_migrates {
            wait_until(SETTLE_DEADLINE, "it is migrated", async || self.is_migrated().await).await;
        }
        if somebody_migrates && chosen.redis && chosen.api {
            wait_until(SETTLE_DEADLINE, "it is healthy", async || self.is_healthy().await).await;
        }
    }
}

fn launch(
    folder: &Path,
    name: &str,
    subcommand: &str,
    environment: &BTreeMap<String, String>,
) -> Launch {
    let program = binaries().join(format!("holdfast-{name}"));
    let launch = Launch::new(program, folder.join(format!("{name}.log"))).args([subcommand]);
    environment.iter().fold(launch, |launch, (name, value)| launch.env(name, value))
}

fn secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}
