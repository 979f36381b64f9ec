//! How users look in answers to admins.

use chrono::{DateTime, Utc};
use poem_openapi::{ApiResponse, Object};
use serde::Serialize;
use shared::domain::{Change, Operation, Profile, ProfileVersions, UserChange, Version};
use uuid::Uuid;

use super::envelope::{Meta, PartMeta, WriteMeta};
use super::ready::Ready;
use crate::shapes::{self, Nullable, UserStatus};

/// A user.
#[derive(Clone, Debug, Serialize, Object)]
pub struct UserView {
    /// The user's id, the `sub` of their tokens.
    id: Uuid,
    /// What the user may do: the role that an admin has set, else `user`. Null if this host does not know.
    role: Nullable<shapes::Role>,
    /// Whether the user is let in. Null if this host does not know.
    status: Nullable<UserStatus>,
    /// When the user sent the first request. Null if this host does not know.
    created_at: Nullable<DateTime<Utc>>,
    /// When the newest change was accepted. Null if this host does not know.
    updated_at: Nullable<DateTime<Utc>>,
}

impl UserView {
    pub(super) fn of(profile: &Profile) -> Self {
        Self {
            id: profile.user_id,
            role: Some(profile.role.into()).into(),
            status: Some(profile.standing.into()).into(),
            created_at: Some(profile.created_at).into(),
            updated_at: Some(profile.updated_at).into(),
        }
    }

    /// A user of whom just what pending operations have set is known.
    pub(super) fn as_set(profile: &Profile) -> Self {
        let ProfileVersions { role, standing, .. } = profile.versions;
        let set = |version: Version| version != Version::NONE;
        Self {
            role: set(role).then(|| profile.role.into()).into(),
            status: set(standing).then(|| profile.standing.into()).into(),
            created_at: None.into(),
            ..Self::of(profile)
        }
    }

    /// A user of whom just what an operation sets is known.
    pub(super) fn asked(user_id: Uuid, operation: &Operation) -> Self {
        let (role, standing) = match &operation.change {
            Change::User(UserChange::SetStanding { role, standing, .. }) => (*role, *standing),
            Change::User(UserChange::Erase { .. })
            | Change::Task(_)
            | Change::Profile(_)
            | Change::Session(_)
            | Change::Cache(_) => (None, None),
        };
        Self {
            id: user_id,
            role: role.map(shapes::Role::from).into(),
            status: standing.map(UserStatus::from).into(),
            created_at: None.into(),
            updated_at: Some(operation.accepted_at).into(),
        }
    }
}

/// A user, as it was read.
#[derive(Serialize, Object)]
pub struct UserRead {
    /// The user.
    pub(super) data: UserView,
    /// About the answer.
    pub(super) meta: Meta,
}

/// A user after a write.
#[derive(Serialize, Object)]
pub struct UserWritten {
    /// The user.
    pub(super) data: UserView,
    /// About the answer.
    pub(super) meta: WriteMeta,
}

/// A part of the list of users.
#[derive(Serialize, Object)]
pub struct UserList {
    /// The users, in the order of their ids.
    pub(super) data: Vec<UserView>,
    /// About the part.
    pub(super) meta: PartMeta,
}

/// The id of a user who is being erased.
#[derive(Serialize, Object)]
pub struct ErasedUser {
    /// The user's id.
    pub(super) id: Uuid,
}

/// A user who is being erased.
#[derive(Serialize, Object)]
pub struct UserErasing {
    /// The user who is being erased.
    pub(super) data: ErasedUser,
    /// About the answer.
    pub(super) meta: WriteMeta,
}

/// What an erasure is answered with.
#[derive(ApiResponse)]
pub enum Erased {
    /// Nothing is left of the user in PostgreSQL and on this host.
    #[oai(status = 204)]
    Everywhere,
    /// The buffer of this host holds the erasure, and replay carries it out in PostgreSQL. What else this host holds of the user is removed now, or with it.
    #[oai(status = 202)]
    Here(Ready<UserErasing>, #[oai(header = "Location")] String),
}
