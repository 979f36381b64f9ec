//! The keys that records are sealed with, from `BUFFER_KEYS`, and the sealing itself:
//! XChaCha20-Poly1305 with a random nonce of 24 bytes for each record, which may be drawn without
//! counting how many there were.
//!
//! ```text
//! sealed payload   length of the key's id u8 · key's id · nonce 24 · ciphertext · tag 16
//! ```
//! The ciphers are prepared once, when the buffer is opened. Keys are wiped from memory when they
//! are dropped and are never shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use zeroize::Zeroizing;

use super::damage::Damage;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// The id of a key has this many characters at the most.
const ID_LIMIT: usize = 32;

/// Why `BUFFER_KEYS` cannot be used. A key is named by its number in the list, from 1, because what
/// stands for its id may be a key in the wrong place.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KeysError {
    /// Not `id:key`.
    #[error("BUFFER_KEYS: entry {0} is not of the form id:key")]
    Form(usize),
    /// The id has another form.
    #[error("BUFFER_KEYS: entry {0}: an id has 1 to 32 characters of A-Z a-z 0-9 _ -")]
    Id(usize),
    /// The id stands before already.
    #[error("BUFFER_KEYS: entry {0} repeats the id of another")]
    Repeated(usize),
    /// The key has another form.
    #[error("BUFFER_KEYS: entry {0}: a key is 32 bytes in base64 (openssl rand -base64 32)")]
    Key(usize),
    /// All bytes of the key are the same.
    #[error("BUFFER_KEYS: entry {0}: the key is not random (openssl rand -base64 32)")]
    Weak(usize),
}

/// A sealed record could not be made: the operating system gave no random bytes, or refused.
#[derive(Clone, Copy, Debug, Error)]
#[error("an operation cannot be sealed")]
pub(in crate::buffer) struct Unsealable;

/// A number that seals one payload.
pub(in crate::buffer) type Nonce = [u8; NONCE_BYTES];

struct Key {
    id: String,
    cipher: XChaCha20Poly1305,
}

/// The keys of this process, newest first. Without any, nothing is sealed.
#[derive(Default)]
pub(in crate::buffer) struct Keys(Vec<Key>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// Reads `id:key,id:key`, newest first, and prepares the ciphers.
    pub(in crate::buffer) fn parse(list: Option<&SecretString>) -> Result<Self, KeysError> {
        let mut keys = Vec::<Key>::new();
        for (number, entry) in (1..).zip(list.iter().flat_map(|l| l.expose_secret().split(','))) {
            let (id, key) = entry.trim().split_once(':').ok_or(KeysError::Form(number))?;
            let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if id.is_empty() || id.len() > ID_LIMIT || !id.chars().all(allowed) {
                return Err(KeysError::Id(number));
            }
            if keys.iter().any(|known| known.id == id) {
                return Err(KeysError::Repeated(number));
            }
            let bytes = STANDARD.decode(key).map(Zeroizing::new);
            let bytes = bytes.map_err(|_| KeysError::Key(number))?;
            if bytes.len() != KEY_BYTES {
                return Err(KeysError::Key(number));
            }
            if bytes.iter().all(|byte| *byte == bytes[0]) {
                return Err(KeysError::Weak(number));
            }
            let cipher = XChaCha20Poly1305::new_from_slice(&bytes);
            let cipher = cipher.map_err(|_| KeysError::Key(number))?;
            keys.push(Key { id: id.to_owned(), cipher });
        }
        Ok(Self(keys))
    }

    /// The id of the key that new records are sealed with.
    pub(in crate::buffer) fn newest(&self) -> Option<&str> {
        self.0.first().map(|key| key.id.as_str())
    }

    /// Seals a payload with the newest key and a nonce of its own; `None` without keys.
    pub(in crate::buffer) fn seal(
        &self,
        nonce: Nonce,
        payload: &[u8],
        context: &[u8],
    ) -> Result<Option<Vec<u8>>, Unsealable> {
        let Some(key) = self.0.first() else { return Ok(None) };
        let context = bound(&key.id, context);
        let message = Payload { msg: payload, aad: &context };
        let ciphertext =
            key.cipher.encrypt(&XNonce::from(nonce), message).map_err(|_| Unsealable)?;
        let length = u8::try_from(key.id.len()).map_err(|_| Unsealable)?;
        Ok(Some([&[length], key.id.as_bytes(), &nonce, &ciphertext].concat()))
    }

    /// Opens a sealed payload, which must have been sealed in the same context.
    pub(in crate::buffer) fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, Damage> {
        let (id, rest) = split_id(sealed).ok_or(Damage::Truncated)?;
        let (nonce, ciphertext) =
            rest.split_first_chunk::<NONCE_BYTES>().ok_or(Damage::Truncated)?;
        let key = self.0.iter().find(|key| key.id.as_bytes() == id).ok_or(Damage::UnknownKey)?;
        let context = bound(&key.id, context);
        let message = Payload { msg: ciphertext, aad: &context };
        key.cipher.decrypt(&XNonce::from(*nonce), message).map_err(|_| Damage::Seal)
    }
}

