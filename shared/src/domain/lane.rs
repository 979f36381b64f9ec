//! What there is to change, and the lanes in which changes of one thing keep their order.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What kind of thing an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntityKind {
    /// A task.
    Task,
    /// A user's profile.
    Profile,
    /// A session.
    Session,
    /// The cache in Redis, as a whole.
    Cache,
}

impl EntityKind {
    /// The name used in the API and in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Profile => "profile",
            Self::Session => "session",
            Self::Cache => "cache",
        }
    }
}

/// One entity, and thereby all pending operations of it, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// What the entity is.
    pub kind: EntityKind,
    /// Its id.
    pub id: Uuid,
}

impl Lane {
    /// The lane of the cache: there is one cache, which has no id of its own.
    pub const CACHE: Self = Self { kind: EntityKind::Cache, id: Uuid::nil() };
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.id)
    }
}
