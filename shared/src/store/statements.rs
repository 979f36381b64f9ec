//! The statements that apply operations, and the arrays they take.
//!
//! Their text never changes, whatever the size of a batch: rows come as arrays and are unnested, so
//! that one prepared statement serves all. Each is its own transaction and one round trip: entities
//! and ledger change together or not at all.
//!
//! Writing is optimistic. A row is written only if the stored one still has the versions that were
//! read before folding (`was_*`; nil for a row that was not there), and a lane's ledger rows only if
//! its row was written. Versions only grow, so equal versions mean an equal row. The statements
//! return the entities that were written; a lane that is missing met another writer and is folded
//! again on what that one left behind.

use chrono::{DateTime, Utc};
use sea_orm::Value;
use uuid::Uuid;

use crate::domain::{Operation, OperationState, Profile, Task, TaskVersions, Version};

/// Writes tasks and their ledger rows; users are made on first sight, suspended ones are left out.
pub(super) const TASKS: &str = r"
WITH t AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bool[], $5::text[], $6::text[],
        $7::uuid[], $8::uuid[], $9::uuid[], $10::bool[], $11::timestamptz[], $12::timestamptz[],
        $13::timestamptz[], $14::uuid[], $15::uuid[], $16::uuid[])
    AS t (id, user_id, title, described, description, status,
        title_version, description_version, status_version, deleted, deleted_at, created_at,
        updated_at, was_title, was_description, was_status)
    WHERE NOT EXISTS (SELECT FROM users u WHERE u.id = t.user_id AND u.status = 'suspended')
), o AS (
    SELECT * FROM unnest($17::uuid[], $18::uuid[], $19::uuid[], $20::text[], $21::text[],
        $22::timestamptz[], $23::bool[])
    WITH ORDINALITY AS o (id, user_id, entity_id, action, outcome, accepted_at, with_row, place)
), seen AS (
    INSERT INTO users (id) SELECT DISTINCT user_id FROM o ORDER BY 1 ON CONFLICT (id) DO NOTHING
), created AS (
    INSERT INTO tasks (id, user_id, title, description, status,
        title_version, description_version, status_version, deleted_at, created_at, updated_at)
    SELECT id, user_id, title, CASE WHEN described THEN description END, status,
        title_version, description_version, status_version,
        CASE WHEN deleted THEN deleted_at END, created_at, updated_at
    FROM t WHERE was_title = '00000000-0000-0000-0000-000000000000'
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), changed AS (
    UPDATE tasks SET title = t.title,
        description = CASE WHEN t.described THEN t.description END,
        status = t.status,
        title_version = t.title_version,
        description_version = t.description_version,
        status_version = t.status_version,
        deleted_at = CASE WHEN t.deleted THEN t.deleted_at END,
        updated_at = t.updated_at
    FROM t
    WHERE tasks.id = t.id
        AND t.was_title <> '00000000-0000-0000-0000-000000000000'
        AND tasks.title_version = t.was_title
        AND tasks.description_version = t.was_description
        AND tasks.status_version = t.was_status
        AND tasks.deleted_at IS NULL
    RETURNING tasks.id
), done AS (
    SELECT id FROM created UNION ALL SELECT id FROM changed
), noted AS (
    INSERT INTO operations (id, user_id, entity, entity_id, action, outcome, accepted_at,
        applied_at, node)
    SELECT id, user_id, 'task', entity_id, action, outcome, accepted_at, clock_timestamp(), $24
    FROM o WHERE NOT with_row OR entity_id IN (SELECT id FROM done)
    ORDER BY place
    ON CONFLICT (id) DO NOTHING
)
SELECT id FROM done";

/// Writes profiles and their ledger rows; a suspended user's are left out.
pub(super) const PROFILES: &str = r"
WITH p AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[], $5::uuid[])
    AS p (id, preferences, preferences_version, updated_at, was)
), o AS (
    SELECT * FROM unnest($6::uuid[], $7::uuid[], $8::uuid[], $9::text[], $10::text[],
        $11::timestamptz[], $12::bool[])
    WITH ORDINALITY AS o (id, user_id, entity_id, action, outcome, accepted_at, with_row, place)
), done AS (
    INSERT INTO users (id, preferences, preferences_version, created_at, updated_at)
    SELECT id, preferences::jsonb, preferences_version, updated_at, updated_at FROM p ORDER BY id
    ON CONFLICT (id) DO UPDATE SET
        preferences = excluded.preferences,
        preferences_version = excluded.preferences_version,
        updated_at = greatest(users.updated_at, excluded.updated_at)
    WHERE users.preferences_version = (SELECT was FROM p WHERE p.id = users.id)
        AND users.status <> 'suspended'
    RETURNING id
), noted AS (
    INSERT INTO operations (id, user_id, entity, entity_id, action, outcome, accepted_at,
        applied_at, node)
    SELECT id, user_id, 'profile', entity_id, action, outcome, accepted_at, clock_timestamp(), $13
    FROM o WHERE NOT with_row OR entity_id IN (SELECT id FROM done)
    ORDER BY place
    ON CONFLICT (id) DO NOTHING
)
SELECT id FROM done";

/// For each operation on a task: its ledger row, the standing of its user, the task.
pub(super) const READ_TASKS: &str = r"
SELECT o.place, l.id IS NOT NULL AS known, u.status AS standing, t.id, t.user_id, t.title,
    t.description, t.status, t.title_version, t.description_version, t.status_version,
    t.deleted_at, t.created_at, t.updated_at
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY AS o (id, user_id, entity_id, place)
LEFT JOIN operations l ON l.id = o.id
LEFT JOIN users u ON u.id = o.user_id
LEFT JOIN tasks t ON t.id = o.entity_id
ORDER BY o.place";

