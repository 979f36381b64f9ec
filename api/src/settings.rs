//! The settings that only the api has.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use shared::settings::SettingsError;

/// However long requests may take, a client that drips its body is not waited for any longer.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// More file descriptors than this no process is given by default.
const MAX_CONNECTIONS_LIMIT: usize = 1 << 20;

/// How the api is reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct ServerSettings {
    /// Address to listen on.
    pub server_addr: IpAddr,
    /// Port to listen on.
    pub server_port: u16,
    /// Bytes of a request's body at the most.
    pub body_limit_bytes: usize,
    /// Within which every request is answered (milliseconds).
    pub request_timeout_ms: u64,
    /// For how long a session can be renewed (days).
    pub session_days: u32,
    /// Connections at once at the most.
    pub max_connections: usize,
    /// Origins of the pages that may call from a browser, with commas between.
    pub cors_origins: String,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            server_addr: IpAddr::V4(Ipv4Addr::LOCALHOST),
            server_port: 8080,
            body_limit_bytes: 64 << 10,
            request_timeout_ms: 5000,
            session_days: 30,
            max_connections: 1024,
            cors_origins: String::new(),
        }
    }
}

impl ServerSettings {
    /// Within which every request is answered.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// For how long a session can be renewed.
    #[must_use]
    pub fn session_lifetime(&self) -> Duration {
        Duration::from_secs(u64::from(self.session_days.max(1)) * 24 * 3600)
    }

    /// Within which a request's body has to come. A bit less, so that a client that is too slow is
    /// told that, and not that we were.
    #[must_use]
    pub fn body_timeout(&self) -> Duration {
        (self.request_timeout() * 9 / 10).min(BODY_LIMIT)
    }

    /// Refuses what has the right type and cannot be used.
    ///
    /// # Errors
    /// Names the variable.
    pub fn check(&self) -> Result<(), SettingsError> {
        if (1..=MAX_CONNECTIONS_LIMIT).contains(&self.max_connections) {
            return Ok(());
        }
        let problem = format!("must be between 1 and {MAX_CONNECTIONS_LIMIT}");
        Err(SettingsError::Unusable { variable: "MAX_CONNECTIONS", problem })
    }
}

/// How often one client may ask. 0 turns a limit off.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct LimitSettings {
    /// Requests of one user (per second); twice as many in a burst. 0 turns the others off too.
    pub rate_limit_rps: u32,
    /// Requests from one address (per second); twice as many in a burst.
    pub rate_limit_address_rps: u32,
    /// Attempts to log in or to refresh a token from one address (per minute).
    pub login_rate_limit_per_minute: u32,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self { rate_limit_rps: 1000, rate_limit_address_rps: 5000, login_rate_limit_per_minute: 60 }
    }
}

/// Whose tokens are accepted.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct TokenSettings {
    /// The secret of our own tokens (HS256); without it and a private key, one is made beside the
    /// buffer file.
    pub jwt_secret: Option<SecretString>,
    /// The private key of our own tokens, in PEM: RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA).
    pub jwt_private_key_file: Option<PathBuf>,
    /// The secret of the identity provider's tokens (HS256); without it and a key set none are
    /// accepted.
    pub provider_jwt_secret: Option<SecretString>,
    /// The identity provider's keys, a JSON Web Key Set; read again when it changes.
    pub provider_jwks_file: Option<PathBuf>,
    /// The `iss` of the provider's tokens.
    pub provider_issuer: String,
    /// The `aud` of the provider's tokens.
    pub provider_audience: String,
    /// Whether the provider's tokens are accepted as bearer tokens.
    pub accept_provider_tokens: bool,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self {
            jwt_secret: None,
            jwt_private_key_file: None,
            provider_jwt_secret: None,
            provider_jwks_file: None,
            provider_issuer: "provider".to_owned(),
            provider_audience: "holdfast".to_owned(),
            accept_provider_tokens: true,
        }
    }
}
