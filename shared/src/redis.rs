//! Redis, as far as it is needed: every call ends within a fraction of a second, and its absence is
//! never an error for tasks and profiles.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError};
use secrecy::ExposeSecret;

use crate::settings::{RedisSettings, SettingsError};

/// How long a connection or an answer may take.
const TIMEOUT: Duration = Duration::from_millis(200);

/// A connection to Redis that is made when needed and again after it broke.
#[derive(Clone)]
pub struct Redis {
    manager: ConnectionManager,
}

impl Redis {
    /// Prepares the connection without opening it.
    ///
    /// # Errors
    /// If the address cannot be read.
    pub fn new(settings: &RedisSettings) -> Result<Self, SettingsError> {
        let unusable = |_: RedisError| SettingsError::Unusable {
            variable: "REDIS_URL",
            problem: "expected redis://user:password@host:port/number".to_owned(),
        };
        let client = Client::open(settings.redis_url.expose_secret()).map_err(unusable)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let manager = ConnectionManager::new_lazy_with_config(client, config).map_err(unusable)?;
        Ok(Self { manager })
    }

    /// Asks whether Redis is there and takes writes. A broken connection is made again by the call
    /// that fails, so a failure is asked about twice.
    pub async fn is_up(&self) -> bool {
        let ping = || async {
            let mut connection = self.manager.clone();
            redis::cmd("PING").query_async::<String>(&mut connection).await
        };
        let pinged = async { ping().await.is_ok() || ping().await.is_ok() };
        tokio::time::timeout(2 * TIMEOUT, pinged).await.unwrap_or(false)
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redis")
    }
}
