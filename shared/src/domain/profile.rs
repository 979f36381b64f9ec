//! Profiles: a user's role, standing and preferences. Personal data lives in the identity provider.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{EntityKind, Invalid, Lane, Version};

/// What a user may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Works with their own tasks and profile.
    #[default]
    User,
    /// May also look after the buffer.
    Operator,
    /// May also look after users.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Self::User, Self::Operator, Self::Admin];

    /// The name used in tokens, the API and PostgreSQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Reads the name.
    ///
    /// # Errors
    /// If it is none of the three names.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == name)
            .ok_or(Invalid("must be one of user, operator, admin"))
    }
}

/// Whether a user is welcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The usual standing.
    #[default]
    Active,
    /// Away, but not refused.
    Inactive,
    /// Refused, online and at replay.
    Suspended,
}

impl Standing {
    /// All of them.
    pub const ALL: [Standing; 3] = [Self::Active, Self::Inactive, Self::Suspended];

    /// The name used in the API and PostgreSQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Suspended => "suspended",
        }
    }

    /// Reads the name.
    ///
    /// # Errors
    /// If it is none of the three names.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|standing| standing.as_str() == name)
            .ok_or(Invalid("must be one of active, inactive, suspended"))
    }
}

/// A user's preferences: a JSON object of the client's own making, up to 8 KiB when written
/// compactly, nested up to 32 levels, without NUL (which `jsonb` cannot hold).
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Preferences(Map<String, Value>);

impl Preferences {
    /// The greatest size in bytes, written as compact JSON.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// The deepest nesting, the object itself included: well within what JSON readers take.
    pub const MAX_DEPTH: usize = 32;

    /// Takes an object out of a place that only ever held parsed ones; anything else is empty.
    #[must_use]
    pub fn stored(value: Value) -> Self {
        match value {
            Value::Object(map) => Self(map),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Self::default(),
        }
    }

    /// The object as a JSON value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

impl TryFrom<Map<String, Value>> for Preferences {
    type Error = Invalid;

    fn try_from(map: Map<String, Value>) -> Result<Self, Invalid> {
        let object = Value::Object(map);
        if object.to_string().len() > Self::MAX_BYTES {
            return Err(Invalid("must have at most 8192 bytes as compact JSON"));
        }
        if !is_within_depth(&object, Self::MAX_DEPTH) {
            return Err(Invalid("must be nested at most 32 levels deep"));
        }
        if has_nul(&object) {
            return Err(Invalid("must not contain NUL"));
        }
        match object {
            Value::Object(map) => Ok(Self(map)),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(Invalid("must be an object")),
        }
    }
}

impl From<Preferences> for Map<String, Value> {
    fn from(preferences: Preferences) -> Self {
        preferences.0
    }
}

impl std::fmt::Debug for Preferences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Preferences({} keys)", self.0.len())
    }
}

fn is_within_depth(value: &Value, levels: usize) -> bool {
    let below = |item: &Value| levels > 1 && is_within_depth(item, levels - 1);
    match value {
        Value::Array(items) => items.iter().all(below),
        Value::Object(map) => map.values().all(below),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(key, item)| key.contains('\0') || has_nul(item)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Which write each mutable field of a profile comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileVersions {
    /// The role; [`Version::NONE`] as long as no admin has set it.
    pub role: Version,
    /// The standing.
    pub standing: Version,
    /// The preferences.
    pub preferences: Version,
}

impl ProfileVersions {
    /// Before any write.
    pub const NONE: Self =
        Self { role: Version::NONE, standing: Version::NONE, preferences: Version::NONE };

    /// The newest of them.
    #[must_use]
    pub fn newest(&self) -> Version {
        self.role.max(self.standing).max(self.preferences)
    }
}

/// A user as stored, with the version of each field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The user's id, the `sub` of their tokens.
    pub user_id: Uuid,
    /// The role.
    pub role: Role,
    /// The standing.
    pub standing: Standing,
    /// The preferences.
    pub preferences: Preferences,
    /// Which write each of them comes from.
    pub versions: ProfileVersions,
    /// When the user was erased, if so. Nothing is left of them then but their id, so that what
    /// other nodes still hold of them is refused.
    pub erased_at: Option<DateTime<Utc>>,
    /// When the user was first seen.
    pub created_at: DateTime<Utc>,
    /// When the newest change that took effect was accepted.
    pub updated_at: DateTime<Utc>,
}

impl Profile {
    /// The profile of a user who is seen for the first time at `now`.
    #[must_use]
    pub fn first_seen(user_id: Uuid, now: DateTime<Utc>) -> Self {
        Self {
            user_id,
            role: Role::default(),
            standing: Standing::default(),
            preferences: Preferences::default(),
            versions: ProfileVersions::NONE,
            erased_at: None,
            created_at: now,
            updated_at: now,
        }
    }

    /// Its lane and its version.
    #[must_use]
    pub fn version(&self) -> (Lane, Version) {
        (Lane { kind: EntityKind::Profile, id: self.user_id }, self.versions.newest())
    }

    /// The role that an admin has given, once one has: it counts over the token's.
    #[must_use]
    pub fn given_role(&self) -> Option<Role> {
        (self.versions.role != Version::NONE).then_some(self.role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferences(value: Value) -> Result<Preferences, Invalid> {
        match value {
            Value::Object(map) => Preferences::try_from(map),
            other => panic!("not an object: {other}"),
        }
    }

    #[test]
    fn preferences_at_and_over_their_bounds() {
        assert!(preferences(serde_json::json!({})).is_ok());
        // {"k":"…"} has eight bytes beside the text.
        assert!(preferences(serde_json::json!({"k": "x".repeat(8184)})).is_ok());
        assert!(preferences(serde_json::json!({"k": "x".repeat(8185)})).is_err());
        assert!(preferences(serde_json::json!({"k": [{"deep": "\0"}]})).is_err());
        assert!(preferences(serde_json::json!({"\0": 1})).is_err());
        let nested = |levels: usize| {
            (1..levels).fold(serde_json::json!(1.5), |inner, _| serde_json::json!({ "k": inner }))
        };
        assert!(preferences(nested(Preferences::MAX_DEPTH)).is_ok());
        assert!(preferences(nested(Preferences::MAX_DEPTH + 2)).is_err());
    }
}