/// For each operation on a profile: its ledger row and the user.
pub(super) const READ_PROFILES: &str = r"
SELECT o.place, l.id IS NOT NULL AS known, u.status AS standing, u.id, u.role, u.preferences,
    u.preferences_version, u.created_at, u.updated_at
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY AS o (id, user_id, entity_id, place)
LEFT JOIN operations l ON l.id = o.id
LEFT JOIN users u ON u.id = o.user_id
ORDER BY o.place";

/// The arrays of [`TASKS`] that hold tasks.
#[derive(Default)]
pub(super) struct TaskRows {
    id: Vec<Uuid>,
    user_id: Vec<Uuid>,
    title: Vec<String>,
    described: Vec<bool>,
    description: Vec<String>,
    status: Vec<String>,
    versions: [Vec<Uuid>; 3],
    deleted: Vec<bool>,
    deleted_at: Vec<DateTime<Utc>>,
    created_at: Vec<DateTime<Utc>>,
    updated_at: Vec<DateTime<Utc>>,
    was: [Vec<Uuid>; 3],
}

impl TaskRows {
    /// Adds a task and the versions it had before; `None` if it was not there.
    pub(super) fn push(&mut self, task: &Task, was: Option<TaskVersions>) {
        self.id.push(task.id);
        self.user_id.push(task.user_id);
        self.title.push(task.title.as_ref().map_or_else(String::new, |t| t.as_str().to_owned()));
        self.described.push(task.description.is_some());
        let description = task.description.as_ref().map(|d| d.as_str().to_owned());
        self.description.push(description.unwrap_or_default());
        self.status.push(task.status.as_str().to_owned());
        push_versions(&mut self.versions, task.versions);
        self.deleted.push(task.deleted_at.is_some());
        self.deleted_at.push(task.deleted_at.unwrap_or_default());
        self.created_at.push(task.created_at);
        self.updated_at.push(task.updated_at);
        push_versions(&mut self.was, was.unwrap_or(TaskVersions::all(Version::NONE)));
    }

    /// All values of [`TASKS`], the ledger's last.
    pub(super) fn values(self, ledger: [Value; 8]) -> Vec<Value> {
        let [title, description, status] = self.versions;
        let [was_title, was_description, was_status] = self.was;
        let tasks: [Value; 16] = [
            self.id.into(),
            self.user_id.into(),
            self.title.into(),
            self.described.into(),
            self.description.into(),
            self.status.into(),
            title.into(),
            description.into(),
            status.into(),
            self.deleted.into(),
            self.deleted_at.into(),
            self.created_at.into(),
            self.updated_at.into(),
            was_title.into(),
            was_description.into(),
            was_status.into(),
        ];
        tasks.into_iter().chain(ledger).collect()
    }
}

fn push_versions(columns: &mut [Vec<Uuid>; 3], versions: TaskVersions) {
    let [title, description, status] = columns;
    title.push(versions.title.as_uuid());
    description.push(versions.description.as_uuid());
    status.push(versions.status.as_uuid());
}

/// The arrays of [`PROFILES`] that hold profiles.
#[derive(Default)]
pub(super) struct ProfileRows {
    id: Vec<Uuid>,
    preferences: Vec<String>,
    version: Vec<Uuid>,
    updated_at: Vec<DateTime<Utc>>,
    was: Vec<Uuid>,
}

impl ProfileRows {
    /// Adds a profile and the version its preferences had before.
    pub(super) fn push(&mut self, profile: &Profile, was: Version) {
        self.id.push(profile.user_id);
        self.preferences.push(profile.preferences.to_value().to_string());
        self.version.push(profile.preferences_version.as_uuid());
        self.updated_at.push(profile.updated_at);
        self.was.push(was.as_uuid());
    }

    /// All values of [`PROFILES`], the ledger's last.
    pub(super) fn values(self, ledger: [Value; 8]) -> Vec<Value> {
        let profiles: [Value; 5] = [
            self.id.into(),
            self.preferences.into(),
            self.version.into(),
            self.updated_at.into(),
            self.was.into(),
        ];
        profiles.into_iter().chain(ledger).collect()
    }
}

/// The arrays that hold ledger rows, in the order of application.
#[derive(Default)]
pub(super) struct LedgerRows {
    id: Vec<Uuid>,
    user_id: Vec<Uuid>,
    entity_id: Vec<Uuid>,
    action: Vec<String>,
    outcome: Vec<String>,
    accepted_at: Vec<DateTime<Utc>>,
    with_row: Vec<bool>,
}

impl LedgerRows {
    /// Adds an operation's row; `with_row`: only if its entity's row is written.
    pub(super) fn push(&mut self, operation: &Operation, outcome: OperationState, with_row: bool) {
        self.id.push(operation.id.as_uuid());
        self.user_id.push(operation.actor.user_id);
        self.entity_id.push(operation.lane().id);
        self.action.push(operation.action().as_str().to_owned());
        self.outcome.push(outcome.as_str().to_owned());
        self.accepted_at.push(operation.accepted_at);
        self.with_row.push(with_row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.id.is_empty()
    }

    /// The values, with the node's name last.
    pub(super) fn values(self, node: &str) -> [Value; 8] {
        [
            self.id.into(),
            self.user_id.into(),
            self.entity_id.into(),
            self.action.into(),
            self.outcome.into(),
            self.accepted_at.into(),
            self.with_row.into(),
            node.into(),
        ]
    }
}
