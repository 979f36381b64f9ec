//! Tasks: the fields a client writes, and the stored task with the version of each field.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Action, Description, Invalid, Priority, Title, Version};

/// Where a task stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Not begun; what a task is created with when it names no status.
    #[default]
    Pending,
    /// Being worked on.
    InProgress,
    /// Done.
    Completed,
    /// Given up.
    Cancelled,
}

impl TaskStatus {
    /// All of them, in the order of a task's usual life.
    pub const ALL: [TaskStatus; 4] =
        [Self::Pending, Self::InProgress, Self::Completed, Self::Cancelled];

    /// The name used in the API and in PostgreSQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the name.
    ///
    /// # Errors
    /// If it is none of the four names.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == name)
            .ok_or(Invalid("must be one of pending, in_progress, completed, cancelled"))
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All fields of a task, as a create or a replace names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFields {
    /// The title.
    pub title: Title,
    /// The description, if there is one.
    pub description: Option<Description>,
    /// The status.
    pub status: TaskStatus,
}

/// Some fields of a task: `None` leaves the field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPatch {
    /// The new title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<Title>,
    /// The new description; `Some(None)` clears it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub description: Option<Option<Description>>,
    /// The new status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
}

/// Keeps `"description": null` (clear it) apart from a missing key (leave it), which serde's
/// `Option<Option<_>>` does not.
fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<Description>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl TaskPatch {
    /// True if the patch names no field at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.title.is_none() && self.description.is_none() && self.status.is_none()
    }
}

impl From<TaskFields> for TaskPatch {
    fn from(fields: TaskFields) -> Self {
        Self {
            title: Some(fields.title),
            description: Some(fields.description),
            status: Some(fields.status),
        }
    }
}

/// A change of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskChange {
    /// A new task.
    #[serde(rename = "task_create")]
    Create {
        /// Its id, made by the api.
        task_id: Uuid,
        /// Its fields.
        fields: TaskFields,
    },
    /// All fields of a task.
    #[serde(rename = "task_replace")]
    Replace {
        /// The task.
        task_id: Uuid,
        /// Its fields.
        fields: TaskFields,
        /// Apply only to this version of the task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_match: Option<Version>,
    },
    /// Some fields of a task.
    #[serde(rename = "task_patch")]
    Patch {
        /// The task.
        task_id: Uuid,
        /// The fields to change.
        patch: TaskPatch,
        /// Apply only to this version of the task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_match: Option<Version>,
    },
    /// The end of a task.
    #[serde(rename = "task_delete")]
    Delete {
        /// The task.
        task_id: Uuid,
        /// Apply only to this version of the task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        if_match: Option<Version>,
    },
}

impl TaskChange {
    /// The task.
    #[must_use]
    pub fn task_id(&self) -> Uuid {
        match self {
            Self::Create { task_id, .. }
            | Self::Replace { task_id, .. }
            | Self::Patch { task_id, .. }
            | Self::Delete { task_id, .. } => *task_id,
        }
    }

    /// The task that it makes, if it is a create.
    #[must_use]
    pub fn creates(&self) -> Option<Uuid> {
        match self {
            Self::Create { task_id, .. } => Some(*task_id),
            Self::Replace { .. } | Self::Patch { .. } | Self::Delete { .. } => None,
        }
    }

    pub(super) fn priority(&self) -> Priority {
        match self {
            Self::Delete { .. } => 4,
            Self::Create { .. } | Self::Replace { .. } | Self::Patch { .. } => 3,
        }
    }

    pub(super) fn action(&self) -> Action {
        match self {
            Self::Create { .. } => Action::Create,
            Self::Replace { .. } => Action::Replace,
            Self::Patch { .. } => Action::Patch,
            Self::Delete { .. } => Action::Delete,
        }
    }

    pub(super) fn if_match(&self) -> Option<Version> {
        match self {
            Self::Create { .. } => None,
            Self::Replace { if_match, .. }
            | Self::Patch { if_match, .. }
            | Self::Delete { if_match, .. } => *if_match,
        }
    }
}

/// Which write each field of a task comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskVersions {
    /// Of the title.
    pub title: Version,
    /// Of the description.
    pub description: Version,
    /// Of the status.
    pub status: Version,
}

impl TaskVersions {
    /// All fields set by one write.
    #[must_use]
    pub const fn all(version: Version) -> Self {
        Self { title: version, description: version, status: version }
    }

    /// The version of the task as a whole, which its ETag shows: the newest of its fields'.
    #[must_use]
    pub fn newest(&self) -> Version {
        self.title.max(self.description).max(self.status)
    }
}

/// A task as it is stored. A deleted one is a tombstone: it keeps its ids and versions and no content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The task's id.
    pub id: Uuid,
    /// Its owner.
    pub user_id: Uuid,
    /// The title; `None` only in a tombstone.
    pub title: Option<Title>,
    /// The description, if there is one.
    pub description: Option<Description>,
    /// The status.
    pub status: TaskStatus,
    /// Which write each field comes from.
    pub versions: TaskVersions,
    /// When it was deleted, if it was.
    pub deleted_at: Option<DateTime<Utc>>,
    /// When its create was accepted.
    pub created_at: DateTime<Utc>,
    /// When the newest change that took effect was accepted.
    pub updated_at: DateTime<Utc>,
}
