//! Settings, read from the environment once, at the start. Each group is a plain struct with defaults. A
//! field's name in capitals is the name of its variable. A value that cannot be used stops the start,
//! with a message that names the variable and never repeats a secret.

use std::path::PathBuf;
use std::time::Duration;

use config::{Config, ConfigError, Environment};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// A setting that cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The value does not have the variable's type.
    #[error("{variable}: {problem}")]
    Unreadable {
        /// The environment variable.
        variable: String,
        /// What was expected, without the value.
        problem: String,
    },
    /// The value has the right type and cannot be used.
    #[error("{variable}: {problem}")]
    Unusable {
        /// The environment variable.
        variable: &'static str,
        /// What was expected, without the value.
        problem: String,
    },
}

/// Reads one group of settings from the environment. Empty variables count as unset.
///
/// # Errors
/// If a variable's value does not have its type.
pub fn load<T: DeserializeOwned>() -> Result<T, SettingsError> {
    Config::builder()
        .add_source(Environment::default().ignore_empty(true).try_parsing(false))
        .build()
        .and_then(Config::try_deserialize)
        .map_err(|error| unreadable(&error))
}

/// Names the variable; keeps what was expected and drops what was found, which may be a secret.
fn unreadable(error: &ConfigError) -> SettingsError {
    let (variable, problem) = match error {
        ConfigError::Type { key, expected, .. } => (key.clone(), format!("expected {expected}")),
        ConfigError::At { error, key, .. } => {
            let problem = match error.as_ref() {
                ConfigError::Type { expected, .. } => format!("expected {expected}"),
                _ => "has a value that does not fit".to_owned(),
            };
            (key.clone(), problem)
        }
        _ => (None, "has a value that does not fit".to_owned()),
    };
    let variable = variable.map_or_else(|| "environment".to_owned(), |key| key.to_uppercase());
    SettingsError::Unreadable { variable, problem }
}

/// Where PostgreSQL is and how long to wait for it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct StoreSettings {
    /// The whole address; wins over the `db_` parts.
    pub database_url: Option<SecretString>,
    /// Host name or address.
    pub db_host: String,
    /// Port.
    pub db_port: u16,
    /// Database.
    pub db_name: String,
    /// Role to log in as.
    pub db_user: String,
    /// That role's password, if it needs one.
    pub db_password: Option<SecretString>,
    /// Connections that one process opens at the most.
    pub db_max_connections: u32,
    /// How long a new or pooled connection may take (milliseconds).
    pub db_connect_timeout_ms: u64,
    /// How long a write waits for PostgreSQL before it goes to the buffer (milliseconds).
    pub db_write_timeout_ms: u64,
    /// How long a read waits for PostgreSQL (milliseconds).
    pub db_read_timeout_ms: u64,
    /// Pause between two probes of a PostgreSQL that is away (milliseconds).
    pub probe_interval_ms: u64,
    /// This host's name in the ledger.
    pub node_id: Option<String>,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            database_url: None,
            db_host: "127.0.0.1".to_owned(),
            db_port: 5432,
            db_name: "holdfast".to_owned(),
            db_user: "holdfast".to_owned(),
            db_password: None,
            db_max_connections: 10,
            db_connect_timeout_ms: 500,
            db_write_timeout_ms: 1000,
            db_read_timeout_ms: 1000,
            probe_interval_ms: 200,
            node_id: None,
        }
    }
}

impl StoreSettings {
    /// The pause between two probes.
    #[must_use]
    pub fn probe_interval(&self) -> Duration {
        Duration::from_millis(self.probe_interval_ms.max(10))
    }

    /// This host's name in the ledger: `NODE_ID`, else the host name.
    #[must_use]
    pub fn node(&self) -> String {
        self.node_id.clone().unwrap_or_else(|| {
            nix::unistd::gethostname()
                .ok()
                .and_then(|name| name.into_string().ok())
                .unwrap_or_else(|| "unnamed".to_owned())
        })
    }

    /// The address as one URL, with the password percent-encoded.
    #[must_use]
    pub fn url(&self) -> SecretString {
        if let Some(url) = &self.database_url {
            return url.clone();
        }
        let password = self.db_password.as_ref().map_or_else(String::new, |password| {
            format!(":{}", percent_encode(password.expose_secret()))
        });
        let user = percent_encode(&self.db_user);
        let name = percent_encode(&self.db_name);
        format!("postgres://{user}{password}@{}:{}/{name}", self.db_host, self.db_port).into()
    }
}

