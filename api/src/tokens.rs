//! Bearer tokens: whose are accepted, and what makes an actor of one.
//!
//! Accepted are our own (`iss` and `aud` are `holdfast`) and, if a provider secret is set, the
//! identity provider's. The algorithm is HS256 whatever a token's header says; `exp`, `iss`, `aud`
//! and `sub` are required, `nbf` is honoured.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use shared::buffer::{private_folder, sibling};
use shared::domain::{Actor, Role};
use shared::settings::SettingsError;
use thiserror::Error;
use uuid::Uuid;

use crate::settings::TokenSettings;

const OWN_ISSUER: &str = "holdfast";
const OWN_AUDIENCE: &str = "holdfast";
/// Clocks of issuers may differ from ours by this much (seconds).
const LEEWAY_SECONDS: u64 = 30;
/// A shorter secret can be guessed (RFC 7518, 3.2: at least the size of the hash).
const MIN_SECRET_BYTES: usize = 32;

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: Uuid,
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<Uuid>,
}

/// The claims that make an actor; the others are checked by jsonwebtoken and may have any form it
/// takes (`aud` may be a list).
#[derive(Debug, Deserialize)]
struct Identity {
    sub: Uuid,
    #[serde(default)]
    role: Role,
    #[serde(default)]
    sid: Option<Uuid>,
}

/// A token was not accepted; nobody is told why.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the token is not accepted")]
pub struct Denied;

/// Whose tokens are accepted.
pub struct Tokens {
    verifiers: Vec<(DecodingKey, Validation)>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({} keys)", self.verifiers.len())
    }
}

impl Tokens {
    /// Prepares the keys. Without `JWT_SECRET`, takes or makes the one beside the buffer file.
    ///
    /// # Errors
    /// If a secret is too short or a known example, or the file cannot be used.
    pub fn new(settings: &TokenSettings, buffer_path: &Path) -> Result<Self, SettingsError> {
        let own = match &settings.jwt_secret {
            Some(secret) => secret.clone(),
            None => local_secret(buffer_path)?,
        };
        check_secret("JWT_SECRET", &own)?;
        let mut verifiers = vec![verifier(&own, OWN_ISSUER, OWN_AUDIENCE)];
        if let Some(secret) = &settings.provider_jwt_secret {
            check_secret("PROVIDER_JWT_SECRET", secret)?;
            if settings.accept_provider_tokens {
                let (issuer, audience) = (&settings.provider_issuer, &settings.provider_audience);
                verifiers.push(verifier(secret, issuer, audience));
            }
        }
        Ok(Self { verifiers })
    }

    /// The actor a token speaks for.
    ///
    /// # Errors
    /// If no key accepts it, it has expired, or a required claim is missing or of another form.
    pub fn verify(&self, token: &str) -> Result<Actor, Denied> {
        self.verifiers
            .iter()
            .find_map(|(key, validation)| decode::<Identity>(token, key, validation).ok())
            .map(|data| Actor {
                user_id: data.claims.sub,
                role: data.claims.role,
                session_id: data.claims.sid,
            })
            .ok_or(Denied)
    }
}

fn verifier(secret: &SecretString, issuer: &str, audience: &str) -> (DecodingKey, Validation) {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.leeway = LEEWAY_SECONDS;
    validation.validate_nbf = true;
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    (DecodingKey::from_secret(secret.expose_secret().as_bytes()), validation)
}

/// Signs a token of our own with the secret beside the buffer file.
///
/// # Errors
/// If `JWT_SECRET` is set (tokens are then the identity provider's business), or the file cannot
/// be used.
pub fn mint_local(
    settings: &TokenSettings,
    buffer_path: &Path,
    actor: Actor,
    lifetime_seconds: u64,
) -> Result<String, SettingsError> {
    let unusable = |problem: &str| SettingsError::Unusable {
        variable: "JWT_SECRET",
        problem: problem.to_owned(),
    };
    if settings.jwt_secret.is_some() {
        return Err(unusable("is set, so this is no development setup: no token is made"));
    }
    let secret = local_secret(buffer_path)?;
    let now = u64::try_from(chrono::Utc::now().timestamp()).unwrap_or(0);
    let claims = Claims {
        iss: OWN_ISSUER.to_owned(),
        aud: OWN_AUDIENCE.to_owned(),
        sub: actor.user_id,
        exp: now.saturating_add(lifetime_seconds),
        iat: Some(now),
        role: Some(actor.role),
        sid: actor.session_id,
    };
    let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|_| unusable("cannot sign a token"))
}

/// The secret beside the buffer file, for a node that was given none: made on first use.
fn local_secret(buffer_path: &Path) -> Result<SecretString, SettingsError> {
    let path = sibling(buffer_path, "jwt-secret");
    let unusable = |error: io::Error| SettingsError::Unusable {
        variable: "JWT_SECRET",
        problem: format!("is not set, and {} cannot be used: {error}", path.display()),
    };
    private_folder(&path).map_err(|error| unusable(io::Error::other(error)))?;
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    match made {
        Ok(mut file) => {
            let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
            file.write_all(secret.as_bytes()).and_then(|()| file.sync_all()).map_err(unusable)?;
            Ok(secret.into())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok(fs::read_to_string(&path).map_err(unusable)?.trim().to_owned().into())
        }
        Err(error) => Err(unusable(error)),
    }
}

fn check_secret(variable: &'static str, secret: &SecretString) -> Result<(), SettingsError> {
    let secret = secret.expose_secret();
    let refuse =
        |problem: &str| Err(SettingsError::Unusable { variable, problem: problem.to_owned() });
    if secret.len() < MIN_SECRET_BYTES {
        return refuse("must have at least 32 bytes");
    }
    let lower = secret.to_lowercase();
    let examples = ["change-me", "changeme", "change_me", "your-secret", "your_secret", "example"];
    if examples.iter().any(|example| lower.contains(example)) {
        return refuse("is a known example; make one with `openssl rand -hex 32`");
    }
    let mut bytes: Vec<u8> = secret.bytes().collect();
    bytes.sort_unstable();
    bytes.dedup();
    if bytes.len() < 8 {
        return refuse("repeats too few characters; make one with `openssl rand -hex 32`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_secrets_stop_the_start_without_being_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buffer.redb");
        for weak in ["short-secret-7c1", "please-change-me-please-change-me", &"ab".repeat(20)] {
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
        assert_eq!(Tokens::new(&settings, &path).unwrap().verify(&token), Ok(actor));
        let strong = "0123456789abcdef0123456789abcdef".to_owned();
        let settings = TokenSettings { jwt_secret: Some(strong.into()), ..settings };
        assert!(mint_local(&settings, &path, actor, 60).is_err());
        assert_eq!(Tokens::new(&settings, &path).unwrap().verify(&token), Err(Denied));
    }
}
