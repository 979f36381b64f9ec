//! The statement for the batch that there is most often: nothing but creates of tasks, each alone in
//! its lane. It does what [`TASKS`] does, with a third of the arrays and of the plan.
//!
//! [`TASKS`]: super::statements::TASKS

use chrono::{DateTime, Utc};
use sea_orm::Value;
use uuid::Uuid;

use crate::domain::{Action, Operation, OperationState, Task};

/// Creates tasks that are supposed not to be there, with their ledger rows; users are made on first
/// sight. Those of suspended users are left out and not returned. If one of the tasks or of the ledger
/// rows is there, nothing is written: it fails with [`StoreError::THERE`]. Looking for each before
/// writing it would take a seventh of the time.
///
/// [`StoreError::THERE`]: super::StoreError::THERE
pub(super) const CREATES: &str = r"
WITH t AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bool[], $5::text[], $6::text[],
        $7::uuid[], $8::timestamptz[])
    AS t (id, user_id, title, described, description, status, version, accepted_at)
    WHERE NOT EXISTS (SELECT FROM users u WHERE u.id = t.user_id AND u.status = 'suspended')
), seen AS (
    INSERT INTO users (id) SELECT DISTINCT user_id FROM t ORDER BY 1 ON CONFLICT (id) DO NOTHING
), created AS (
    INSERT INTO tasks (id, user_id, title, description, status,
        title_version, description_version, status_version, created_at, updated_at)
    SELECT id, user_id, title, CASE WHEN described THEN description END, status,
        version, version, version, accepted_at, accepted_at
    FROM t
    ORDER BY id
    RETURNING id, user_id, title_version, created_at
), noted AS (
    INSERT INTO operations (id, user_id, entity, entity_id, action, outcome, accepted_at,
        applied_at, node)
    SELECT title_version, user_id, 'task', id, $9, $10, created_at, clock_timestamp(), $11
    FROM created
)
SELECT id FROM created";

/// The arrays of [`CREATES`].
#[derive(Default)]
pub(super) struct CreateRows {
    id: Vec<Uuid>,
    user_id: Vec<Uuid>,
    title: Vec<String>,
    described: Vec<bool>,
    description: Vec<String>,
    status: Vec<String>,
    version: Vec<Uuid>,
    accepted_at: Vec<DateTime<Utc>>,
}

impl CreateRows {
    /// Adds a task as its create makes it.
    pub(super) fn push(&mut self, task: &Task, create: &Operation) {
        self.id.push(task.id);
        self.user_id.push(task.user_id);
        self.title.push(task.title.as_ref().map_or_else(String::new, |t| t.as_str().to_owned()));
        self.described.push(task.description.is_some());
        let description = task.description.as_ref().map(|d| d.as_str().to_owned());
        self.description.push(description.unwrap_or_default());
        self.status.push(task.status.as_str().to_owned());
        self.version.push(create.id.as_uuid());
        self.accepted_at.push(create.accepted_at);
    }

    /// All values, the node's name last.
    pub(super) fn values(self, node: &str) -> Vec<Value> {
        vec![
            self.id.into(),
            self.user_id.into(),
            self.title.into(),
            self.described.into(),
            self.description.into(),
            self.status.into(),
            self.version.into(),
            self.accepted_at.into(),
            Action::Create.as_str().into(),
            OperationState::Applied.as_str().into(),
            node.into(),
        ]
    }
}
