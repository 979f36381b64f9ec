//! The connection to Redis. Every call ends within a fraction of a second. For tasks and profiles, the
//! absence of Redis is never an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{Client, FromRedisValue, IntoConnectionInfo, Pipeline, RedisError, ScriptInvocation};
use secrecy::ExposeSecret;
use thiserror::Error;

use crate::settings::{RedisSettings, SettingsError};

/// How long a connection or an answer may usually take.
const TIMEOUT: Duration = Duration::from_millis(200);
/// How long what was sent may stay without the other side's acknowledgement: TCP's, which a Redis that
/// hangs still gives.
const GIVEN_UP: Duration = Duration::from_secs(2);
/// How long nobody else waits for a Redis that has just kept somebody waiting.
const REST: Duration = Duration::from_millis(500);

/// Redis did not do what it was asked for, or it is not known whether it did.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("redis is away")]
pub struct RedisAway;

/// A connection to Redis that is made when needed and again after it broke. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    manager: ConnectionManager,
    /// How long a connection or an answer may take.
    timeout: Duration,
    rest: Arc<Rest>,
}

/// Until when Redis is left alone, in milliseconds since `start`.
struct Rest {
    start: Instant,
    until: AtomicU64,
}

impl Rest {
    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_over(&self) -> bool {
        self.elapsed() >= self.until.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        let rest = u64::try_from(REST.as_millis()).unwrap_or(0);
        self.until.store(self.elapsed().saturating_add(rest), Ordering::Relaxed);
    }
}

impl Redis {
    /// Prepares the connection without opening it.
    ///
    /// # Errors
    /// If the address cannot be read.
    pub fn new(settings: &RedisSettings) -> Result<Self, SettingsError> {
        Self::with_timeout(settings, TIMEOUT)
    }

    /// Prepares a connection that has less time, or more, to be made and to answer.
    ///
    /// # Errors
    /// As [`Redis::new`].
    pub fn with_timeout(
        settings: &RedisSettings,
        timeout: Duration,
    ) -> Result<Self, SettingsError> {
        let unusable = |_: RedisError| SettingsError::Unusable {
            variable: "REDIS_URL",
            problem: "expected redis://user:password@host:port/number".to_owned(),
        };
        let address =
            settings.redis_url.expose_secret().into_connection_info().map_err(unusable)?;
        // A line that swallows everything is given up: nothing else ends a connection like that.
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(GIVEN_UP);
        let client = Client::open(address.set_tcp_settings(tcp)).map_err(unusable)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        let manager = ConnectionManager::new_lazy_with_config(client, config).map_err(unusable)?;
        let rest = Arc::new(Rest { start: Instant::now(), until: AtomicU64::new(0) });
        Ok(Self { manager, timeout, rest })
    }

    /// Asks whether Redis is there and takes writes. A broken connection is made again by the call
    /// that fails, so a failure is asked about twice.
    pub async fn is_up(&self) -> bool {
        let probe = || async {
            let mut connection = self.manager.clone();
            let mut write = redis::cmd("SET");
            write.arg("holdfast:probe").arg("").arg("PX").arg(1000);
            write.query_async::<String>(&mut connection).await
        };
        let probed = async { probe().await.is_ok() || probe().await.is_ok() };
        tokio::time::timeout(2 * self.timeout, probed).await.unwrap_or(false)
    }

    /// Runs a script once.
    ///
    /// # Errors
    /// If Redis does not answer in time or not as expected: the script may have run all the same.
    pub async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, RedisAway> {
        let mut connection = self.manager.clone();
        self.answered(script.invoke_async(&mut connection)).await
    }

    /// Whether there is such a key.
    ///
    /// # Errors
    /// If Redis does not answer in time.
    pub async fn exists(&self, key: &str) -> Result<bool, RedisAway> {
        let (exists,) = self.ask(redis::pipe().exists(key)).await?;
        Ok(exists)
    }

    /// Sends commands that may as well be done twice: a broken connection is made again by the call
    /// that fails, so they are sent once more.
    ///
    /// # Errors
    /// If Redis does not answer in time, or refuses one of them.
    pub async fn ask<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, RedisAway> {
        self.answered(async {
            match self.send(commands).await {
                Err(error) if !error.is_timeout() => self.send(commands).await,
                answer => answer,
            }
        })
        .await
    }

    /// Sends commands once.
    ///
    /// # Errors
    /// As for [`Redis::ask`], and if the connection broke.
    pub async fn ask_once<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, RedisAway> {
        self.answered(self.send(commands)).await
    }

    async fn send<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, RedisError> {
        commands.query_async(&mut self.manager.clone()).await
    }

    /// An answer, within the time that Redis has; none at all while it is left alone.
    async fn answered<T>(
        &self,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisAway> {
        if !self.rest.is_over() {
            return Err(RedisAway);
        }
        let error = match tokio::time::timeout(2 * self.timeout, answer).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => {
                if error.is_timeout() {
                    self.rest.begin();
                }
                error.category().to_owned()
            }
            Err(_) => {
                self.rest.begin();
                "no answer".to_owned()
            }
        };
        tracing::debug!(error, "redis did not answer");
        Err(RedisAway)
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redis")
    }
}
