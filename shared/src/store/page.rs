//! Pages of a user's tasks, by position or past a task: the second costs the same however far the page.
//!
//! The text of a statement is put together of fixed parts; everything from outside is a parameter.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use sea_orm::Value;
use uuid::Uuid;

use super::columns::TASK_COLUMNS;
use super::lookup::task_of;
use super::{Store, StoreError, column};
use crate::domain::{Task, TaskStatus};

static LISTED: LazyLock<String> = LazyLock::new(|| {
    let columns = TASK_COLUMNS.join(", ");
    format!("SELECT {columns} FROM tasks WHERE {COUNTED} AND id <> ALL($2)")
});

const COUNTED: &str = "user_id = $1 AND deleted_at IS NULL";

/// Which of a user's tasks are asked for. What is `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// In this status.
    pub status: Option<TaskStatus>,
    /// With this text in the title, whatever its case.
    pub title: Option<String>,
}

impl TaskFilter {
    /// Whether all tasks match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.status.is_none() && self.title.is_none()
    }

    /// Adds its conditions and their values.
    fn narrow(&self, sql: &mut String, values: &mut Vec<Value>) {
        if let Some(status) = self.status {
            values.push(status.as_str().into());
            sql.push_str(&format!(" AND status = ${}", values.len()));
        }
        if let Some(title) = &self.title {
            values.push(pattern(title).into());
            sql.push_str(&format!(" AND title ILIKE ${}", values.len()));
        }
    }
}

/// In which order tasks are listed: by when their create was accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskOrder {
    /// The newest first.
    #[default]
    Descending,
    /// The oldest first.
    Ascending,
}

/// Where a task stands in a list.
pub type TaskPosition = (DateTime<Utc>, Uuid);

/// Where a page begins.
#[derive(Clone, Copy, Debug)]
pub enum PageStart {
    /// After so many tasks.
    Offset(u64),
    /// Past the task that stands there.
    After(TaskPosition),
}

/// A page of a user's tasks.
#[derive(Clone, Debug)]
pub struct TaskQuery {
    /// Whose.
    pub user_id: Uuid,
    /// Which.
    pub filter: TaskFilter,
    /// In which order.
    pub order: TaskOrder,
    /// Where it begins.
    pub start: PageStart,
    /// Tasks at the most.
    pub limit: u64,
}

impl Store {
    /// A page of a user's tasks, as if those in `without` were not there.
    ///
    /// # Errors
    /// If PostgreSQL does not answer in time, or answers with an error.
    pub async fn task_page(
        &self,
        query: &TaskQuery,
        without: Vec<Uuid>,
    ) -> Result<Vec<Task>, StoreError> {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let mut sql = LISTED.clone();
        let mut values: Vec<Value> = vec![query.user_id.into(), without.into()];
        query.filter.narrow(&mut sql, &mut values);
        let (past, direction) = match query.order {
            TaskOrder::Descending => ("<", "DESC"),
            TaskOrder::Ascending => (">", "ASC"),
        };
        if let PageStart::After((at, id)) = query.start {
            values.extend([at.into(), id.into()]);
            let (time, task) = (values.len() - 1, values.len());
            sql.push_str(&format!(" AND (created_at, id) {past} (${time}, ${task})"));
        }
        values.push(signed(query.limit).into());
        let limit = values.len();
        sql.push_str(&format!(" ORDER BY created_at {direction}, id {direction} LIMIT ${limit}"));
        if let PageStart::Offset(offset) = query.start {
            values.push(signed(offset).into());
            sql.push_str(&format!(" OFFSET ${}", values.len()));
        }
        self.read(sql, values).await?.iter().map(task_of).collect()
    }

    /// How many tasks a user has, as if those in `without` were not there. Both are counted in one state
    /// of the database.
    ///
    /// # Errors
    /// If PostgreSQL does not answer in time, or answers with an error.
    pub async fn task_count(
        &self,
        user_id: Uuid,
        filter: &TaskFilter,
        without: Vec<Uuid>,
    ) -> Result<u64, StoreError> {
        let (mut counted, mut values) = (COUNTED.to_owned(), vec![user_id.into()]);
        filter.narrow(&mut counted, &mut values);
        let mut sql = format!("SELECT (SELECT count(*) FROM tasks WHERE {counted})");
        if !without.is_empty() {
            values.push(without.into());
            let ids = values.len();
            // By their keys: to compare each of a user's tasks with each of these would take long.
            sql.push_str(&format!(
                " - (SELECT count(*) FROM tasks WHERE id = ANY(${ids}) AND {counted})"
            ));
        }
        sql.push_str(" AS total");
        let rows = self.read(sql, values).await?;
        let total: i64 = rows.first().map_or(Ok(0), |row| column(row, "total"))?;
        Ok(u64::try_from(total).unwrap_or(0))
    }
}

/// A text to look for, as LIKE takes it.
fn pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_to_look_for_is_no_pattern() {
        assert_eq!(pattern("50% off_\\"), "%50\\% off\\_\\\\%");
    }
}
