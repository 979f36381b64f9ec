//! The statement for the batch that there is most often: nothing but creates of tasks, each alone in
//! its lane. It does what [`TASKS`] does, with a third of the arrays and of the plan.
//!
//! [`TASKS`]: super::statements::TASKS

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use sea_orm::Value;
use uuid::Uuid;

use super::statements::TaskColumns;
use super::{Store, StoreError};
use crate::domain::{Action, Operation, OperationState, Task};

/// Users of whom it is remembered that they are there.
const REMEMBERED: usize = 100_000;

macro_rules! creates {
    ($users:literal) => {
        concat!(
            r"
WITH late AS MATERIALIZED (
    SELECT clock_timestamp() > $13::timestamptz AS passed
), t AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bool[], $5::text[], $6::text[],
        $7::uuid[], $8::uuid[], $9::timestamptz[])
    AS t (id, user_id, title, described, description, status, version, operation_id, accepted_at)
    WHERE NOT (SELECT passed FROM late)
        AND NOT EXISTS (SELECT FROM users u WHERE u.id = t.user_id AND u.status = 'suspended')
)",
            $users,
            r", created AS (
    INSERT INTO tasks (id, user_id, title, description, status,
        title_version, description_version, status_version, created_at, updated_at)
    SELECT id, user_id, title, CASE WHEN described THEN description END, status,
        version, version, version, accepted_at, accepted_at
    FROM t
    ORDER BY id
    RETURNING id
), noted AS (
    INSERT INTO operations (id, user_id, entity, entity_id, action, outcome, accepted_at,
        applied_at, node)
    SELECT operation_id, user_id, 'task', id, $10, $11, accepted_at, clock_timestamp(), $12
    FROM t WHERE (id IN (SELECT id FROM created)) IS TRUE
)
SELECT id FROM created
UNION ALL SELECT NULL::uuid FROM late WHERE passed"
        )
    };
}

/// Creates tasks that are supposed not to be there, of users that are supposed to be, with their
/// ledger rows. Those of suspended users are left out and not returned. If one of the tasks or of the
/// ledger rows is there, or one of the users is not, nothing is written: it fails with
/// [`StoreError::THERE`] or [`StoreError::ORPHAN`]. Looking for each row before writing it would take
/// a quarter of the time. `IS TRUE` has PostgreSQL look the created ids up by a hash, where a join would
/// compare each with each.
pub(super) const CREATES: &str = creates!("");

/// Like [`CREATES`]; users are made on first sight.
pub(super) const CREATES_OF_NEW_USERS: &str = creates!(
    r", seen AS (
    INSERT INTO users (id) SELECT DISTINCT user_id FROM t ORDER BY 1 ON CONFLICT (id) DO NOTHING
)"
);

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
        let users = rows.tasks.users();
        let number = users.len();
        let unseen = (!self.seen.has_all(users)).then(|| users.to_vec());
        let statement = if unseen.is_none() { CREATES } else { CREATES_OF_NEW_USERS };
        match self.written(statement, rows.values(&self.node), deadline).await {
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

/// The arrays of [`CREATES`].
#[derive(Default)]
pub(super) struct CreateRows {
    tasks: TaskColumns,
    version: Vec<Uuid>,
    operation_id: Vec<Uuid>,
    accepted_at: Vec<DateTime<Utc>>,
}

impl CreateRows {
    /// Adds a task as its create makes it.
    pub(super) fn push(&mut self, task: &Task, create: &Operation) {
        self.tasks.push(task);
        self.version.push(task.versions.newest().as_uuid());
        self.operation_id.push(create.id.as_uuid());
        self.accepted_at.push(create.accepted_at);
    }

    /// All values, the node's name last.
    pub(super) fn values(self, node: &str) -> Vec<Value> {
        let others: [Value; 6] = [
            self.version.into(),
            self.operation_id.into(),
            self.accepted_at.into(),
            Action::Create.as_str().into(),
            OperationState::Applied.as_str().into(),
            node.into(),
        ];
        self.tasks.values().into_iter().chain(others).collect()
    }
}
