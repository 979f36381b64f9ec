//! Finding out whether PostgreSQL takes writes of ours.

use std::sync::{Arc, PoisonError};

use super::creates::{CREATES_OF_NEW_USERS, CreateRows};
use super::statements::{LedgerRows, PROFILES, ProfileRows, TASKS, TaskRows};
use super::{Store, StoreError, connect, within};

impl Store {
    /// Runs the very statements that apply operations, without any operation: that goes through
    /// only if PostgreSQL can be reached, lets us in, is no standby and not read-only, and has the
    /// tables and columns this program writes. Uses a new connection, and keeps it and drops all
    /// older ones if it is good: those may hang in a line that has been broken.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let fresh = connect(&self.options).await.map_err(|_| StoreError::Unreachable)?;
        let ledger = || LedgerRows::default().values(&self.node);
        within(self.read_timeout, async {
            fresh.query(CREATES_OF_NEW_USERS, CreateRows::default().values(&self.node)).await?;
            fresh.query(TASKS, TaskRows::default().values(ledger())).await?;
            fresh.query(PROFILES, ProfileRows::default().values(ledger())).await?;
            self.read_clock(&fresh).await
        })
        .await?;
        *self.connections.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(())
    }
}
