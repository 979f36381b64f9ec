//! The statement for the batch that there is most often: nothing but creates of tasks, each alone in
//! its lane. It does what [`TASKS`] does, with a third of the arrays and of the plan.
//!
//! [`TASKS`]: super::statements::TASKS

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use sea_orm::Value;
use uuid::Uuid;

use super::columns::{Parameters, TASK_COLUMNS, arrays};
use super::rows::{description_of, title_of};
use super::statements::{late, named};
use super::{Store, StoreError};
use crate::domain::{Action, EntityKind, Operation, OperationState, Task};

/// Users of whom it is remembered that they are there.
const REMEMBERED: usize = 100_000;

/// Creates tasks that are supposed not to be there, of users that are supposed to be, with their
/// ledger rows. Those of suspended users are left out and not returned. If one of the tasks or of the
/// ledger rows is there, or one of the users is not, nothing is written: it fails with
/// [`StoreError::THERE`] or [`StoreError::ORPHAN`]. Looking for each row before writing it would take
/// a quarter of the time.
static CREATES: LazyLock<String> = LazyLock::new(|| creates(""));

/// Like [`CREATES`]; users are made on first sight.
pub(super) static CREATES_OF_NEW_USERS: LazyLock<String> = LazyLock::new(|| {
    creates(
        r", seen AS (
    INSERT INTO users (id) SELECT DISTINCT user_id FROM t ORDER BY 1 ON CONFLICT (id) DO NOTHING
)",
    )
});

/// The text of the statement. Its values: those of tasks, the action, the outcome, the node's name, the
/// deadline. `IS TRUE` has PostgreSQL look the created ids up by a hash, where a join would compare each
/// with each.
fn creates(users: &str) -> String {
    let mut parameters = Parameters::default();
    let tasks = parameters.unnest(CreateRows::COLUMNS, "t");
    let (action, outcome) = (parameters.next(), parameters.next());
    let (node, deadline) = (parameters.next(), parameters.next());
    let (late, columns) = (late(&deadline), TASK_COLUMNS.join(", "));
    let kind = named(EntityKind::Task);
    format!(
        r"
WITH {late}, t AS (
    SELECT * FROM {tasks}
    WHERE NOT (SELECT passed FROM late)
        AND NOT EXISTS (SELECT FROM users u WHERE u.id = t.user_id AND u.status = 'suspended')
){users}, created AS (
    INSERT INTO tasks ({columns})
    SELECT {columns} FROM (
        SELECT id, user_id, title, CASE WHEN described THEN description END AS description, status,
            version AS title_version, version AS description_version, version AS status_version,
            NULL::timestamptz AS deleted_at, accepted_at AS created_at, accepted_at AS updated_at
        FROM t
    ) AS created
    ORDER BY id
    RETURNING id
), noted AS (
    INSERT INTO operations (id, user_id, entity, entity_id, action, outcome, accepted_at,
        applied_at, node)
    SELECT operation_id, user_id, {kind}, id, {action}, {outcome}, accepted_at, clock_timestamp(),
        {node}
    FROM t WHERE (id IN (SELECT id FROM created)) IS TRUE
)
SELECT id FROM created
UNION ALL SELECT NULL::uuid FROM late WHERE passed"
    )
}

/// The users that this process knows to be there: they are never removed. Should one be missing all
/// the same, as in a database that was restored, the statement that relies on it says so.
#[derive(Debug, Default)]
pub(super) struct SeenUsers(Mutex<HashSet<Uuid>>);

impl SeenUsers {
    /// Whether all of them are known.
    pub(super) fn has_all(&self, users: &[Uuid]) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        users.iter().all(|user| seen.contains(user))
    }

    /// Remembers that they are there.
    pub(super) fn remember(&self, users: Vec<Uuid>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() + users.len() > REMEMBERED {
            seen.clear();
        }
        seen.extend(users);
    }

    /// Forgets everybody.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Store {
    /// Creates tasks; those that were created. None if one was there already, as when an
    /// acknowledgement was lost.
    pub(super) async fn create(
        &self,
        rows: CreateRows,
        deadline: DateTime<Utc>,
    ) -> Result<HashSet<Uuid>, StoreError> {
        let users = rows.users();
        let number = users.len();
        let unseen = (!self.seen.has_all(users)).then(|| users.to_vec());
        let statement = if unseen.is_none() { &CREATES } else { &CREATES_OF_NEW_USERS };
        match self.written(statement, rows.values_of(&self.node), deadline).await {
            Ok(created) => {
                if let Some(unseen) = unseen.filter(|_| created.len() == number) {
                    self.seen.remember(unseen);
                }
                Ok(created)
            }
            Err(StoreError::THERE) => Ok(HashSet::new()),
            Err(StoreError::ORPHAN) => {
                self.seen.forget();
                Ok(HashSet::new())
            }
            Err(error) => Err(error),
        }
    }
}

arrays! {
    /// Tasks as their creates make them.
    CreateRows of CreateRow {
        id: Uuid,
        user_id: Uuid,
        title: String,
        described: bool,
        description: String,
        status: String,
        version: Uuid,
        operation_id: Uuid,
        accepted_at: DateTime<Utc>,
    }
}

impl CreateRow {
    /// A task as its create makes it.
    pub(super) fn of(task: &Task, create: &Operation) -> Self {
        Self {
            id: task.id,
            user_id: task.user_id,
            title: title_of(task),
            described: task.description.is_some(),
            description: description_of(task),
            status: task.status.as_str().to_owned(),
            version: task.versions.newest().as_uuid(),
            operation_id: create.id.as_uuid(),
            accepted_at: create.accepted_at,
        }
    }
}

impl CreateRows {
    /// Whose tasks they are.
    fn users(&self) -> &[Uuid] {
        &self.user_id
    }

    /// All values but the deadline.
    pub(super) fn values_of(self, node: &str) -> Vec<Value> {
        let (action, outcome) = (Action::Create.as_str(), OperationState::Applied.as_str());
        self.values_with(vec![action.into(), outcome.into(), node.into()])
    }
}
