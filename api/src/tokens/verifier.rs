//! A key that verifies tokens, pinned to one algorithm whatever a token's header says.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode};
use serde::{Deserialize, Deserializer};
use shared::domain::Role;
use thiserror::Error;
use uuid::Uuid;

use super::weakness::weakness;

/// Clocks of issuers may differ from ours by this much (seconds).
pub(super) const LEEWAY_SECONDS: u64 = 30;
/// A shorter modulus can be factored (RFC 7518, 3.3: at least 2048 bits).
const MIN_MODULUS_BYTES: usize = 256;

/// The claims that make an actor; the others are checked by jsonwebtoken and may have any form it
/// takes (`aud` may be a list).
#[derive(Debug, Deserialize)]
pub(super) struct Identity {
    pub(super) sub: Uuid,
    #[serde(deserialize_with = "seconds")]
    pub(super) exp: u64,
    #[serde(default)]
    pub(super) role: Role,
    /// A session of ours. What a provider calls a session may be any text, and is left alone.
    #[serde(default, deserialize_with = "session")]
    pub(super) sid: Option<Uuid>,
}

/// Unix seconds, which may have a fraction (RFC 7519, 2).
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(f64::deserialize(deserializer)? as u64)
}

fn session<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    let sid = serde_json::Value::deserialize(deserializer)?;
    Ok(sid.as_str().and_then(|text| Uuid::try_parse(text).ok()))
}

/// Why a key of a JSON Web Key Set is not used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum UnusableKey {
    /// It is there for something else.
    #[error("it is not for signatures")]
    OtherUse,
    /// It is for another algorithm.
    #[error("its algorithm is none of HS256, RS256, ES256, EdDSA")]
    OtherAlgorithm,
    /// It can be broken.
    #[error("it is too short (2048 bits for RSA, 32 bytes for HS256), or a known example")]
    Weak,
    /// It cannot be read.
    #[error("it cannot be read")]
    Unreadable,
}

/// Whose tokens a key verifies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Issuer<'a> {
    /// Their `iss`.
    pub(super) name: &'a str,
    /// Their `aud`.
    pub(super) audience: &'a str,
}

/// A key and what a token must say to be verified with it.
pub(super) struct Verifier {
    kid: Option<String>,
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    /// A key for one algorithm: `exp`, `iss`, `aud` and `sub` are required, `nbf` is honoured.
    pub(super) fn new(
        kid: Option<String>,
        algorithm: Algorithm,
        key: DecodingKey,
        issuer: Issuer<'_>,
    ) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_issuer(&[issuer.name]);
        validation.set_audience(&[issuer.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Self { kid, key, validation }
    }

    /// A key of a JSON Web Key Set (RFC 7517). Its algorithm follows from its type, so that no two
    /// algorithms ever share a key.
    pub(super) fn of_jwk(jwk: &Jwk, issuer: Issuer<'_>) -> Result<Self, UnusableKey> {
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return Err(UnusableKey::OtherUse);
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|_| UnusableKey::Unreadable)?;
        let algorithm = algorithm_of(jwk, &key)?;
        Ok(Self::new(jwk.common.key_id.clone(), algorithm, key, issuer))
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// What the token says, if this key verifies it.
    pub(super) fn verify(&self, header: &Header, token: &str) -> Option<Identity> {
        let meant = match (&self.kid, &header.kid) {
            (Some(own), Some(named)) => own == named,
            (None, _) | (_, None) => true,
        };
        // Extensions that a token calls critical must be understood (RFC 7515, 4.1.11): we know none.
        if !meant || header.crit.is_some() {
            return None;
        }
        decode::<Identity>(token, &self.key, &self.validation).ok().map(|data| data.claims)
    }
}

fn algorithm_of(jwk: &Jwk, key: &DecodingKey) -> Result<Algorithm, UnusableKey> {
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            // Base64 has four characters for three bytes.
            if rsa.n.trim_end_matches('=').len() < MIN_MODULUS_BYTES * 4 / 3 {
                return Err(UnusableKey::Weak);
            }
            (Algorithm::RS256, KeyAlgorithm::RS256)
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        AlgorithmParameters::OctetKey(_) => {
            let secret = key.try_get_as_bytes().map_err(|_| UnusableKey::Unreadable)?;
            if weakness(secret).is_some() {
                return Err(UnusableKey::Weak);
            }
            (Algorithm::HS256, KeyAlgorithm::HS256)
        }
        // Other curves and other types, known to the library or not.
        _ => return Err(UnusableKey::OtherAlgorithm),
    };
    match jwk.common.key_algorithm {
        Some(other) if other != named => Err(UnusableKey::OtherAlgorithm),
        None | Some(_) => Ok(algorithm),
    }
}
