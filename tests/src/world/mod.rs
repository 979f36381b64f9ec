//! A world for one test: servers, lines, the product's processes, and clients.
//!
//! When a world is dropped it looks at what its processes have printed: none may have panicked, and
//! no bearer token may stand in a log. A test that fails keeps its folder until the next run.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

use crate::client::Client;
use crate::postgres::Postgres;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::redis::Redis;
use crate::token::{self, Algorithm, EncodingKey};

mod builder;

pub use builder::Builder;

/// Shorter ones are garbled on purpose, and could stand in a log by chance.
const SHORTEST_TOKEN: usize = 40;

/// The product, running between servers of its own.
#[derive(Debug)]
pub struct World {
    /// The api.
    pub api: Process,
    /// The worker.
    pub worker: Process,
    /// PostgreSQL itself.
    pub postgres: Postgres,
    /// Redis itself.
    pub redis: Redis,
    /// The line that api and worker reach PostgreSQL by.
    pub postgres_line: Proxy,
    /// The line that api and worker reach Redis by.
    pub redis_line: Proxy,
    secrets: Secrets,
    server_port: u16,
    worker_port: u16,
    http: reqwest::Client,
    tokens: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

/// What tokens are signed with in this world.
#[derive(Debug)]
struct Secrets {
    own: String,
    provider: String,
}

impl World {
    /// Chooses what is there at the start.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Everything up.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Where the api answers.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.server_port)
    }

    /// Where the worker answers.
    #[must_use]
    pub fn worker_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.worker_port)
    }

    /// The port of the worker.
    #[must_use]
    pub fn worker_port(&self) -> u16 {
        self.worker_port
    }

    /// The buffer file.
    #[must_use]
    pub fn buffer_path(&self) -> PathBuf {
        self.folder().join("data/buffer.redb")
    }

    /// The folder of this world; logs lie in it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A bare HTTP client, with a limit of 30 s on each request.
    #[must_use]
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// A client for a user.
    #[must_use]
    pub fn client(&self, user: Uuid) -> Client {
        self.client_as(user, "user")
    }

    /// A client for a user in a role.
    #[must_use]
    pub fn client_as(&self, user: Uuid, role: &str) -> Client {
        self.client_with(&self.token(&token::claims(user, role), &self.key(), Algorithm::HS256))
    }

    /// A client for somebody with this token, whatever it is.
    #[must_use]
    pub fn client_with(&self, token: &str) -> Client {
        self.remember(token);
        Client::new(self.http.clone(), self.api_url(), Some(token.to_owned()))
    }

    /// A client for somebody without a token.
    #[must_use]
    pub fn anonymous(&self) -> Client {
        Client::new(self.http.clone(), self.api_url(), None)
    }

    /// A token of any kind; [`token::claims`] has the proper claims to start from.
    ///
    /// # Panics
    /// When the key does not fit the algorithm.
    #[must_use]
    pub fn token(&self, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
        let token = token::sign(claims, key, algorithm);
        self.remember(&token);
        token
    }

    /// The key of the product's own tokens.
    #[must_use]
    pub fn key(&self) -> EncodingKey {
        EncodingKey::from_secret(self.secrets.own.as_bytes())
    }

    /// The key of the identity provider's tokens; its issuer is [`World::PROVIDER_ISSUER`], its audience
    /// [`World::PROVIDER_AUDIENCE`].
    #[must_use]
    pub fn provider_key(&self) -> EncodingKey {
        EncodingKey::from_secret(self.secrets.provider.as_bytes())
    }

    /// The identity provider's `iss`.
    pub const PROVIDER_ISSUER: &'static str = "https://identity.example";

    /// The `aud` that the identity provider gives.
    pub const PROVIDER_AUDIENCE: &'static str = "holdfast-tests";

    fn remember(&self, token: &str) {
        if token.len() >= SHORTEST_TOKEN {
            self.tokens.lock().unwrap().push(token.to_owned());
        }
    }

    fn check_log(&self, process: &Process) {
        let log = process.log();
        let tokens = self.tokens.lock().unwrap();
        for line in log.lines() {
            assert!(!line.contains("panicked at"), "{} panicked: {line}", process.name());
            let told = tokens.iter().any(|token| line.contains(token.as_str()));
            assert!(!told, "{} logged a bearer token: {line}", process.name());
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let ended = [self.api.exit_status(), self.worker.exit_status()];
        self.api.kill();
        self.worker.kill();
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("the folder of this world is kept: {}", self.folder().display());
            for (process, ended) in [&self.api, &self.worker].into_iter().zip(ended) {
                let how = ended.map_or("still ran".to_owned(), |status| status.to_string());
                let tail = process.log_tail();
                eprintln!("--- {}: {how}; its log ends with:\n{tail}", process.name());
            }
        } else {
            self.check_log(&self.api);
            self.check_log(&self.worker);
        }
    }
}
