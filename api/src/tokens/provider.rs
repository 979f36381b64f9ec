//! The identity provider's keys: a shared secret, or a JSON Web Key Set in a file that is read again
//! whenever it changes, so that the provider can rotate its keys by `kid` without a restart here.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use secrecy::ExposeSecret;
use shared::settings::SettingsError;

use super::local::check_secret;
use super::verifier::{Identity, Issuer, UnusableKey, Verifier};
use crate::settings::TokenSettings;

/// How often it is looked whether the file has changed.
const LOOK: Duration = Duration::from_secs(1);
/// Keys of a set at the most.
const MAX_KEYS: usize = 32;
/// Bytes of a file at the most.
const MAX_BYTES: u64 = 1 << 20;
const JWKS_FILE: &str = "PROVIDER_JWKS_FILE";

/// The identity provider's keys.
pub(super) struct ProviderKeys {
    source: Option<Source>,
    keys: RwLock<Arc<Vec<Verifier>>>,
    /// How often they have changed.
    changes: AtomicU64,
}

/// The file that keys come from, and whose they are.
struct Source {
    path: PathBuf,
    issuer: String,
    audience: String,
    seen: RwLock<Option<Stamp>>,
}

/// What tells that a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

impl ProviderKeys {
    /// The keys that the settings name; none if they name none.
    ///
    /// # Errors
    /// If a secret is weak, the file cannot be read, or no key in it can be used.
    pub(super) fn new(settings: &TokenSettings) -> Result<Self, SettingsError> {
        let issuer =
            Issuer { name: &settings.provider_issuer, audience: &settings.provider_audience };
        match (&settings.provider_jwt_secret, &settings.provider_jwks_file) {
            (Some(_), Some(_)) => {
                Err(unusable("is set beside PROVIDER_JWT_SECRET; set one of them"))
            }
            (Some(secret), None) => {
                check_secret("PROVIDER_JWT_SECRET", secret)?;
                let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
                Ok(Self::fixed(vec![Verifier::new(None, Algorithm::HS256, key, issuer)]))
            }
            (None, Some(path)) => {
                let (stamp, keys) = read(path, issuer).map_err(|problem| unusable(&problem))?;
                let source = Source {
                    path: path.clone(),
                    issuer: settings.provider_issuer.clone(),
                    audience: settings.provider_audience.clone(),
                    seen: RwLock::new(Some(stamp)),
                };
                let keys = RwLock::new(Arc::new(keys));
                Ok(Self { source: Some(source), keys, changes: AtomicU64::new(0) })
            }
            (None, None) => Ok(Self::fixed(Vec::new())),
        }
    }

    fn fixed(keys: Vec<Verifier>) -> Self {
        Self { source: None, keys: RwLock::new(Arc::new(keys)), changes: AtomicU64::new(0) }
    }

    /// How often the keys have changed: what was verified before counts no more.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// What a token says, if one of the keys verifies it.
    pub(super) fn verify(&self, header: &Header, token: &str) -> Option<Identity> {
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        keys.iter().find_map(|key| key.verify(header, token))
    }

    /// Reads the file again whenever it changes, for ever. One that cannot be used leaves the keys as
    /// they are.
    pub(super) async fn keep_reading(self: &Arc<Self>) {
        if self.source.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            let keys = Arc::clone(self);
            // A read that panicked has been logged, and the next look comes.
            let _ = tokio::task::spawn_blocking(move || keys.look()).await;
        }
    }

    fn look(&self) {
        let Some(source) = &self.source else { return };
        let seen = *source.seen.read().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&source.path).ok();
        if now == seen {
            return;
        }
        *source.seen.write().unwrap_or_else(PoisonError::into_inner) = now;
        let issuer = Issuer { name: &source.issuer, audience: &source.audience };
        match read(&source.path, issuer) {
            Ok((_, keys)) => {
                tracing::info!(keys = keys.len(), "the identity provider's keys were read again");
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
                self.changes.fetch_add(1, Ordering::Release);
            }
            Err(problem) => {
                tracing::error!(problem, "{JWKS_FILE} cannot be used: the keys stay as they are");
            }
        }
    }
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let meta = fs::metadata(path)?;
    Ok(Stamp { modified: meta.modified().ok(), bytes: meta.len() })
}

/// The usable keys of a file. What is wrong with it is told without its content.
fn read(path: &Path, issuer: Issuer<'_>) -> Result<(Stamp, Vec<Verifier>), String> {
    let stamp = stamp(path).map_err(|error| format!("cannot be read: {error}"))?;
    if stamp.bytes > MAX_BYTES {
        return Err("is larger than 1 MiB".to_owned());
    }
    let text = fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let set: JwkSet =
        serde_json::from_slice(&text).map_err(|_| "is no JSON Web Key Set".to_owned())?;
    if set.keys.len() > MAX_KEYS {
        return Err(format!("has more than {MAX_KEYS} keys"));
    }
    let mut keys: Vec<Verifier> = Vec::new();
    for jwk in &set.keys {
        let kid = jwk.common.key_id.as_deref();
        match Verifier::of_jwk(jwk, issuer) {
            Ok(key) if kid.is_some() && keys.iter().any(|other| other.kid() == kid) => {
                return Err(format!("has two keys with the kid {:?}", key.kid()));
            }
            Ok(key) => keys.push(key),
            Err(UnusableKey::Weak) => return Err(format!("has a weak key: {}", UnusableKey::Weak)),
            Err(problem) => tracing::warn!(kid, %problem, "a key of the provider is not used"),
        }
    }
    if keys.is_empty() {
        return Err("has no key that can be used (HS256, RS256, ES256, EdDSA)".to_owned());
    }
    Ok((stamp, keys))
}

fn unusable(problem: &str) -> SettingsError {
    SettingsError::Unusable { variable: JWKS_FILE, problem: problem.to_owned() }
}
