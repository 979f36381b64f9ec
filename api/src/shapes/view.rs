//! How tasks and profiles look to clients. What this node cannot know while PostgreSQL is away is
//! null.

use chrono::{DateTime, Utc};
use poem_openapi::Object;
use serde::Serialize;
use shared::domain::{Base, Operation, Profile, Seen, Task, TaskPart, see_task};
use uuid::Uuid;

use super::schema::{JsonObject, Nullable, nullable_time};
use super::words::{Role, TaskStatus, UserStatus};

/// A task. With PostgreSQL away, what this host does not know of it is null.
#[derive(Clone, Debug, Serialize, Object)]
pub struct TaskView {
    /// The task's id.
    pub id: Uuid,
    /// The title.
    pub title: Nullable<String>,
    /// The description. Null if there is none.
    pub description: Nullable<String>,
    /// How far the task is.
    pub status: Nullable<TaskStatus>,
    /// The task's version. Its `ETag` is the same in quotes.
    pub version: Uuid,
    /// When the task was created.
    #[serde(serialize_with = "nullable_time")]
    pub created_at: Nullable<DateTime<Utc>>,
    /// When the task was last changed.
    #[serde(serialize_with = "nullable_time")]
    pub updated_at: Nullable<DateTime<Utc>>,
}

impl TaskView {
    /// A task of which all is known.
    #[must_use]
    pub fn of(task: Task) -> Self {
        Self {
            id: task.id,
            title: task.title.map(String::from).into(),
            description: task.description.map(String::from).into(),
            status: Some(TaskStatus::from(task.status)).into(),
            version: task.versions.newest().as_uuid(),
            created_at: Some(task.created_at).into(),
            updated_at: Some(task.updated_at).into(),
        }
    }

    /// A task of which just what pending operations set is known.
    #[must_use]
    pub fn part(part: TaskPart) -> Self {
        Self {
            version: part.version().as_uuid(),
            id: part.id,
            title: part.title.map(String::from).into(),
            description: part.description.flatten().map(String::from).into(),
            status: part.status.map(TaskStatus::from).into(),
            created_at: part.created_at.into(),
            updated_at: Some(part.updated_at).into(),
        }
    }
}

impl TaskView {
    /// A task of which just what an operation sets is known.
    #[must_use]
    pub fn asked(operation: &Operation) -> Self {
        let viewer = operation.actor.user_id;
        match see_task(Base::Unknown, std::slice::from_ref(operation), viewer) {
            Seen::Whole(task) => Self::of(task),
            Seen::Part(part) => Self::part(part),
            Seen::Absent | Seen::Unknown => Self {
                id: operation.lane().id,
                title: None.into(),
                description: None.into(),
                status: None.into(),
                version: operation.id.as_uuid(),
                created_at: None.into(),
                updated_at: None.into(),
            },
        }
    }
}

/// A user's profile. With PostgreSQL away, what this host does not know of it is null.
#[derive(Clone, Debug, Serialize, Object)]
pub struct ProfileView {
    /// The user's id.
    pub user_id: Uuid,
    /// What the user may do.
    pub role: Nullable<Role>,
    /// Whether the user is let in.
    pub status: Nullable<UserStatus>,
    /// The user's preferences.
    pub preferences: Nullable<JsonObject>,
    /// When the user sent the first request.
    #[serde(serialize_with = "nullable_time")]
    pub created_at: Nullable<DateTime<Utc>>,
    /// When the profile was last changed.
    #[serde(serialize_with = "nullable_time")]
    pub updated_at: Nullable<DateTime<Utc>>,
}

impl ProfileView {
    /// A profile of which all is known.
    #[must_use]
    pub fn of(profile: &Profile) -> Self {
        Self {
            user_id: profile.user_id,
            role: Some(Role::from(profile.role)).into(),
            status: Some(UserStatus::from(profile.standing)).into(),
            preferences: Some(JsonObject(profile.preferences.clone().into())).into(),
            created_at: Some(profile.created_at).into(),
            updated_at: Some(profile.updated_at).into(),
        }
    }

    /// A profile of which just what an operation sets is known.
    #[must_use]
    pub fn asked(operation: &Operation) -> Self {
        let preferences = operation.change.preferences();
        let preferences = preferences.map(|set| JsonObject(set.clone().into()));
        Self {
            user_id: operation.actor.user_id,
            role: None.into(),
            status: None.into(),
            preferences: preferences.into(),
            created_at: None.into(),
            updated_at: Some(operation.accepted_at).into(),
        }
    }
}
