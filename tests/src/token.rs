//! Bearer tokens: proper ones, and the odd ones that must be refused.

use std::time::{SystemTime, UNIX_EPOCH};

pub use jsonwebtoken::{Algorithm, EncodingKey};
use jsonwebtoken::{Header, encode};
use serde_json::{Value, json};
use uuid::Uuid;

const ISSUER: &str = "holdfast";
const LIFETIME_SECONDS: u64 = 15 * 60;

/// The base64url form of `{"alg":"none","typ":"JWT"}`.
const HEADER_WITHOUT_ALGORITHM: &str = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";

/// The claims of a proper token of the product's own, good for a quarter of an hour.
#[must_use]
pub fn claims(user: Uuid, role: &str) -> Value {
    let now = now();
    json!({ "iss": ISSUER, "aud": ISSUER, "sub": user, "role": role, "iat": now, "exp": now + LIFETIME_SECONDS })
}

/// Signs any claims with any key and algorithm.
///
/// # Panics
/// When the key does not fit the algorithm.
#[must_use]
pub fn sign(claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    encode(&Header::new(algorithm), claims, key).expect("a key that fits the algorithm")
}

/// A token that claims to need no signature (`alg: none`) and has none.
#[must_use]
pub fn unsigned(claims: &Value) -> String {
    let signed = sign(claims, &EncodingKey::from_secret(b"dropped at once"), Algorithm::HS256);
    let payload = signed.split('.').nth(1).expect("a token has three parts");
    format!("{HEADER_WITHOUT_ALGORITHM}.{payload}.")
}

/// Seconds since 1970, as tokens count them.
///
/// # Panics
/// When the clock stands before 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}
