//! What there is to change, and the lanes in which changes of one thing keep their order.

use std::fmt;

use uuid::Uuid;

/// What kind of thing an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// All of them.
    pub const ALL: [EntityKind; 4] = [Self::Task, Self::Profile, Self::Session, Self::Cache];

    /// The byte that stands for it in records, and its name in the API and in the ledger. Neither ever
    /// changes: files and databases hold them.
    const fn signs(self) -> (u8, &'static str) {
        match self {
            Self::Task => (1, "task"),
            Self::Profile => (2, "profile"),
            Self::Session => (3, "session"),
            Self::Cache => (4, "cache"),
        }
    }

    /// The byte that stands for it in the buffer's records.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self.signs().0
    }

    /// The name used in the API and in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.signs().1
    }

    /// The kind that a byte stands for; `None` if it is none of ours.
    #[must_use]
    pub fn of_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
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