/// A nonce from the operating system.
pub(in crate::buffer) fn nonce() -> Result<Nonce, Unsealable> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| Unsealable)?;
    Ok(nonce)
}

/// The id of the key that a payload says it was sealed with.
pub(in crate::buffer) fn key_id(sealed: &[u8]) -> Option<&str> {
    split_id(sealed).and_then(|(id, _)| std::str::from_utf8(id).ok())
}

fn split_id(sealed: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = sealed.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// The associated data: the context, which has a fixed length, and the key's id.
fn bound(id: &str, context: &[u8]) -> Vec<u8> {
    [context, id.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const TWO: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

    fn keys(list: &str) -> Result<Keys, KeysError> {
        Keys::parse(Some(&SecretString::from(list)))
    }

    #[test]
    fn what_is_no_list_of_keys_is_refused_and_never_shown() {
        let same = STANDARD.encode([7; 32]);
        let short = STANDARD.encode(*b"a-short-secret-7c1");
        let long = "i".repeat(33);
        for (list, expected) in [
            (ONE.to_owned(), KeysError::Form(1)),
            (String::from(","), KeysError::Form(1)),
            (format!("a:{ONE},"), KeysError::Form(2)),
            (format!(":{ONE}"), KeysError::Id(1)),
            (format!("a b:{ONE}"), KeysError::Id(1)),
            (format!("ä:{ONE}"), KeysError::Id(1)),
            (format!("{long}:{ONE}"), KeysError::Id(1)),
            (format!("{ONE}:a"), KeysError::Id(1)),
            (format!("a:{ONE},b:{TWO},a:{TWO}"), KeysError::Repeated(3)),
            ("a:".to_owned(), KeysError::Key(1)),
            (format!("a:{short}"), KeysError::Key(1)),
            (format!("a:{ONE}AAAA"), KeysError::Key(1)),
            (format!("a:{}", ONE.trim_end_matches('=')), KeysError::Key(1)),
            (format!("a:{ONE},b:{same}"), KeysError::Weak(2)),
        ] {
            let refused = keys(&list).unwrap_err();
            assert_eq!(refused, expected, "{list}");
            let said = format!("{refused} {refused:?}");
            assert!(said.contains("BUFFER_KEYS"), "{said}");
            assert!(!said.contains(ONE) && !said.contains(&short) && !said.contains(&same));
        }
        let two = keys(&format!("new:{TWO}, old-1_X:{ONE}")).unwrap();
        assert_eq!((two.newest(), format!("{two:?}").as_str()), (Some("new"), "Keys(2)"));
        assert_eq!(Keys::parse(None).unwrap().newest(), None);
    }

    #[test]
    fn what_was_sealed_is_opened_by_its_key_in_its_context_alone() {
        let old = keys(&format!("old:{ONE}")).unwrap();
        let sealed = old.seal(nonce().unwrap(), b"payload", b"context").unwrap().unwrap();
        assert_eq!(key_id(&sealed), Some("old"));
        for (list, context, expected) in [
            (format!("old:{ONE}"), "context", Ok(b"payload".to_vec())),
            (format!("new:{TWO},old:{ONE}"), "context", Ok(b"payload".to_vec())),
            (format!("old:{ONE}"), "another", Err(Damage::Seal)),
            (format!("old:{TWO}"), "context", Err(Damage::Seal)),
            (format!("new:{ONE}"), "context", Err(Damage::UnknownKey)),
        ] {
            assert_eq!(keys(&list).unwrap().open(&sealed, context.as_bytes()), expected, "{list}");
        }
        assert_eq!(Keys::default().open(&sealed, b"context"), Err(Damage::UnknownKey));
        let again = old.seal(nonce().unwrap(), b"payload", b"context").unwrap().unwrap();
        assert_ne!(sealed, again, "a nonce came twice");
        assert!(Keys::default().seal([0; 24], b"payload", b"context").unwrap().is_none());
    }
}
