//! Ending the retention of what nobody needs any more: rows of the ledger, tombstones, and what came in
//! while its user was being erased.
//!
//! A row goes when it is old by the caller's clock and by PostgreSQL's, so that one of them that is
//! wrong ends nothing too early. Each call removes a limited number in a transaction of its own and
//! passes over rows that somebody else holds: several nodes may purge at once.

use chrono::{DateTime, Utc};
use sea_orm::Value;

use super::{OWNED, Store, StoreError, column, within};

/// Rows that one statement removes at the most.
const PURGE: i64 = 1000;

const LEDGER: &str = r"
WITH gone AS (
    DELETE FROM operations WHERE id IN (
        SELECT id FROM operations
        WHERE applied_at < least($1::timestamptz, now()) - make_interval(days => $2::int)
        ORDER BY applied_at LIMIT $3 FOR UPDATE SKIP LOCKED)
    RETURNING id
)
SELECT count(*) AS gone FROM gone";

/// Removes tombstones of a table.
fn tombstones(table: &str) -> String {
    format!(
        r"
WITH gone AS (
    DELETE FROM {table} WHERE id IN (
        SELECT id FROM {table}
        WHERE deleted_at < least($1::timestamptz, now()) - make_interval(days => $2::int)
        ORDER BY deleted_at LIMIT $3 FOR UPDATE SKIP LOCKED)
    RETURNING id
)
SELECT count(*) AS gone FROM gone"
    )
}

/// Removes what erased users have in a table.
fn of_erased(table: &str) -> String {
    format!(
        r"
WITH gone AS (
    DELETE FROM {table} WHERE id IN (
        SELECT t.id FROM {table} t JOIN users u ON u.id = t.user_id
        WHERE u.erased_at IS NOT NULL AND t.deleted_at IS NULL LIMIT $1 FOR UPDATE OF t SKIP LOCKED)
    RETURNING id
)
SELECT count(*) AS gone FROM gone"
    )
}

impl Store {
    /// Removes rows of the ledger that were settled more than `days` before `now`, a limited
    /// number at a time. Returns how many there were.
    ///
    /// # Errors
    /// If PostgreSQL does not answer within the write timeout, or answers with an error.
    pub async fn purge_ledger(&self, now: DateTime<Utc>, days: u32) -> Result<u64, StoreError> {
        self.purge(LEDGER.to_owned(), since(now, days)).await
    }

    /// Removes what was deleted more than `days` before `now`, a limited number at a time.
    /// Returns how many there were.
    ///
    /// # Errors
    /// If PostgreSQL does not answer within the write timeout, or answers with an error.
    pub async fn purge_tombstones(&self, now: DateTime<Utc>, days: u32) -> Result<u64, StoreError> {
        let mut gone = 0;
        for table in OWNED {
            gone += self.purge(tombstones(table), since(now, days)).await?;
        }
        Ok(gone)
    }

    /// Removes what erased users own, a limited number at a time. Returns how many there were.
    ///
    /// # Errors
    /// If PostgreSQL does not answer within the write timeout, or answers with an error.
    pub async fn purge_erased(&self) -> Result<u64, StoreError> {
        let mut gone = 0;
        for table in OWNED {
            gone += self.purge(of_erased(table), vec![PURGE.into()]).await?;
        }
        Ok(gone)
    }

    async fn purge(&self, sql: String, values: Vec<Value>) -> Result<u64, StoreError> {
        let rows = within(self.write_timeout, self.rows(sql, values)).await?;
        let gone: i64 = rows.first().map_or(Ok(0), |row| column(row, "gone"))?;
        Ok(u64::try_from(gone).unwrap_or(0))
    }
}

fn since(now: DateTime<Utc>, days: u32) -> Vec<Value> {
    // A century is for ever, and PostgreSQL's dates reach that far back.
    let days = i32::try_from(days.min(36_500)).unwrap_or(i32::MAX);
    vec![now.into(), days.into(), PURGE.into()]
}
