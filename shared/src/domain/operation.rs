//! Operations: what was asked for, by whom, of which entity. Immutable once accepted.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    CacheChange, Change, EntityKind, Invalid, Lane, Role, SessionChange, Version, time_as_text,
};

/// One accepted write: the unit of the buffer, of replay and of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The operation's id, which is also the version of what it sets.
    pub id: Version,
    /// Who asked for it.
    pub actor: Actor,
    /// What was asked for.
    pub change: Change,
    /// When it was accepted, by this host's wall clock.
    #[serde(serialize_with = "time_as_text")]
    pub accepted_at: DateTime<Utc>,
    /// The request that carried it.
    pub request_id: Uuid,
    /// The W3C trace context of that request, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl Operation {
    /// The lane in which the operation keeps its place.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match &self.change {
            Change::Task(change) => Lane { kind: EntityKind::Task, id: change.task_id() },
            Change::Profile(_) => Lane { kind: EntityKind::Profile, id: self.actor.user_id },
            Change::User(change) => Lane { kind: EntityKind::Profile, id: change.user_id() },
            Change::Session(SessionChange::Revoke { session_id }) => {
                Lane { kind: EntityKind::Session, id: *session_id }
            }
            Change::Cache(CacheChange::Invalidate) => Lane::CACHE,
        }
    }

    /// The id of the entity that the operation makes, if it is a create.
    #[must_use]
    pub fn creates(&self) -> Option<Uuid> {
        match &self.change {
            Change::Task(change) => change.creates(),
            Change::Profile(_) | Change::User(_) | Change::Session(_) | Change::Cache(_) => None,
        }
    }

    /// True for a create of an entity whose id was drawn for it: nothing can be pending for it. (An
    /// id that comes from an idempotency key is a UUIDv5 and may have been used before.)
    #[must_use]
    pub fn opens_its_lane(&self) -> bool {
        self.creates().is_some_and(|id| id.get_version_num() == 7)
    }

    /// True for a create with an idempotency key, which may be a repeated one: other operations may
    /// stand before it, and wait for it.
    #[must_use]
    pub fn is_repeatable_create(&self) -> bool {
        self.creates().is_some() && !self.opens_its_lane()
    }

    /// How urgent the operation is, by its kind.
    #[must_use]
    pub fn priority(&self) -> Priority {
        match &self.change {
            Change::User(_) | Change::Session(_) => 5,
            Change::Task(change) => change.priority(),
            Change::Profile(_) => 2,
            Change::Cache(_) => 1,
        }
    }

    /// What kind of change it is.
    #[must_use]
    pub fn action(&self) -> Action {
        match &self.change {
            Change::Task(change) => change.action(),
            Change::Profile(change) => change.action(),
            Change::User(change) => change.action(),
            Change::Session(SessionChange::Revoke { .. })
            | Change::Cache(CacheChange::Invalidate) => Action::Delete,
        }
    }

    /// The version the client asserted with `If-Match`, if any.
    #[must_use]
    pub fn if_match(&self) -> Option<Version> {
        match &self.change {
            Change::Task(change) => change.if_match(),
            Change::Profile(_) | Change::User(_) | Change::Session(_) | Change::Cache(_) => None,
        }
    }
}

/// Who asked for an operation, as their token said at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The user.
    pub user_id: Uuid,
    /// The role in the token.
    pub role: Role,
    /// The session, if the token belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Uuid>,
}

/// From 1 (low) to 5 (high).
pub type Priority = u8;

/// The highest priority there is.
pub const MAX_PRIORITY: Priority = 5;

/// What was done to an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It was made.
    Create,
    /// All its fields were set.
    Replace,
    /// Some of its fields were set.
    Patch,
    /// It was ended.
    Delete,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 4] = [Self::Create, Self::Replace, Self::Patch, Self::Delete];

    /// Reads the name.
    ///
    /// # Errors
    /// If it is none of the four names.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str() == name)
            .ok_or(Invalid("must be one of create, replace, patch, delete"))
    }

    /// The name used in the API and in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// What became of an accepted operation. It is exactly one of these at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// In the buffer, waiting for replay.
    Pending,
    /// Took effect as asked.
    Applied,
    /// Some of its fields took effect; newer writes had set the others.
    Merged,
    /// Nothing of it took effect: newer writes, or a delete, had come first.
    Superseded,
    /// A repeated create: the task was there.
    Duplicate,
    /// Set aside among the dead letters.
    Rejected,
    /// Set aside among the dead letters because it grew too old.
    Expired,
    /// Dropped by an operator.
    Discarded,
}

impl OperationState {
    /// All of them.
    pub const ALL: [OperationState; 8] = [
        Self::Pending,
        Self::Applied,
        Self::Merged,
        Self::Superseded,
        Self::Duplicate,
        Self::Rejected,
        Self::Expired,
        Self::Discarded,
    ];

    /// The name used in the API and in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Applied => "applied",
            Self::Merged => "merged",
            Self::Superseded => "superseded",
            Self::Duplicate => "duplicate",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Discarded => "discarded",
        }
    }

    /// Reads the name; `None` if it is none of them.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}
