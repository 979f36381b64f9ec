//! Pages of what a user owns, by position or past an entry: the second costs the same however far the page.
//!
//! The text of a statement is put together of fixed parts; everything from outside is a parameter.

use chrono::{DateTime, Utc};
use sea_orm::{QueryResult, Value};
use uuid::Uuid;

use super::columns::TASK_COLUMNS;
use super::lookup::task_of;
use super::{Store, StoreError, column};
use crate::domain::{Task, TaskStatus};

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

    fn conditions(&self) -> Vec<Condition> {
        let status = self.status.map(|status| ("status =", status.as_str().into()));
        let title = self.title.as_ref().map(|title| ("title ILIKE", pattern(title).into()));
        status.into_iter().chain(title).collect()
    }
}

/// A column with an operator, and the value that has to stand behind it.
type Condition = (&'static str, Value);

/// In which order entries are listed: by when their create was accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListOrder {
    /// The newest first.
    #[default]
    Descending,
    /// The oldest first.
    Ascending,
}

/// Where an entry stands in a list.
pub type ListPosition = (DateTime<Utc>, Uuid);

/// Where a page begins.
#[derive(Clone, Copy, Debug)]
pub enum PageStart {
    /// After so many entries.
    Offset(u64),
    /// Past the entry that stands there.
    After(ListPosition),
}

/// A page of what a user owns.
#[derive(Clone, Debug)]
pub struct ListQuery<F> {
    /// Whose.
    pub user_id: Uuid,
    /// Which.
    pub filter: F,
    /// In which order.
    pub order: ListOrder,
    /// Where it begins.
    pub start: PageStart,
    /// Entries at the most.
    pub limit: u64,
}

/// A page of a user's tasks.
pub type TaskQuery = ListQuery<TaskFilter>;

/// A table whose rows users own and list.
struct Listed {
    table: &'static str,
    columns: &'static [&'static str],
}

const TASKS: Listed = Listed { table: "tasks", columns: &TASK_COLUMNS };

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
        let rows = self.page(&TASKS, query, query.filter.conditions(), without).await?;
        rows.iter().map(task_of).collect()
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
        self.count(&TASKS, user_id, filter.conditions(), without).await
    }

    async fn page<F>(
        &self,
        of: &Listed,
        query: &ListQuery<F>,
        conditions: Vec<Condition>,
        without: Vec<Uuid>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (table, columns) = (of.table, of.columns.join(", "));
        let mut values: Vec<Value> = vec![query.user_id.into(), without.into()];
        let owned = owned(conditions, &mut values);
        let mut sql = format!("SELECT {columns} FROM {table} WHERE {owned} AND id <> ALL($2)");
        let (past, direction) = match query.order {
            ListOrder::Descending => ("<", "DESC"),
            ListOrder::Ascending => (">", "ASC"),
        };
        if let PageStart::After((at, id)) = query.start {
            values.extend([at.into(), id.into()]);
            let (time, entry) = (values.len() - 1, values.len());
            sql.push_str(&format!(" AND (created_at, id) {past} (${time}, ${entry})"));
        }
        values.push(signed(query.limit).into());
        let limit = values.len();
        sql.push_str(&format!(" ORDER BY created_at {direction}, id {direction} LIMIT ${limit}"));
        if let PageStart::Offset(offset) = query.start {
            values.push(signed(offset).into());
            sql.push_str(&format!(" OFFSET ${}", values.len()));
        }
        self.read(sql, values).await
    }

    async fn count(
        &self,
        of: &Listed,
        user_id: Uuid,
        conditions: Vec<Condition>,
        without: Vec<Uuid>,
    ) -> Result<u64, StoreError> {
        let table = of.table;
        let mut values = vec![user_id.into()];
        let owned = owned(conditions, &mut values);
        let mut sql = format!("SELECT (SELECT count(*) FROM {table} WHERE {owned})");
        if !without.is_empty() {
            values.push(without.into());
            let ids = values.len();
            // By their keys: to compare each of a user's rows with each of these would take long.
            sql.push_str(&format!(
                " - (SELECT count(*) FROM {table} WHERE id = ANY(${ids}) AND {owned})"
            ));
        }
        sql.push_str(" AS total");
        let rows = self.read(sql, values).await?;
        let total: i64 = rows.first().map_or(Ok(0), |row| column(row, "total"))?;
        Ok(u64::try_from(total).unwrap_or(0))
    }
}

/// The condition that a row is the user's (`$1`), is not deleted and meets the others, whose values are
/// added.
fn owned(conditions: Vec<Condition>, values: &mut Vec<Value>) -> String {
    let mut sql = "user_id = $1 AND deleted_at IS NULL".to_owned();
    for (condition, value) in conditions {
        values.push(value);
        sql.push_str(&format!(" AND {condition} ${}", values.len()));
    }
    sql
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
