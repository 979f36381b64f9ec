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
//!
//! Each has a deadline, by PostgreSQL's clock, as its last parameter. A statement that was held up on
//! its way, and begins after it, finds nothing to do and returns a null id: the process that sent it
//! may be gone, and nobody protects the cache from what it changes any more.
//!
//! Plans are kept from a time when tables were empty, and must be good when they are not: conditions are
//! written so that rows can only be found by key (a partial index that seemed empty was read from end to
//! end with each batch).

use chrono::{DateTime, Utc};
use sea_orm::Value;
use uuid::Uuid;

use crate::domain::{
    Operation, OperationState, Profile, ProfileVersions, Task, TaskVersions, Version,
};

/// Writes tasks and their ledger rows; users are made on first sight, suspended ones are left out.
pub(super) const TASKS: &str = r"
WITH late AS MATERIALIZED (
    SELECT clock_timestamp() > $25::timestamptz AS passed
), t AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bool[], $5::text[], $6::text[],
        $7::uuid[], $8::uuid[], $9::uuid[], $10::bool[], $11::timestamptz[], $12::timestamptz[],
        $13::timestamptz[], $14::uuid[], $15::uuid[], $16::uuid[])
    AS t (id, user_id, title, described, description, status,
        title_version, description_version, status_version, deleted, deleted_at, created_at,
        updated_at, was_title, was_description, was_status)
    WHERE NOT (SELECT passed FROM late)
        AND NOT EXISTS (SELECT FROM users u WHERE u.id = t.user_id AND u.status = 'suspended')
), o AS (
    SELECT * FROM unnest($17::uuid[], $18::uuid[], $19::uuid[], $20::text[], $21::text[],
        $22::timestamptz[], $23::bool[])
    WITH ORDINALITY AS o (id, user_id, entity_id, action, outcome, accepted_at, with_row, place)
    WHERE NOT (SELECT passed FROM late)
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
        AND coalesce(tasks.deleted_at, 'infinity') = 'infinity'
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
SELECT id FROM done
UNION ALL SELECT NULL::uuid FROM late WHERE passed";

/// Writes profiles and their ledger rows. A role or a standing that no operation has set stays as it
/// is. Tasks of erased users are removed apart ([`Store::purge_erased`]), as many as there may be.
///
/// [`Store::purge_erased`]: super::Store::purge_erased
pub(super) const PROFILES: &str = r"
WITH late AS MATERIALIZED (
    SELECT clock_timestamp() > $21::timestamptz AS passed
), p AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::uuid[],
        $7::uuid[], $8::bool[], $9::timestamptz[], $10::uuid[], $11::uuid[], $12::uuid[])
    AS p (id, role, status, preferences, role_version, status_version, preferences_version,
        erased, updated_at, was_role, was_status, was_preferences)
    WHERE NOT (SELECT passed FROM late)
), o AS (
    SELECT * FROM unnest($13::uuid[], $14::uuid[], $15::uuid[], $16::text[], $17::text[],
        $18::timestamptz[], $19::bool[])
    WITH ORDINALITY AS o (id, user_id, entity_id, action, outcome, accepted_at, with_row, place)
    WHERE NOT (SELECT passed FROM late)
), done AS (
    INSERT INTO users (id, role, status, preferences, role_version, status_version,
        preferences_version, erased_at, created_at, updated_at)
    SELECT id, role, status, preferences::jsonb, role_version, status_version,
        preferences_version, CASE WHEN erased THEN updated_at END, updated_at, updated_at
    FROM p ORDER BY id
    ON CONFLICT (id) DO UPDATE SET
        role = CASE WHEN excluded.role_version > users.role_version
            THEN excluded.role ELSE users.role END,
        status = CASE WHEN excluded.status_version > users.status_version
            THEN excluded.status ELSE users.status END,
        preferences = excluded.preferences,
        role_version = excluded.role_version,
        status_version = excluded.status_version,
        preferences_version = excluded.preferences_version,
        erased_at = excluded.erased_at,
        updated_at = greatest(users.updated_at, excluded.updated_at)
    WHERE (users.role_version, users.status_version, users.preferences_version)
        = (SELECT was_role, was_status, was_preferences FROM p WHERE p.id = users.id)
        AND users.erased_at IS NULL
    RETURNING id
), noted AS (
    INSERT INTO operations (id, user_id, entity, entity_id, action, outcome, accepted_at,
        applied_at, node)
    SELECT id, user_id, 'profile', entity_id, action, outcome, accepted_at, clock_timestamp(), $20
    FROM o WHERE NOT with_row OR entity_id IN (SELECT id FROM done)
    ORDER BY place
    ON CONFLICT (id) DO NOTHING
)
SELECT id FROM done
UNION ALL SELECT NULL::uuid FROM late WHERE passed";

