//! Tokens: whose are accepted, what makes an actor of one, and how our own are signed.
//!
//! Accepted as bearer tokens are our own (`iss` and `aud` are `holdfast`) and, unless the settings say
//! otherwise, the identity provider's, which are also what a login is made with. Each key is pinned
//! to one algorithm; `exp`, `iss`, `aud` and `sub` are required, `nbf` is honoured. A token that has
//! been verified is known again by its hash for a minute, until it expires or keys change.

mod local;
mod provider;
mod verifier;
mod weakness;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Header, decode_header, encode};
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shared::domain::{Actor, Role};
use shared::settings::SettingsError;
use thiserror::Error;
use uuid::Uuid;

use crate::settings::TokenSettings;
use local::{Signer, own_key, unusable};
use provider::ProviderKeys;
use verifier::{Identity, LEEWAY_SECONDS, Verifier};

const OWN_ISSUER: &str = "holdfast";
const OWN_AUDIENCE: &str = "holdfast";
/// How long an access token of a session is good for (seconds): as long as one of a session that has
/// ended may be taken for good where that is not known.
pub const ACCESS_SECONDS: u64 = 15 * 60;
/// Verified tokens that are kept in mind at the most, and for how long at the most.
const REMEMBERED: u64 = 10_000;
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// A longer token is not looked at (bytes).
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// What our own tokens say.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: Uuid,
    exp: u64,
    iat: u64,
    role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<Uuid>,
}

impl Claims {
    fn new(actor: Actor, lifetime_seconds: u64) -> Self {
        let now = now();
        Self {
            iss: OWN_ISSUER.to_owned(),
            aud: OWN_AUDIENCE.to_owned(),
            sub: actor.user_id,
            exp: now.saturating_add(lifetime_seconds),
            iat: now,
            role: actor.role,
            sid: actor.session_id,
        }
    }
}

/// A token was not accepted; nobody is told why.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the token is not accepted")]
pub struct Denied;

/// Whose tokens are accepted.
pub struct Tokens {
    signer: Signer,
    own: Verifier,
    provider: Arc<ProviderKeys>,
    accept_provider: bool,
    /// What verified tokens say, by their hash and the provider's keys at that time.
    verified: Cache<(u64, [u8; 32]), Verified>,
}

/// A verified token.
#[derive(Clone, Copy)]
struct Verified {
    actor: Actor,
    /// When it expires (Unix seconds).
    exp: u64,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    /// Prepares the keys. With neither `JWT_SECRET` nor `JWT_PRIVATE_KEY_FILE`, takes or makes the
    /// secret beside the buffer file.
    ///
    /// # Errors
    /// If a secret or key is weak or a known example, or a file cannot be used.
    pub fn new(settings: &TokenSettings, buffer_path: &Path) -> Result<Self, SettingsError> {
        let (signer, own) = own_key(settings, buffer_path)?;
        let provider = Arc::new(ProviderKeys::new(settings)?);
        let verified =
            Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build();
        let accept_provider = settings.accept_provider_tokens;
        Ok(Self { signer, own, provider, accept_provider, verified })
    }

    /// The actor a bearer token speaks for.
    ///
    /// # Errors
    /// If no key accepts it, it has expired, or a required claim is missing or of another form.
    pub fn verify(&self, token: &str) -> Result<Actor, Denied> {
        let key = (self.provider.changes(), Sha256::digest(token).into());
        if let Some(Verified { actor, exp }) = self.verified.get(&key) {
            let expired = exp.saturating_add(LEEWAY_SECONDS) < now();
            return if expired { Err(Denied) } else { Ok(actor) };
        }
        let verified = self.look_at(token)?;
        self.verified.insert(key, verified);
        Ok(verified.actor)
    }

    fn look_at(&self, token: &str) -> Result<Verified, Denied> {
        let header = header_of(token)?;
        if let Some(identity) = self.own.verify(&header, token) {
            let Identity { sub, role, sid, exp } = identity;
            let actor = Actor { user_id: sub, role, session_id: sid };
            return Ok(Verified { actor, exp });
        }
        let identity = self.accept_provider.then(|| self.provider.verify(&header, token));
        let identity = identity.flatten().ok_or(Denied)?;
        Ok(Verified { exp: identity.exp, actor: of_provider(identity) })
    }

    /// The actor that the identity provider vouches for with an assertion.
    ///
    /// # Errors
    /// As [`Tokens::verify`]; our own tokens are not accepted here.
    pub fn verify_assertion(&self, assertion: &str) -> Result<Actor, Denied> {
        let header = header_of(assertion)?;
        self.provider.verify(&header, assertion).map(of_provider).ok_or(Denied)
    }

