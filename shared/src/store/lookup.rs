//! Reading tasks, profiles and the ledger back.

use std::collections::HashMap;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use sea_orm::QueryResult;
use uuid::Uuid;

use super::columns::{PROFILE_COLUMNS, TASK_COLUMNS};
use super::{Store, StoreError, column};
use crate::domain::{
    Description, OperationState, Preferences, Profile, ProfileVersions, Role, Standing, Task,
    TaskStatus, TaskVersions, Title, Version,
};

static TASK: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {} FROM tasks WHERE id = $1", TASK_COLUMNS.join(", ")));

static TASKS: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {} FROM tasks WHERE id = ANY($1)", TASK_COLUMNS.join(", ")));

static PROFILE: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {} FROM users WHERE id = $1", PROFILE_COLUMNS.join(", ")));

static PROFILES: LazyLock<String> = LazyLock::new(|| {
    let columns = PROFILE_COLUMNS.join(", ");
    format!(
        r"
SELECT {columns} FROM users
WHERE erased_at IS NULL AND id > $1 AND ($2 = '' OR role = $2) AND ($3 = '' OR status = $3)
ORDER BY id
LIMIT $4"
    )
});

const LEDGER: &str = r"
SELECT user_id, entity, entity_id, action, outcome, reason, accepted_at, applied_at
FROM operations WHERE id = $1";

/// What the ledger keeps of an operation.
#[derive(Clone, Debug)]
pub struct LedgerEntry {
    /// Who asked for it.
    pub user_id: Uuid,
    /// `task`, `profile`, `session` or `cache`.
    pub entity: String,
    /// Of which entity.
    pub entity_id: Uuid,
    /// What was done to it.
    pub action: String,
    /// What became of it.
    pub state: OperationState,
    /// Why, if it did not take effect.
    pub reason: Option<String>,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// When it was settled.
    pub applied_at: DateTime<Utc>,
}

impl Store {
    /// A task, tombstones and other users' included.
    ///
    /// # Errors
    /// If PostgreSQL does not answer in time, or answers with an error.
    pub async fn task(&self, id: Uuid) -> Result<Option<Task>, StoreError> {
        let rows = self.read(TASK.as_str(), vec![id.into()]).await?;
        rows.first().map(task_of).transpose()
    }

    /// Those of these tasks that are there, tombstones and other users' included, by id. A row that
    /// this program does not understand is an error of its own, and no other's.
    ///
    /// # Errors
    /// If PostgreSQL does not answer in time, or answers with an error.
    pub async fn tasks(
        &self,
        ids: Vec<Uuid>,
    ) -> Result<HashMap<Uuid, Result<Task, StoreError>>, StoreError> {
        let rows = self.read(TASKS.as_str(), vec![ids.into()]).await?;
        rows.iter().map(|row| Ok((column(row, "id")?, task_of(row)))).collect()
    }

    /// A user's profile, if the user has been seen.
    ///
    /// # Errors
    /// If PostgreSQL does not answer in time, or answers with an error.
    pub async fn profile(&self, user_id: Uuid) -> Result<Option<Profile>, StoreError> {
        let rows = self.read(PROFILE.as_str(), vec![user_id.into()]).await?;
        rows.first().map(profile_of).transpose()
    }

    /// Users that have been seen and not erased, by id: up to `limit` past `after`, of a role or a
    /// standing if one is given.
    ///
    /// # Errors
    /// If PostgreSQL does not answer in time, or answers with an error.
    pub async fn profiles(
        &self,
        after: Uuid,
        role: Option<Role>,
        standing: Option<Standing>,
        limit: u64,
    ) -> Result<Vec<Profile>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values = vec![
            after.into(),
            role.map_or("", Role::as_str).into(),
            standing.map_or("", Standing::as_str).into(),
            limit.into(),
        ];
        self.read(PROFILES.as_str(), values).await?.iter().map(profile_of).collect()
    }

    /// What the ledger keeps of an operation.
    ///
    /// # Errors
    /// If PostgreSQL does not answer in time, or answers with an error.
    pub async fn ledger_entry(&self, id: Version) -> Result<Option<LedgerEntry>, StoreError> {
        let rows = self.read(LEDGER, vec![id.as_uuid().into()]).await?;
        rows.first().map(entry_of).transpose()
    }
}

/// A task from a row with the columns of the table.
pub(super) fn task_of(row: &QueryResult) -> Result<Task, StoreError> {
    let version = |name: &str| column::<Uuid>(row, name).map(Version::from_uuid);
    let title: String = column(row, "title")?;
    let deleted_at: Option<DateTime<Utc>> = column(row, "deleted_at")?;
    Ok(Task {
        id: column(row, "id")?,
        user_id: column(row, "user_id")?,
        title: deleted_at.is_none().then(|| Title::stored(title)),
        description: column::<Option<String>>(row, "description")?.map(Description::stored),
        status: TaskStatus::parse(&column::<String>(row, "status")?)
            .map_err(|_| StoreError::Shape)?,
        versions: TaskVersions {
            title: version("title_version")?,
            description: version("description_version")?,
            status: version("status_version")?,
        },
        deleted_at,
        created_at: column(row, "created_at")?,
        updated_at: column(row, "updated_at")?,
    })
}

/// A profile from a row with the columns of the table.
pub(super) fn profile_of(row: &QueryResult) -> Result<Profile, StoreError> {
    let shape = |_| StoreError::Shape;
    let version = |name: &str| column::<Uuid>(row, name).map(Version::from_uuid);
    Ok(Profile {
        user_id: column(row, "id")?,
        role: Role::parse(&column::<String>(row, "role")?).map_err(shape)?,
        standing: Standing::parse(&column::<String>(row, "status")?).map_err(shape)?,
        preferences: Preferences::stored(column(row, "preferences")?),
        versions: ProfileVersions {
            role: version("role_version")?,
            standing: version("status_version")?,
            preferences: version("preferences_version")?,
        },
        erased_at: column(row, "erased_at")?,
        created_at: column(row, "created_at")?,
        updated_at: column(row, "updated_at")?,
    })
}

fn entry_of(row: &QueryResult) -> Result<LedgerEntry, StoreError> {
    Ok(LedgerEntry {
        user_id: column(row, "user_id")?,
        entity: column(row, "entity")?,
        entity_id: column(row, "entity_id")?,
        action: column(row, "action")?,
        state: OperationState::parse(&column::<String>(row, "outcome")?)
            .ok_or(StoreError::Shape)?,
        reason: column(row, "reason")?,
        accepted_at: column(row, "accepted_at")?,
        applied_at: column(row, "applied_at")?,
    })
}
