//! Finding out whether PostgreSQL takes writes of ours.

use std::sync::{Arc, PoisonError};

use chrono::{DateTime, Utc};
use sea_orm::Value;

use super::apply::writing_nothing;
use super::{Store, StoreError, connect, within};

impl Store {
    /// Runs the very statements that apply operations, without any operation: that goes through
    /// only if PostgreSQL can be reached, lets us in, is no standby and not read-only, and has the
    /// tables and columns this program writes. Also reads its clock, and which PostgreSQL it is. Uses a
    /// new connection, and keeps it and drops all older ones if it is good: those may hang in a line that
    /// has been broken.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn probe(&self) -> Result<(), StoreError> {
        self.probe_anew().await.inspect_err(|_| self.lineage.forget())
    }

    async fn probe_anew(&self) -> Result<(), StoreError> {
        let fresh = connect(&self.options).await.map_err(|_| StoreError::Unreachable)?;
        // Never too late: an old offset of the clocks must not make for another answer.
        let with_deadline = |values: Vec<Value>| {
            values.into_iter().chain([DateTime::<Utc>::MAX_UTC.into()]).collect()
        };
        within(self.read_timeout, async {
            for (statement, values) in writing_nothing(&self.node) {
                fresh.query(statement, with_deadline(values)).await?;
            }
            self.read_clock(&fresh).await?;
            self.read_lineage(&fresh).await
        })
        .await?;
        *self.connections.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(())
    }
}
