//! The key that our own tokens are signed with: a secret, a private key, or a secret made beside the
//! buffer file for a node that was given neither.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use secrecy::{ExposeSecret, SecretString};
use shared::buffer::{open_private_existing, private_folder, sibling};
use shared::settings::SettingsError;
use uuid::Uuid;

use super::verifier::{Issuer, Verifier};
use super::weakness::weakness;
use crate::settings::TokenSettings;

const OWN: Issuer<'_> = Issuer { name: super::OWN_ISSUER, audience: super::OWN_AUDIENCE };
const PRIVATE_KEY_FILE: &str = "JWT_PRIVATE_KEY_FILE";

/// Signs our own tokens.
pub(super) struct Signer {
    pub(super) key: EncodingKey,
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
}

/// The key that the settings name, to sign with and to verify with.
///
/// # Errors
/// If a secret is weak or a file cannot be used.
pub(super) fn own_key(
    settings: &TokenSettings,
    buffer_path: &Path,
) -> Result<(Signer, Verifier), SettingsError> {
    match (&settings.jwt_secret, &settings.jwt_private_key_file) {
        (Some(_), Some(_)) => {
            Err(unusable(PRIVATE_KEY_FILE, "is set beside JWT_SECRET; set one of them"))
        }
        (Some(secret), None) => {
            check_secret("JWT_SECRET", secret)?;
            Ok(of_secret(secret))
        }
        (None, Some(path)) => of_file(path),
        (None, None) => {
            let secret = local_secret(buffer_path)?;
            check_secret("JWT_SECRET", &secret)?;
            Ok(of_secret(&secret))
        }
    }
}

fn of_secret(secret: &SecretString) -> (Signer, Verifier) {
    let bytes = secret.expose_secret().as_bytes();
    let algorithm = Algorithm::HS256;
    let signer = Signer { key: EncodingKey::from_secret(bytes), algorithm, kid: None };
    (signer, Verifier::new(None, algorithm, DecodingKey::from_secret(bytes), OWN))
}

/// A private key in PEM: RSA, P-256 or Ed25519. Its `kid` is its thumbprint (RFC 7638).
fn of_file(path: &Path) -> Result<(Signer, Verifier), SettingsError> {
    let unreadable =
        |error: io::Error| unusable(PRIVATE_KEY_FILE, &format!("cannot be read: {error}"));
    let meta = fs::metadata(path).map_err(unreadable)?;
    if meta.mode() & 0o077 != 0 {
        return Err(unusable(PRIVATE_KEY_FILE, "is open to other users (chmod 600)"));
    }
    let pem = SecretString::from(fs::read_to_string(path).map_err(unreadable)?);
    let pem = pem.expose_secret().as_bytes();
    type Read = fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>;
    let kinds: [(Algorithm, Read); 3] = [
        (Algorithm::EdDSA, EncodingKey::from_ed_pem),
        (Algorithm::ES256, EncodingKey::from_ec_pem),
        (Algorithm::RS256, EncodingKey::from_rsa_pem),
    ];
    kinds.into_iter().find_map(|(algorithm, read)| pair(read(pem).ok()?, algorithm)).ok_or_else(
        || {
            let expected =
                "expected a private key in PEM: RSA of 2048 bits or more, P-256 or Ed25519";
            unusable(PRIVATE_KEY_FILE, expected)
        },
    )
}

/// A key to sign with and the one to verify with, if what one signs the other verifies.
fn pair(key: EncodingKey, algorithm: Algorithm) -> Option<(Signer, Verifier)> {
    let mut jwk = Jwk::from_encoding_key(&key, algorithm).ok()?;
    let kid = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
    jwk.common.key_id = Some(kid.clone());
    let verifier = Verifier::of_jwk(&jwk, OWN).ok()?;
    let signer = Signer { key, algorithm, kid: Some(kid) };
    let token = super::sign(&signer, super::trial()).ok()?;
    let header = jsonwebtoken::decode_header(&token).ok()?;
    verifier.verify(&header, &token).map(|_| (signer, verifier))
}

/// The secret beside the buffer file, for a node that was given none: made on first use.
fn local_secret(buffer_path: &Path) -> Result<SecretString, SettingsError> {
    let path = sibling(buffer_path, "jwt-secret");
    let failed = |error: io::Error| {
        let problem = format!("is not set, and {} cannot be used: {error}", path.display());
        unusable("JWT_SECRET", &problem)
    };
    private_folder(&path).map_err(|error| failed(io::Error::other(error)))?;
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    match made {
        Ok(mut file) => {
            let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
            file.write_all(secret.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            Ok(secret.into())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut secret = String::new();
            open_private_existing(&path)
                .map_err(io::Error::other)
                .and_then(|mut file| file.read_to_string(&mut secret))
                .map_err(failed)?;
            Ok(secret.trim().to_owned().into())
        }
        Err(error) => Err(failed(error)),
    }
}

/// Refuses a secret that can be guessed, without repeating it.
pub(super) fn check_secret(
    variable: &'static str,
    secret: &SecretString,
) -> Result<(), SettingsError> {
    match weakness(secret.expose_secret().as_bytes()) {
        Some(problem) => Err(unusable(variable, problem)),
        None => Ok(()),
    }
}

pub(super) fn unusable(variable: &'static str, problem: &str) -> SettingsError {
    SettingsError::Unusable { variable, problem: problem.to_owned() }
}
