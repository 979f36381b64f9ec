//! Secrets that can be guessed: too short, too plain, or copied from an example.

/// A shorter secret can be guessed (RFC 7518, 3.2: at least the size of the hash).
const MIN_SECRET_BYTES: usize = 32;

/// Parts of secrets that stand in tutorials, templates and the first lines of word lists.
const EXAMPLES: [&str; 16] = [
    "change-me",
    "changeme",
    "change_me",
    "change-this",
    "change_this",
    "your-secret",
    "your_secret",
    "your-256-bit",
    "at-least-256-bits",
    "example",
    "supersecret",
    "super-secret",
    "super_secret",
    "placeholder",
    "secret-key",
    "password",
];

/// Why a secret can be guessed, if it can.
pub(super) fn weakness(secret: &[u8]) -> Option<&'static str> {
    if secret.len() < MIN_SECRET_BYTES {
        return Some("must have at least 32 bytes");
    }
    let lower = String::from_utf8_lossy(secret).to_lowercase();
    if EXAMPLES.iter().any(|example| lower.contains(example)) {
        return Some("is a known example; make one with `openssl rand -hex 32`");
    }
    let mut bytes = secret.to_vec();
    bytes.sort_unstable();
    bytes.dedup();
    (bytes.len() < 8).then_some("repeats too few characters; make one with `openssl rand -hex 32`")
}