/// Writes the ledger rows of what has taken effect on entities of a kind that is not in PostgreSQL.
pub(super) const LEDGER: &str = r"
WITH late AS MATERIALIZED (
    SELECT clock_timestamp() > $10::timestamptz AS passed
), o AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[],
        $6::timestamptz[], $7::bool[])
    WITH ORDINALITY AS o (id, user_id, entity_id, action, outcome, accepted_at, with_row, place)
    WHERE NOT (SELECT passed FROM late)
), noted AS (
    INSERT INTO operations (id, user_id, entity, entity_id, action, outcome, accepted_at,
        applied_at, node)
    SELECT id, user_id, $9, entity_id, action, outcome, accepted_at, clock_timestamp(), $8
    FROM o
    ORDER BY place
    ON CONFLICT (id) DO NOTHING
)
SELECT entity_id AS id FROM o
UNION ALL SELECT NULL::uuid FROM late WHERE passed";

/// For each operation on a task: its ledger row, the standing of its user, the task.
pub(super) const READ_TASKS: &str = r"
SELECT o.place, l.id IS NOT NULL AS known, u.status AS actor_standing,
    u.erased_at IS NOT NULL AS actor_erased, false AS demoted, t.id, t.user_id, t.title,
    t.description, t.status, t.title_version, t.description_version, t.status_version,
    t.deleted_at, t.created_at, t.updated_at
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY AS o (id, user_id, entity_id, place)
LEFT JOIN operations l ON l.id = o.id
LEFT JOIN users u ON u.id = o.user_id
LEFT JOIN tasks t ON t.id = o.entity_id
ORDER BY o.place";

/// For each operation on a profile: its ledger row, the standing of its user, whether an admin has
/// given that user another role than admin, and the profile.
pub(super) const READ_PROFILES: &str = r"
SELECT o.place, l.id IS NOT NULL AS known, a.status AS actor_standing,
    a.erased_at IS NOT NULL AS actor_erased,
    coalesce(a.role <> 'admin' AND a.role_version <> '00000000-0000-0000-0000-000000000000',
        false) AS demoted,
    u.id, u.role, u.status AS standing, u.preferences, u.role_version, u.status_version,
    u.preferences_version, u.erased_at, u.created_at, u.updated_at
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY AS o (id, user_id, entity_id, place)
LEFT JOIN operations l ON l.id = o.id
LEFT JOIN users a ON a.id = o.user_id
LEFT JOIN users u ON u.id = o.entity_id
ORDER BY o.place";

/// The arrays that hold what tasks are, the first of every statement that writes tasks.
#[derive(Default)]
pub(super) struct TaskColumns {
    id: Vec<Uuid>,
    user_id: Vec<Uuid>,
    title: Vec<String>,
    described: Vec<bool>,
    description: Vec<String>,
    status: Vec<String>,
}

