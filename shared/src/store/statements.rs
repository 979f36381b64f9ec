//! The statements that apply operations.
//!
//! Their text never changes, whatever the size of a batch: rows come as arrays and are unnested, so
//! that one prepared statement serves all. It is put together once in a process, of the columns that
//! `rows.rs` defines. Each is its own transaction and one round trip: entities and ledger change together
//! or not at all.
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

use std::sync::LazyLock;

use super::columns::{PROFILE_COLUMNS, Parameters, TASK_COLUMNS, columns_of};
use super::rows::{AskedRows, LedgerRows, ProfileRows, TaskRows};
use crate::domain::EntityKind;

/// Writes tasks and their ledger rows; users are made on first sight, suspended ones are left out.
/// Its values: those of tasks, of ledger rows, the node's name, the deadline.
pub(super) static TASKS: LazyLock<String> = LazyLock::new(|| {
    let mut parameters = Parameters::default();
    let tasks = parameters.unnest(TaskRows::COLUMNS, "t");
    let ledger = parameters.unnest_in_order(LedgerRows::COLUMNS, "o");
    let (node, deadline) = (parameters.next(), parameters.next());
    let (late, noted) = (late(&deadline), noted(&named(EntityKind::Task), WITH_ROW, &node));
    let columns = TASK_COLUMNS.join(", ");
    format!(
        r"
WITH {late}, t AS (
    SELECT * FROM {tasks}
    WHERE NOT (SELECT passed FROM late)
        AND NOT EXISTS (SELECT FROM users u WHERE u.id = t.user_id AND u.status = 'suspended')
), o AS (
    SELECT * FROM {ledger}
    WHERE NOT (SELECT passed FROM late)
), seen AS (
    INSERT INTO users (id) SELECT DISTINCT user_id FROM o ORDER BY 1 ON CONFLICT (id) DO NOTHING
), created AS (
    INSERT INTO tasks ({columns})
    SELECT {columns} FROM (
        SELECT id, user_id, title, CASE WHEN described THEN description END AS description, status,
            title_version, description_version, status_version,
            CASE WHEN deleted THEN deleted_at END AS deleted_at, created_at, updated_at
        FROM t WHERE was_title = '00000000-0000-0000-0000-000000000000'
    ) AS created
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
), {noted}
SELECT id FROM done
UNION ALL SELECT NULL::uuid FROM late WHERE passed"
    )
});

/// Writes profiles and their ledger rows. A role or a standing that no operation has set stays as it
/// is. Tasks of erased users are removed apart ([`Store::purge_erased`]), as many as there may be. Its
/// values: those of profiles, of ledger rows, the node's name, the deadline.
///
/// [`Store::purge_erased`]: super::Store::purge_erased
pub(super) static PROFILES: LazyLock<String> = LazyLock::new(|| {
    let mut parameters = Parameters::default();
    let profiles = parameters.unnest(ProfileRows::COLUMNS, "p");
    let ledger = parameters.unnest_in_order(LedgerRows::COLUMNS, "o");
    let (node, deadline) = (parameters.next(), parameters.next());
    let (late, noted) = (late(&deadline), noted(&named(EntityKind::Profile), WITH_ROW, &node));
    let columns = PROFILE_COLUMNS.join(", ");
    format!(
        r"
WITH {late}, p AS (
    SELECT * FROM {profiles}
    WHERE NOT (SELECT passed FROM late)
), o AS (
    SELECT * FROM {ledger}
    WHERE NOT (SELECT passed FROM late)
), done AS (
    INSERT INTO users ({columns})
    SELECT {columns} FROM (
        SELECT id, role, status, preferences::jsonb AS preferences, role_version, status_version,
            preferences_version, CASE WHEN erased THEN updated_at END AS erased_at,
            updated_at AS created_at, updated_at
        FROM p
    ) AS written
    ORDER BY id
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
), {noted}
SELECT id FROM done
UNION ALL SELECT NULL::uuid FROM late WHERE passed"
    )
});

/// Writes the ledger rows of what has taken effect on entities of a kind that is not in PostgreSQL. Its
/// values: those of ledger rows, the node's name, the kind's, the deadline.
pub(super) static LEDGER: LazyLock<String> = LazyLock::new(|| {
    let mut parameters = Parameters::default();
    let ledger = parameters.unnest_in_order(LedgerRows::COLUMNS, "o");
    let (node, kind, deadline) = (parameters.next(), parameters.next(), parameters.next());
    let (late, noted) = (late(&deadline), noted(&kind, "", &node));
    format!(
        r"
WITH {late}, o AS (
    SELECT * FROM {ledger}
    WHERE NOT (SELECT passed FROM late)
), {noted}
SELECT entity_id AS id FROM o
UNION ALL SELECT NULL::uuid FROM late WHERE passed"
    )
});

/// Whether the statement begins too late.
pub(super) fn late(deadline: &str) -> String {
    format!(
        r"late AS MATERIALIZED (
    SELECT clock_timestamp() > {deadline}::timestamptz AS passed
)"
    )
}

/// Of the ledger rows that go with a change of their entity, only those whose entity was written.
const WITH_ROW: &str = "WHERE NOT with_row OR entity_id IN (SELECT id FROM done)";

/// A kind as a statement names it.
pub(super) fn named(kind: EntityKind) -> String {
    format!("'{}'", kind.as_str())
}

/// Writes the ledger rows `o` that meet a condition; those that are there stay as they are.
fn noted(kind: &str, condition: &str, node: &str) -> String {
    format!(
        r"noted AS (
    INSERT INTO operations (id, user_id, entity, entity_id, action, outcome, accepted_at,
        applied_at, node)
    SELECT id, user_id, {kind}, entity_id, action, outcome, accepted_at, clock_timestamp(), {node}
    FROM o {condition}
    ORDER BY place
    ON CONFLICT (id) DO NOTHING
)"
    )
}

/// For each operation on a task: its ledger row, the standing of its user, the task.
pub(super) static READ_TASKS: LazyLock<String> = LazyLock::new(|| {
    let operations = Parameters::default().unnest_in_order(AskedRows::COLUMNS, "o");
    let task = columns_of("t", &TASK_COLUMNS);
    format!(
        r"
SELECT o.place, l.id IS NOT NULL AS known, u.status AS actor_standing,
    u.erased_at IS NOT NULL AS actor_erased, false AS demoted, {task}
FROM {operations}
LEFT JOIN operations l ON l.id = o.id
LEFT JOIN users u ON u.id = o.user_id
LEFT JOIN tasks t ON t.id = o.entity_id
ORDER BY o.place"
    )
});

/// For each operation on a profile: its ledger row, the standing of its user, whether an admin has
/// given that user another role than admin, and the profile.
pub(super) static READ_PROFILES: LazyLock<String> = LazyLock::new(|| {
    let operations = Parameters::default().unnest_in_order(AskedRows::COLUMNS, "o");
    let profile = columns_of("u", &PROFILE_COLUMNS);
    format!(
        r"
SELECT o.place, l.id IS NOT NULL AS known, a.status AS actor_standing,
    a.erased_at IS NOT NULL AS actor_erased,
    coalesce(a.role <> 'admin' AND a.role_version <> '00000000-0000-0000-0000-000000000000',
        false) AS demoted,
    {profile}
FROM {operations}
LEFT JOIN operations l ON l.id = o.id
LEFT JOIN users a ON a.id = o.user_id
LEFT JOIN users u ON u.id = o.entity_id
ORDER BY o.place"
    )
});
