//! The words that answers use for states, kinds and roles, each a closed set in the OpenAPI document.
//!
//! The domain has the same sets and knows no OpenAPI. The compiler holds the copies here to them.

use poem_openapi::Enum;
use poem_openapi::types::ParseFromParameter;
use serde::Serialize;
use shared::domain;

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case", remote = "domain::TaskStatus")]
pub enum TaskStatus {
    /// Not begun.
    Pending,
    /// Being worked on.
    InProgress,
    /// Done.
    Completed,
    /// Given up.
    Cancelled,
}

/// What a user may do: `user` works with their own tasks and profile, `operator` also manages the buffer,
/// `admin` also manages users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case", remote = "domain::Role")]
pub enum Role {
    /// Works with their own tasks and profile.
    User,
    /// Also sees and manages the buffer.
    Operator,
    /// Also manages users.
    Admin,
}

/// Whether a user is let in: `active` and `inactive` users are, `suspended` ones are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case", remote = "domain::Standing")]
pub enum UserStatus {
    /// Let in.
    Active,
    /// Let in, and marked as not active.
    Inactive,
    /// Not let in.
    Suspended,
}

/// What became of an operation: `pending` waits in the buffer for replay; `applied` took effect; `merged`
/// took effect but for fields that newer writes had set; `superseded` came after newer writes or a delete;
/// `duplicate` repeated a create; `rejected` and `expired` are dead letters, refused or too old;
/// `discarded` was dropped by an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case", remote = "domain::OperationState")]
pub enum OperationState {
    /// In the buffer, waiting for replay.
    Pending,
    /// Took effect as asked.
    Applied,
    /// Took effect, but for fields that newer writes had set.
    Merged,
    /// Took no effect: newer writes or a delete had come first.
    Superseded,
    /// A repeated create: the task was there.
    Duplicate,
    /// A dead letter: replay gave it up.
    Rejected,
    /// A dead letter: it grew too old.
    Expired,
    /// Dropped by an operator.
    Discarded,
}

/// What an operation changes: a task, a user's profile, a session, or the cache. `unknown` if the
/// operation's record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename = "Entity", rename_all = "snake_case")]
pub enum EntityName {
    /// A task.
    Task,
    /// A user's profile.
    Profile,
    /// A session.
    Session,
    /// The cache in Redis.
    Cache,
    /// The record that says it cannot be read.
    Unknown,
}

impl EntityName {
    /// Reads what the ledger or the audit log has.
    #[must_use]
    pub fn read(name: &str) -> Self {
        Self::parse_from_parameter(name).unwrap_or(Self::Unknown)
    }
}

impl From<domain::EntityKind> for EntityName {
    fn from(kind: domain::EntityKind) -> Self {
        match kind {
            domain::EntityKind::Task => Self::Task,
            domain::EntityKind::Profile => Self::Profile,
            domain::EntityKind::Session => Self::Session,
            domain::EntityKind::Cache => Self::Cache,
        }
    }
}

/// What an operation does to its entity: make it, set all its fields or some, or end it. `unknown` if the
/// operation's record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename = "Action", rename_all = "snake_case")]
pub enum ActionName {
    /// Makes it.
    Create,
    /// Sets all its fields.
    Replace,
    /// Sets some of its fields.
    Patch,
    /// Ends it.
    Delete,
    /// The record that says it cannot be read.
    Unknown,
}

impl ActionName {
    /// Reads what the ledger or the audit log has.
    #[must_use]
    pub fn read(name: &str) -> Self {
        Self::parse_from_parameter(name).unwrap_or(Self::Unknown)
    }
}

impl From<domain::Action> for ActionName {
    fn from(action: domain::Action) -> Self {
        match action {
            domain::Action::Create => Self::Create,
            domain::Action::Replace => Self::Replace,
            domain::Action::Patch => Self::Patch,
            domain::Action::Delete => Self::Delete,
        }
    }
}

/// Where the data of an answer comes from: the `database`, the `cache` in Redis, or an `overlay` of changes
/// that wait in the buffer, laid over the other two if they could be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum Source {
    /// PostgreSQL alone.
    Database,
    /// What Redis keeps of PostgreSQL.
    Cache,
    /// Pending operations, laid over PostgreSQL or the cache if they could be asked.
    Overlay,
}

impl Source {
    /// The value of the header `X-Data-Source`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Cache => "cache",
            Self::Overlay => "overlay",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::to_value;

    use super::*;

    #[test]
    fn words_are_those_of_the_domain() {
        for status in domain::TaskStatus::ALL {
            assert_eq!(to_value(TaskStatus::from(status)).unwrap(), status.as_str());
        }
        for role in domain::Role::ALL {
            assert_eq!(to_value(Role::from(role)).unwrap(), role.as_str());
        }
        for standing in domain::Standing::ALL {
            assert_eq!(to_value(UserStatus::from(standing)).unwrap(), standing.as_str());
        }
        for state in domain::OperationState::ALL {
            assert_eq!(to_value(OperationState::from(state)).unwrap(), state.as_str());
        }
        for action in domain::Action::ALL {
            assert_eq!(to_value(ActionName::from(action)).unwrap(), action.as_str());
            assert_eq!(ActionName::read(action.as_str()), action.into());
        }
        for kind in domain::EntityKind::ALL.iter().copied() {
            assert_eq!(to_value(EntityName::from(kind)).unwrap(), kind.as_str());
            assert_eq!(EntityName::read(kind.as_str()), kind.into());
        }
    }
}
