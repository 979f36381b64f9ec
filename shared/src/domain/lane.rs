//! What there is to change, and the lanes in which changes of one thing keep their order.

use std::fmt;

use uuid::Uuid;

/// Makes [`EntityKind`], and the list of all kinds: one that is written can be read.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $byte:literal, $name:literal;)+) => {
        /// What kind of thing an entity is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EntityKind {
            $($(#[$doc])* $kind,)+
        }

        impl EntityKind {
            /// All of them.
            pub const ALL: &[EntityKind] = &[$(Self::$kind),+];

            /// The byte that stands for it in records, and its name in the API and in the ledger.
            const fn signs(self) -> (u8, &'static str) {
                match self {
                    $(Self::$kind => ($byte, $name),)+
                }
            }
        }
    };
}

// Neither byte nor name ever changes: files and databases hold them.
kinds! {
    /// A task.
    Task = 1, "task";
    /// A user's profile.
    Profile = 2, "profile";
    /// A session.
    Session = 3, "session";
    /// The cache in Redis, as a whole.
    Cache = 4, "cache";
}

impl EntityKind {
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

    /// Whether entities of the kind are made by creates: a change of one that is not there may wait for a
    /// create that another host holds.
    #[must_use]
    pub const fn is_created(self) -> bool {
        match self {
            Self::Task => true,
            Self::Profile | Self::Session | Self::Cache => false,
        }
    }

    /// Whether entities of the kind are kept in the cache in Redis.
    #[must_use]
    pub const fn is_cached(self) -> bool {
        match self {
            Self::Task | Self::Profile => true,
            Self::Session | Self::Cache => false,
        }
    }

    /// The kind that a byte stands for; `None` if it is none of ours.
    #[must_use]
    pub fn of_byte(byte: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.byte() == byte)
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
