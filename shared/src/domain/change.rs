//! What can be asked for, in families: one for each thing that can be changed.
//!
//! A record holds a change as JSON with one tag: `{"task_delete": {..}}`. The part of the tag before the
//! first underscore names the family. Records do not nest families, so grouping changes in another way
//! leaves their bytes as they are.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::EnumAccessDeserializer;
use serde::de::{DeserializeSeed, EnumAccess, Error, IntoDeserializer, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use super::{Action, EntityKind, Lane, Preferences, Priority, Role, Standing, TaskChange, Version};

/// Makes [`Change`], and what reads it: a family that is written can be read.
macro_rules! families {
    ($($(#[$doc:meta])* $family:ident($change:ident) = $tag:literal,)+) => {
        /// What an operation changes, with its full payload.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        pub enum Change {
            $($(#[$doc])* $family($change),)+
        }

        /// The parts of tags that name a family.
        const FAMILIES: &[&str] = &[$($tag),+];

        /// Reads the change of a family, whose tag has been read.
        fn of_tag<'de, V: VariantAccess<'de>>(tag: Cow<'de, str>, content: V) -> Result<Change, V::Error> {
            match tag.split_once('_').map_or("", |(family, _)| family) {
                $($tag => of_family(tag, content).map(Change::$family),)+
                _ => Err(V::Error::unknown_variant(&tag, FAMILIES)),
            }
        }
    };
}

families! {
    /// A task.
    Task(TaskChange) = "task",
    /// The actor's own profile.
    Profile(ProfileChange) = "profile",
    /// A user, by an admin. It changes the user's profile, on its lane.
    User(UserChange) = "user",
    /// A session, in Redis.
    Session(SessionChange) = "session",
    /// All that is cached in Redis.
    Cache(CacheChange) = "cache",
}

/// A change on the lane of a profile.
pub(super) enum OnProfile<'a> {
    /// By the user.
    Own(&'a ProfileChange),
    /// By an admin.
    ByAdmin(&'a UserChange),
}

impl Change {
    /// The lane of what is changed, if `user_id` asks for it.
    pub(super) fn lane(&self, user_id: Uuid) -> Lane {
        match self {
            Self::Task(change) => Lane { kind: EntityKind::Task, id: change.task_id() },
            Self::Profile(_) => Lane { kind: EntityKind::Profile, id: user_id },
            Self::User(change) => Lane { kind: EntityKind::Profile, id: change.user_id() },
            Self::Session(SessionChange::Revoke { session_id }) => {
                Lane { kind: EntityKind::Session, id: *session_id }
            }
            Self::Cache(CacheChange::Invalidate) => Lane::CACHE,
        }
    }

    /// The change of a task, if it is one.
    pub(super) fn on_task(&self) -> Option<&TaskChange> {
        match self {
            Self::Task(change) => Some(change),
            Self::Profile(_) | Self::User(_) | Self::Session(_) | Self::Cache(_) => None,
        }
    }

    /// The change on the lane of a profile, if it is one.
    pub(super) fn on_profile(&self) -> Option<OnProfile<'_>> {
        match self {
            Self::Profile(change) => Some(OnProfile::Own(change)),
            Self::User(change) => Some(OnProfile::ByAdmin(change)),
            Self::Task(_) | Self::Session(_) | Self::Cache(_) => None,
        }
    }

    /// The preferences that it sets, if it sets any.
    #[must_use]
    pub fn preferences(&self) -> Option<&Preferences> {
        match self {
            Self::Profile(change) => Some(change.preferences()),
            Self::Task(_) | Self::User(_) | Self::Session(_) | Self::Cache(_) => None,
        }
    }

    /// The id of the entity that it makes, if it is a create.
    #[must_use]
    pub fn creates(&self) -> Option<Uuid> {
        match self {
            Self::Task(change) => change.creates(),
            Self::Profile(_) | Self::User(_) | Self::Session(_) | Self::Cache(_) => None,
        }
    }

    pub(super) fn priority(&self) -> Priority {
        match self {
            Self::User(_) | Self::Session(_) => 5,
            Self::Task(change) => change.priority(),
            Self::Profile(_) => 2,
            Self::Cache(_) => 1,
        }
    }

    pub(super) fn action(&self) -> Action {
        match self {
            Self::Task(change) => change.action(),
            Self::Profile(change) => change.action(),
            Self::User(change) => change.action(),
            Self::Session(SessionChange::Revoke { .. }) | Self::Cache(CacheChange::Invalidate) => {
                Action::Delete
            }
        }
    }

    /// The version that it asserts, if any.
    pub(super) fn if_match(&self) -> Option<Version> {
        match self {
            Self::Task(change) => change.if_match(),
            Self::Profile(_) | Self::User(_) | Self::Session(_) | Self::Cache(_) => None,
        }
    }
}

/// A change of the actor's own profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProfileChange {
    /// All writable fields.
    #[serde(rename = "profile_put")]
    Put {
        /// The preferences.
        preferences: Preferences,
    },
    /// Some writable fields (there is one: it is replaced whole).
    #[serde(rename = "profile_patch")]
    Patch {
        /// The preferences.
        preferences: Preferences,
    },
}

impl ProfileChange {
    /// The preferences that it sets.
    #[must_use]
    pub fn preferences(&self) -> &Preferences {
        match self {
            Self::Put { preferences } | Self::Patch { preferences } => preferences,
        }
    }

    pub(super) fn action(&self) -> Action {
        match self {
            Self::Put { .. } => Action::Replace,
            Self::Patch { .. } => Action::Patch,
        }
    }
}

/// A change of a user by an admin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserChange {
    /// The role, the standing, or both.
    #[serde(rename = "user_set_standing")]
    SetStanding {
        /// The user.
        user_id: Uuid,
        /// The role, if it is to change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<Role>,
        /// The standing, if it is to change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        standing: Option<Standing>,
    },
    /// The end of everything that is known of the user.
    #[serde(rename = "user_erase")]
    Erase {
        /// The user.
        user_id: Uuid,
    },
}

impl UserChange {
    /// The user.
    #[must_use]
    pub fn user_id(&self) -> Uuid {
        match self {
            Self::SetStanding { user_id, .. } | Self::Erase { user_id } => *user_id,
        }
    }

    pub(super) fn action(&self) -> Action {
        match self {
            Self::SetStanding { .. } => Action::Patch,
            Self::Erase { .. } => Action::Delete,
        }
    }
}

/// A change of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionChange {
    /// Its end.
    #[serde(rename = "session_revoke")]
    Revoke {
        /// The session.
        session_id: Uuid,
    },
}

/// A change of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheChange {
    /// The end of all that is in it: something has changed while Redis was away.
    #[serde(rename = "cache_invalidate")]
    Invalidate,
}

