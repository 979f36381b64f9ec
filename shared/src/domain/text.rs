//! The texts a client writes, parsed into types that cannot hold anything PostgreSQL would refuse.
//!
//! They are parsed at the edge alone. What is read back from the buffer or from PostgreSQL was
//! accepted once, and is taken as it is: a rule that is tightened later must not make it unreadable.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a value was refused; says what would be accepted and never repeats the value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Invalid(pub &'static str);

/// A task's title: 1 to 255 characters, not blank, no NUL.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Title(String);

impl Title {
    /// Takes a text out of a place that only ever held parsed ones.
    #[must_use]
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The greatest length in Unicode scalar values, as PostgreSQL's `varchar(255)` counts them.
    pub const MAX_CHARS: usize = 255;

    /// The text as written by the client.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Title {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        if text.trim().is_empty() {
            Err(Invalid("must not be empty or blank"))
        } else if text.chars().count() > Self::MAX_CHARS {
            Err(Invalid("must have at most 255 characters"))
        } else if text.contains('\0') {
            Err(Invalid("must not contain NUL"))
        } else {
            Ok(Self(text))
        }
    }
}

impl From<Title> for String {
    fn from(title: Title) -> Self {
        title.0
    }
}

/// A task's description: up to 10,000 characters, no NUL.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Description(String);

impl Description {
    /// Takes a text out of a place that only ever held parsed ones.
    #[must_use]
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The greatest length in Unicode scalar values.
    pub const MAX_CHARS: usize = 10_000;

    /// The text as written by the client.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Description {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        if text.chars().count() > Self::MAX_CHARS {
            Err(Invalid("must have at most 10000 characters"))
        } else if text.contains('\0') {
            Err(Invalid("must not contain NUL"))
        } else {
            Ok(Self(text))
        }
    }
}

impl From<Description> for String {
    fn from(description: Description) -> Self {
        description.0
    }
}

/// What a client wrote must not reach a log by way of `{:?}`.
macro_rules! redacted_debug {
    ($($name:ident),+) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }
    )+};
}
redacted_debug!(Title, Description);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_at_and_over_their_bounds() {
        let title = |text: &str| Title::try_from(text.to_owned());
        assert!(title("").is_err());
        assert!(title(" \t\u{2003}").is_err());
        assert!(title("a\0b").is_err());
        assert!(title(&"ä".repeat(255)).is_ok());
        assert!(title(&"ä".repeat(256)).is_err());
    }

    #[test]
    fn descriptions_at_and_over_their_bounds() {
        let description = |text: &str| Description::try_from(text.to_owned());
        assert!(description("").is_ok());
        assert!(description("a\0b").is_err());
        assert!(description(&"ä".repeat(10_000)).is_ok());
        assert!(description(&"ä".repeat(10_001)).is_err());
    }

    #[test]
    fn debug_output_shows_no_content() {
        let title = Title::try_from("canary".to_owned()).unwrap();
        assert_eq!(format!("{title:?}"), "Title(6 bytes)");
    }
}
