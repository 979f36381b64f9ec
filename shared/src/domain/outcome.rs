//! What can become of an operation that meets its entity, and why one can be refused.

use super::{EntityKind, OperationState};

/// What became of an operation that met its entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every field it names took effect.
    Applied,
    /// Some fields took effect; newer writes had set the others.
    Merged,
    /// Nothing took effect: newer writes had set every field.
    Superseded,
    /// Nothing took effect: the entity was deleted before.
    Gone,
    /// A create of a task that is there, or an operation that the ledger knows.
    Duplicate,
    /// It was not allowed or not possible.
    Refused(Refusal),
}

/// Why an operation did not come to its fields at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The entity is not there (or not yet: another node may still hold its create).
    NotFound(EntityKind),
    /// The entity belongs to somebody else.
    NotOwner(EntityKind),
    /// The user's role does not allow it (any more).
    NotAllowed,
    /// The user has been suspended.
    Suspended,
    /// The user has been erased: nothing of theirs is to be kept.
    Erased,
    /// The entity's version is not the one asserted with `If-Match`.
    PreconditionFailed(EntityKind),
    /// The asserted version is newer than the entity's (or not there yet: another node may still hold the
    /// write that made it).
    VersionNotFound(EntityKind),
    /// PostgreSQL refused the data; the SQLSTATE says how.
    Data([u8; 5]),
    /// PostgreSQL failed at it in a way that nobody foresaw; the SQLSTATE says how.
    Internal([u8; 5]),
    /// Others held on to its entity for too long: nothing is wrong with it.
    Busy,
}

impl Refusal {
    /// The name used as a dead letter's reason.
    #[must_use]
    pub fn reason(self) -> String {
        match self {
            Self::NotFound(_) => "not_found".to_owned(),
            Self::NotOwner(_) | Self::NotAllowed => "forbidden".to_owned(),
            Self::Suspended => "suspended".to_owned(),
            Self::Erased => "erased".to_owned(),
            Self::PreconditionFailed(_) | Self::VersionNotFound(_) => {
                "precondition_failed".to_owned()
            }
            Self::Data(state) => format!("data_{}", String::from_utf8_lossy(&state)),
            Self::Internal(state) => format!("internal_{}", String::from_utf8_lossy(&state)),
            Self::Busy => "busy".to_owned(),
        }
    }

    /// True if trying it again counts against the operation. Being kept waiting does not: only the
    /// data's own fault counts.
    #[must_use]
    pub fn uses_an_attempt(self) -> bool {
        match self {
            Self::Busy => false,
            Self::NotFound(_)
            | Self::VersionNotFound(_)
            | Self::Internal(_)
            | Self::NotOwner(_)
            | Self::NotAllowed
            | Self::Suspended
            | Self::Erased
            | Self::PreconditionFailed(_)
            | Self::Data(_) => true,
        }
    }

    /// True if what it needs may still come from another node: replay waits for that by time.
    #[must_use]
    pub fn waits_for_others(self) -> bool {
        match self {
            Self::NotFound(_) | Self::VersionNotFound(_) => true,
            Self::Internal(_)
            | Self::Busy
            | Self::NotOwner(_)
            | Self::NotAllowed
            | Self::Suspended
            | Self::Erased
            | Self::PreconditionFailed(_)
            | Self::Data(_) => false,
        }
    }

    /// True if replay tries it again before it gives up: time may mend it.
    #[must_use]
    pub fn is_retried(self) -> bool {
        match self {
            Self::NotFound(_) | Self::VersionNotFound(_) | Self::Internal(_) | Self::Busy => true,
            Self::NotOwner(_)
            | Self::NotAllowed
            | Self::Suspended
            | Self::Erased
            | Self::PreconditionFailed(_)
            | Self::Data(_) => false,
        }
    }
}

impl Outcome {
    /// The state the ledger keeps for it; `None` if it is not for the ledger.
    #[must_use]
    pub fn ledger_state(self) -> Option<OperationState> {
        match self {
            Self::Applied => Some(OperationState::Applied),
            Self::Merged => Some(OperationState::Merged),
            Self::Superseded | Self::Gone => Some(OperationState::Superseded),
            Self::Duplicate => Some(OperationState::Duplicate),
            Self::Refused(_) => None,
        }
    }

    /// True if the entity is different afterwards.
    #[must_use]
    pub fn changed(self) -> bool {
        match self {
            Self::Applied | Self::Merged => true,
            Self::Superseded | Self::Gone | Self::Duplicate | Self::Refused(_) => false,
        }
    }
}