impl<'de> Deserialize<'de> for Change {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum("Change", FAMILIES, ByTag)
    }
}

/// Reads the tag, and has the family that it names read what it holds: nothing is read twice, and errors
/// tell what is wrong with that family's change.
struct ByTag;

impl<'de> Visitor<'de> for ByTag {
    type Value = Change;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a change")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Change, A::Error> {
        let (Tag(tag), content) = access.variant()?;
        of_tag(tag, content)
    }
}

/// A tag, borrowed from the record where that is possible.
#[derive(Deserialize)]
#[serde(transparent)]
struct Tag<'a>(#[serde(borrow)] Cow<'a, str>);

fn of_family<'de, C, V>(tag: Cow<'de, str>, content: V) -> Result<C, V::Error>
where
    C: Deserialize<'de>,
    V: VariantAccess<'de>,
{
    C::deserialize(EnumAccessDeserializer::new(Tagged { tag, content }))
}

/// A change whose tag has been read.
struct Tagged<'a, V> {
    tag: Cow<'a, str>,
    content: V,
}

impl<'de, V: VariantAccess<'de>> EnumAccess<'de> for Tagged<'de, V> {
    type Error = V::Error;
    type Variant = V;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, V), V::Error> {
        Ok((seed.deserialize(self.tag.into_deserializer())?, self.content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Change, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn every_family_is_written_under_one_tag_and_read_back() {
        let user_id = Uuid::from_u128(1);
        let changes = [
            (
                Change::Task(TaskChange::Delete { task_id: user_id, if_match: None }),
                r#"{"task_delete":{"task_id":"00000000-0000-0000-0000-000000000001"}}"#,
            ),
            (
                Change::Profile(ProfileChange::Put { preferences: Preferences::default() }),
                r#"{"profile_put":{"preferences":{}}}"#,
            ),
            (
                Change::User(UserChange::Erase { user_id }),
                r#"{"user_erase":{"user_id":"00000000-0000-0000-0000-000000000001"}}"#,
            ),
            (
                Change::Session(SessionChange::Revoke { session_id: user_id }),
                r#"{"session_revoke":{"session_id":"00000000-0000-0000-0000-000000000001"}}"#,
            ),
            (Change::Cache(CacheChange::Invalidate), r#""cache_invalidate""#),
        ];
        for (change, json) in changes {
            assert_eq!(serde_json::to_string(&change).unwrap(), json);
            assert_eq!(read(json).unwrap(), change);
            let value = serde_json::to_value(&change).unwrap();
            assert_eq!(serde_json::from_value::<Change>(value).unwrap(), change);
        }
    }

    #[test]
    fn what_is_no_change_is_named() {
        let unknown = read(r#"{"task_fold": {}}"#).unwrap_err();
        assert!(unknown.starts_with("unknown variant `task_fold`, expected one of `task_create`"));
        let unknown = read(r#"{"house_build": {}}"#).unwrap_err();
        assert!(unknown.starts_with("unknown variant `house_build`"), "{unknown}");
        let missing = read(r#"{"task_delete": {"if_match": null}}"#).unwrap_err();
        assert!(missing.starts_with("missing field `task_id`"), "{missing}");
        assert!(read("null").is_err() && read(r#""cache""#).is_err());
    }
}