    /// An access token for a session.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn access(&self, actor: Actor) -> Result<String, jsonwebtoken::errors::Error> {
        sign(&self.signer, Claims::new(actor, ACCESS_SECONDS))
    }

    /// Reads the identity provider's keys again whenever their file changes, for ever.
    pub async fn keep_reading(&self) {
        self.provider.keep_reading().await;
    }
}

/// Unix seconds.
fn now() -> u64 {
    u64::try_from(chrono::Utc::now().timestamp()).unwrap_or(0)
}

/// A provider's session is none of ours, whatever it is called.
fn of_provider(identity: Identity) -> Actor {
    Actor { user_id: identity.sub, role: identity.role, session_id: None }
}

fn header_of(token: &str) -> Result<Header, Denied> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Denied);
    }
    decode_header(token).map_err(|_| Denied)
}

fn sign(signer: &Signer, claims: Claims) -> Result<String, jsonwebtoken::errors::Error> {
    let header = Header { kid: signer.kid.clone(), ..Header::new(signer.algorithm) };
    encode(&header, &claims, &signer.key)
}

/// The claims of a token that is signed and verified to see whether a key can do both.
fn trial() -> Claims {
    let nobody = Actor { user_id: Uuid::nil(), role: Role::User, session_id: None };
    Claims::new(nobody, ACCESS_SECONDS)
}

/// Signs a token of our own with the secret beside the buffer file.
///
/// # Errors
/// If a key of ours or of a provider is set (tokens are then the identity provider's business), or
/// the file cannot be used.
pub fn mint_local(
    settings: &TokenSettings,
    buffer_path: &Path,
    actor: Actor,
    lifetime_seconds: u64,
) -> Result<String, SettingsError> {
    let keys = [
        ("JWT_SECRET", settings.jwt_secret.is_some()),
        ("JWT_PRIVATE_KEY_FILE", settings.jwt_private_key_file.is_some()),
        ("PROVIDER_JWT_SECRET", settings.provider_jwt_secret.is_some()),
        ("PROVIDER_JWKS_FILE", settings.provider_jwks_file.is_some()),
    ];
    if let Some((variable, _)) = keys.into_iter().find(|(_, is_set)| *is_set) {
        let problem = "is set, so this is no development setup: no token is made";
        return Err(unusable(variable, problem));
    }
    let (signer, _) = own_key(settings, buffer_path)?;
    sign(&signer, Claims::new(actor, lifetime_seconds))
        .map_err(|_| unusable("JWT_SECRET", "cannot sign a token"))
}

#[cfg(test)]
mod tests {
    use shared::buffer::sibling;

    use super::*;

    #[test]
    fn weak_secrets_stop_the_start_without_being_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buffer.redb");
        for weak in [
            "short-secret-7c1",
            "please-change-me-please-change-me",
            "a-string-secret-at-least-256-bits-long",
            &"ab".repeat(20),
        ] {
            let settings =
                TokenSettings { jwt_secret: Some(weak.to_owned().into()), ..Default::default() };
            let message = Tokens::new(&settings, &path).unwrap_err().to_string();
            assert!(message.starts_with("JWT_SECRET"), "{message}");
            assert!(!message.contains(weak), "{message}");
        }
    }

    #[test]
    fn a_minted_token_is_accepted_and_none_is_minted_where_a_secret_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buffer.redb");
        let actor = Actor { user_id: Uuid::from_u128(5), role: Role::Operator, session_id: None };
        let settings = TokenSettings::default();
        let token = mint_local(&settings, &path, actor, 60).unwrap();
        let tokens = Tokens::new(&settings, &path).unwrap();
        assert_eq!(tokens.verify(&token), Ok(actor));
        assert_eq!(tokens.verify_assertion(&token), Err(Denied));
        let strong = "0123456789abcdef0123456789abcdef".to_owned();
        let settings = TokenSettings { jwt_secret: Some(strong.into()), ..settings };
        assert!(mint_local(&settings, &path, actor, 60).is_err());
        assert_eq!(Tokens::new(&settings, &path).unwrap().verify(&token), Err(Denied));
    }

    #[test]
    fn a_local_secret_that_is_a_link_or_open_to_others_is_refused() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (path, settings) = (dir.path().join("buffer.redb"), TokenSettings::default());
        Tokens::new(&settings, &path).unwrap();
        let (secret, elsewhere) = (sibling(&path, "jwt-secret"), dir.path().join("elsewhere"));
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o640)).unwrap();
        let open = Tokens::new(&settings, &path).unwrap_err().to_string();
        assert!(open.starts_with("JWT_SECRET") && open.contains("chmod 600"), "{open}");
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::rename(&secret, &elsewhere).unwrap();
        symlink(&elsewhere, &secret).unwrap();
        let linked = Tokens::new(&settings, &path).unwrap_err().to_string();
        assert!(linked.starts_with("JWT_SECRET"), "{linked}");
    }
}
