//! The settings that only the api has.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

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
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            server_addr: IpAddr::V4(Ipv4Addr::LOCALHOST),
            server_port: 8080,
            body_limit_bytes: 64 << 10,
            request_timeout_ms: 5000,
        }
    }
}

impl ServerSettings {
    /// Within which every request is answered.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }
}

/// Whose tokens are accepted.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct TokenSettings {
    /// The secret of our own tokens; without it one is made beside the buffer file.
    pub jwt_secret: Option<SecretString>,
    /// The secret of the identity provider's tokens; without it none are accepted.
    pub provider_jwt_secret: Option<SecretString>,
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
            provider_jwt_secret: None,
            provider_issuer: "provider".to_owned(),
            provider_audience: "holdfast".to_owned(),
            accept_provider_tokens: true,
        }
    }
}