/// Encodes everything but RFC 3986's unreserved characters.
fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// The buffer file and its limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct BufferSettings {
    /// The file; its folder also holds the ballast and the worker's lock.
    pub buffer_path: PathBuf,
    /// Pending operations it takes at the most.
    pub buffer_max_size: u64,
    /// Bytes of pending operations it takes at the most.
    pub buffer_max_bytes: u64,
    /// Pending operations of one user it takes at the most.
    pub buffer_user_share: u64,
    /// Bytes of pending operations of one user it takes at the most.
    pub buffer_user_bytes: u64,
    /// Bytes that must stay free on its filesystem.
    pub buffer_min_free_bytes: u64,
    /// How long a write waits for its turn in the file (milliseconds).
    pub buffer_timeout_ms: u64,
    /// Memory for cached pages (bytes).
    pub buffer_cache_bytes: usize,
    /// The keys that records are sealed with, newest first: `id:base64` of 32 bytes each, separated
    /// by commas. Without them records are readable in the file.
    pub buffer_keys: Option<SecretString>,
    /// Whether a file that cannot be opened at all is moved aside, and a new one begun.
    pub buffer_recreate: bool,
}

impl Default for BufferSettings {
    fn default() -> Self {
        Self {
            buffer_path: PathBuf::from("./data/buffer.redb"),
            buffer_max_size: 1_000_000,
            buffer_max_bytes: 2 << 30,
            buffer_user_share: 10_000,
            buffer_user_bytes: 16 << 20,
            buffer_min_free_bytes: 64 << 20,
            buffer_timeout_ms: 2000,
            buffer_cache_bytes: 32 << 20,
            buffer_keys: None,
            buffer_recreate: false,
        }
    }
}

/// Where Redis is. It is never needed to serve tasks and profiles.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct RedisSettings {
    /// The address.
    pub redis_url: SecretString,
    /// How long an entity stays in the cache at the most (seconds); 0: nothing is cached. The same on
    /// all hosts.
    pub cache_ttl_seconds: u64,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self { redis_url: SecretString::from("redis://127.0.0.1:6379"), cache_ttl_seconds: 300 }
    }
}

impl RedisSettings {
    /// How long an entity stays in the cache at the most: a day, whatever is set.
    #[must_use]
    pub fn cache_lifetime(&self) -> Duration {
        Duration::from_secs(self.cache_ttl_seconds.min(86_400))
    }
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    #[default]
    Pretty,
}

/// Logging.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LogSettings {
    /// How logs are written.
    pub log_format: LogFormat,
    /// Which are written, as tracing-subscriber's `EnvFilter` reads it.
    pub rust_log: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T: DeserializeOwned>(pairs: &[(&str, &str)]) -> Result<T, SettingsError> {
        let source = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::builder()
            .add_source(Environment::default().ignore_empty(true).source(Some(source)))
            .build()
            .and_then(Config::try_deserialize)
            .map_err(|error| unreadable(&error))
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_by_the_name_of_its_variable() {
        for (variable, value) in [
            ("DB_PORT", "70000"),
            ("DB_PORT", "-1"),
            ("DB_PORT", "s3cret"),
            ("DB_WRITE_TIMEOUT_MS", "1s"),
        ] {
            let message = parse::<StoreSettings>(&[(variable, value)]).unwrap_err().to_string();
            assert!(message.starts_with(variable), "{message}");
            assert!(!message.contains("s3cret"), "{message}");
        }
        let message = parse::<LogSettings>(&[("LOG_FORMAT", "xml")]).unwrap_err().to_string();
        assert!(message.starts_with("LOG_FORMAT"), "{message}");
    }

    #[test]
    fn parts_make_an_address_and_numbers_may_be_passwords() {
        let settings: StoreSettings = parse(&[
            ("DB_HOST", "db"),
            ("DB_PASSWORD", "12345"),
            ("DB_USER", "a b"),
            ("DB_NAME", ""),
        ])
        .unwrap();
        assert_eq!(settings.url().expose_secret(), "postgres://a%20b:12345@db:5432/holdfast");
    }
}
