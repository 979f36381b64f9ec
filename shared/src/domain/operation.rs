//! Operations: what was asked for, by whom, of which entity. Immutable once accepted.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    EntityKind, Invalid, Lane, Preferences, Role, Standing, TaskFields, TaskPatch, Version,
    time_as_text,
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
            Change::TaskCreate { task_id, .. }
            | Change::TaskReplace { task_id, .. }
            | Change::TaskPatch { task_id, .. }
            | Change::TaskDelete { task_id, .. } => Lane { kind: EntityKind::Task, id: *task_id },
            Change::ProfilePut { .. } | Change::ProfilePatch { .. } => {
                Lane { kind: EntityKind::Profile, id: self.actor.user_id }
            }
            Change::UserSetStanding { user_id, .. } | Change::UserErase { user_id } => {
                Lane { kind: EntityKind::Profile, id: *user_id }
            }
            Change::SessionRevoke { session_id, .. } => {
                Lane { kind: EntityKind::Session, id: *session_id }
            }
            Change::CacheInvalidate => Lane::CACHE,
        }
    }

    /// True for the create of a task whose id was drawn for it: nothing can be pending for it. (An
    /// id that comes from an idempotency key is a UUIDv5 and may have been used before.)
    #[must_use]
    pub fn opens_its_lane(&self) -> bool {
        matches!(&self.change, Change::TaskCreate { task_id, .. } if task_id.get_version_num() == 7)
    }

    /// True for a create with an idempotency key, which may be a repeated one: other operations may
    /// stand before it, and wait for it.
    #[must_use]
    pub fn is_repeatable_create(&self) -> bool {
        matches!(&self.change, Change::TaskCreate { .. }) && !self.opens_its_lane()
    }

    /// How urgent the operation is, by its kind.
    #[must_use]
    pub fn priority(&self) -> Priority {
        match &self.change {
            Change::UserSetStanding { .. }
            | Change::UserErase { .. }
            | Change::SessionRevoke { .. } => 5,
            Change::TaskDelete { .. } => 4,
            Change::TaskCreate { .. } | Change::TaskReplace { .. } | Change::TaskPatch { .. } => 3,
            Change::ProfilePut { .. } | Change::ProfilePatch { .. } => 2,
            Change::CacheInvalidate => 1,
        }
    }

    /// What kind of change it is.
    #[must_use]
    pub fn action(&self) -> Action {
        match &self.change {
            Change::TaskCreate { .. } => Action::Create,
            Change::TaskReplace { .. } | Change::ProfilePut { .. } => Action::Replace,
            Change::TaskPatch { .. }
            | Change::ProfilePatch { .. }
            | Change::UserSetStanding { .. } => Action::Patch,
            Change::TaskDelete { .. }
            | Change::UserErase { .. }
            | Change::SessionRevoke { .. }
            | Change::CacheInvalidate => Action::Delete,
        }
    }

    /// The version the client asserted with `If-Match`, if any.
    #[must_use]
    pub fn if_match(&self) -> Option<Version> {
        match &self.change {
            Change::TaskReplace { if_match, .. }
            | Change::TaskPatch { if_match, .. }
            | Change::TaskDelete { if_match, .. } => *if_match,
            Change::TaskCreate { .. }
            | Change::ProfilePut { .. }
            | Change::ProfilePatch { .. }
            | Change::UserSetStanding { .. }
            | Change::UserErase { .. }
            | Change::SessionRevoke { .. }
            | Change::CacheInvalidate => None,
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

/// What an operation changes, with its full payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A new task.
    TaskCreate {
        /// Its id, made by the api.
        task_id: Uuid,
        /// Its fields.
        fields: TaskFields,
    },
    /// All fields of a task.
    TaskReplace {
        /// The task.
        task_id: Uuid,
        /// Its fields.
        fields: TaskFields,
        /// Apply only to this version of the task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_match: Option<Version>,
    },
    /// Some fields of a task.
    TaskPatch {
        /// The task.
        task_id: Uuid,
        /// The fields to change.
        patch: TaskPatch,
        /// Apply only to this version of the task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_match: Option<Version>,
    },
    /// The end of a task.
    TaskDelete {
        /// The task.
        task_id: Uuid,
        /// Apply only to this version of the task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_match: Option<Version>,
    },
    /// All writable fields of the actor's own profile.
    ProfilePut {
        /// The preferences.
        preferences: Preferences,
    },
    /// Some writable fields of the actor's own profile (there is one: it is replaced whole).
    ProfilePatch {
        /// The preferences.
        preferences: Preferences,
    },
    /// A user's role, standing, or both. By an admin.
    UserSetStanding {
        /// The user.
        user_id: Uuid,
        /// The role, if it is to change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<Role>,
        /// The standing, if it is to change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        standing: Option<Standing>,
    },
    /// The end of everything that is known of a user. By an admin.
    UserErase {
        /// The user.
        user_id: Uuid,
    },
    /// The end of a session, in Redis.
    SessionRevoke {
        /// The session.
        session_id: Uuid,
    },
    /// The end of all that is cached in Redis: something in it has changed while Redis was away.
    CacheInvalidate,
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
