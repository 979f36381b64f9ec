//! What is written, as rows: tasks and profiles with the versions they had before, and the ledger.

use chrono::{DateTime, Utc};
use sea_orm::Value;
use uuid::Uuid;

use super::columns::arrays;
use crate::domain::{
    Operation, OperationState, Profile, ProfileVersions, Task, TaskVersions, Version,
};

arrays! {
    /// Tasks, and the versions that they must still have; none where the task must not be there.
    TaskRows of TaskRow {
        id: Uuid,
        user_id: Uuid,
        title: String,
        described: bool,
        description: String,
        status: String,
        title_version: Uuid,
        description_version: Uuid,
        status_version: Uuid,
        deleted: bool,
        deleted_at: DateTime<Utc>,
        created_at: DateTime<Utc>,
        updated_at: DateTime<Utc>,
        was_title: Uuid,
        was_description: Uuid,
        was_status: Uuid,
    }
}

impl TaskRow {
    /// A task and the versions it had before; `None` if it was not there.
    pub(super) fn of(task: &Task, was: Option<TaskVersions>) -> Self {
        let was = was.unwrap_or(TaskVersions::all(Version::NONE));
        Self {
            id: task.id,
            user_id: task.user_id,
            title: title_of(task),
            described: task.description.is_some(),
            description: description_of(task),
            status: task.status.as_str().to_owned(),
            title_version: task.versions.title.as_uuid(),
            description_version: task.versions.description.as_uuid(),
            status_version: task.versions.status.as_uuid(),
            deleted: task.deleted_at.is_some(),
            deleted_at: task.deleted_at.unwrap_or_default(),
            created_at: task.created_at,
            updated_at: task.updated_at,
            was_title: was.title.as_uuid(),
            was_description: was.description.as_uuid(),
            was_status: was.status.as_uuid(),
        }
    }
}

/// A task's title; empty in a tombstone.
pub(super) fn title_of(task: &Task) -> String {
    task.title.as_ref().map_or_else(String::new, |title| title.as_str().to_owned())
}

/// A task's description; empty where there is none, as arrays hold no null.
pub(super) fn description_of(task: &Task) -> String {
    task.description.as_ref().map_or_else(String::new, |told| told.as_str().to_owned())
}

arrays! {
    /// Profiles, and the versions that they must still have.
    ProfileRows of ProfileRow {
        id: Uuid,
        role: String,
        status: String,
        preferences: String,
        role_version: Uuid,
        status_version: Uuid,
        preferences_version: Uuid,
        erased: bool,
        updated_at: DateTime<Utc>,
        was_role: Uuid,
        was_status: Uuid,
        was_preferences: Uuid,
    }
}

impl ProfileRow {
    /// A profile and the versions it had before.
    pub(super) fn of(profile: &Profile, was: ProfileVersions) -> Self {
        Self {
            id: profile.user_id,
            role: profile.role.as_str().to_owned(),
            status: profile.standing.as_str().to_owned(),
            preferences: profile.preferences.to_value().to_string(),
            role_version: profile.versions.role.as_uuid(),
            status_version: profile.versions.standing.as_uuid(),
            preferences_version: profile.versions.preferences.as_uuid(),
            erased: profile.erased_at.is_some(),
            updated_at: profile.updated_at,
            was_role: was.role.as_uuid(),
            was_status: was.standing.as_uuid(),
            was_preferences: was.preferences.as_uuid(),
        }
    }
}

arrays! {
    /// Ledger rows, in the order of application. `with_row`: only if its entity's row is written.
    LedgerRows of LedgerRow {
        id: Uuid,
        user_id: Uuid,
        entity_id: Uuid,
        action: String,
        outcome: String,
        accepted_at: DateTime<Utc>,
        with_row: bool,
    }
}

impl LedgerRow {
    /// An operation's row.
    pub(super) fn of(operation: &Operation, outcome: OperationState, with_row: bool) -> Self {
        Self {
            id: operation.id.as_uuid(),
            user_id: operation.actor.user_id,
            entity_id: operation.lane().id,
            action: operation.action().as_str().to_owned(),
            outcome: outcome.as_str().to_owned(),
            accepted_at: operation.accepted_at,
            with_row,
        }
    }
}

impl LedgerRows {
    pub(super) fn is_empty(&self) -> bool {
        self.id.is_empty()
    }

    /// The values, with the node's name last.
    pub(super) fn values_of(self, node: &str) -> Vec<Value> {
        self.values_with(vec![node.into()])
    }
}

arrays! {
    /// Operations whose entities are read before they are folded.
    AskedRows of AskedRow {
        id: Uuid,
        user_id: Uuid,
        entity_id: Uuid,
    }
}

impl AskedRow {
    /// An operation.
    pub(super) fn of(operation: &Operation) -> Self {
        Self {
            id: operation.id.as_uuid(),
            user_id: operation.actor.user_id,
            entity_id: operation.lane().id,
        }
    }
}