impl TaskColumns {
    /// Adds a task.
    pub(super) fn push(&mut self, task: &Task) {
        self.id.push(task.id);
        self.user_id.push(task.user_id);
        self.title.push(task.title.as_ref().map_or_else(String::new, |t| t.as_str().to_owned()));
        self.described.push(task.description.is_some());
        let description = task.description.as_ref().map(|d| d.as_str().to_owned());
        self.description.push(description.unwrap_or_default());
        self.status.push(task.status.as_str().to_owned());
    }

    /// Whose tasks they are.
    pub(super) fn users(&self) -> &[Uuid] {
        &self.user_id
    }

    /// The values.
    pub(super) fn values(self) -> [Value; 6] {
        [
            self.id.into(),
            self.user_id.into(),
            self.title.into(),
            self.described.into(),
            self.description.into(),
            self.status.into(),
        ]
    }
}

/// The arrays of [`TASKS`] that hold tasks.
#[derive(Default)]
pub(super) struct TaskRows {
    tasks: TaskColumns,
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
        self.tasks.push(task);
        push_all(&mut self.versions, of_task(task.versions));
        self.deleted.push(task.deleted_at.is_some());
        self.deleted_at.push(task.deleted_at.unwrap_or_default());
        self.created_at.push(task.created_at);
        self.updated_at.push(task.updated_at);
        push_all(&mut self.was, of_task(was.unwrap_or(TaskVersions::all(Version::NONE))));
    }

    /// All values of [`TASKS`], the ledger's last.
    pub(super) fn values(self, ledger: [Value; 8]) -> Vec<Value> {
        let [title, description, status] = self.versions;
        let [was_title, was_description, was_status] = self.was;
        let others: [Value; 10] = [
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
        self.tasks.values().into_iter().chain(others).chain(ledger).collect()
    }
}

/// The arrays of [`PROFILES`] that hold profiles.
#[derive(Default)]
pub(super) struct ProfileRows {
    id: Vec<Uuid>,
    role: Vec<String>,
    standing: Vec<String>,
    preferences: Vec<String>,
    versions: [Vec<Uuid>; 3],
    erased: Vec<bool>,
    updated_at: Vec<DateTime<Utc>>,
    was: [Vec<Uuid>; 3],
}

impl ProfileRows {
    /// Adds a profile and the versions it had before.
    pub(super) fn push(&mut self, profile: &Profile, was: ProfileVersions) {
        self.id.push(profile.user_id);
        self.role.push(profile.role.as_str().to_owned());
        self.standing.push(profile.standing.as_str().to_owned());
        self.preferences.push(profile.preferences.to_value().to_string());
        push_all(&mut self.versions, of_profile(profile.versions));
        self.erased.push(profile.erased_at.is_some());
        self.updated_at.push(profile.updated_at);
        push_all(&mut self.was, of_profile(was));
    }

    /// All values of [`PROFILES`], the ledger's last.
    pub(super) fn values(self, ledger: [Value; 8]) -> Vec<Value> {
        let [role_version, standing_version, preferences_version] = self.versions;
        let [was_role, was_standing, was_preferences] = self.was;
        let profiles: [Value; 12] = [
            self.id.into(),
            self.role.into(),
            self.standing.into(),
            self.preferences.into(),
            role_version.into(),
            standing_version.into(),
            preferences_version.into(),
            self.erased.into(),
            self.updated_at.into(),
            was_role.into(),
            was_standing.into(),
            was_preferences.into(),
        ];
        profiles.into_iter().chain(ledger).collect()
    }
}

fn of_task(versions: TaskVersions) -> [Version; 3] {
    [versions.title, versions.description, versions.status]
}

fn of_profile(versions: ProfileVersions) -> [Version; 3] {
    [versions.role, versions.standing, versions.preferences]
}

fn push_all(columns: &mut [Vec<Uuid>; 3], versions: [Version; 3]) {
    for (column, version) in columns.iter_mut().zip(versions) {
        column.push(version.as_uuid());
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
