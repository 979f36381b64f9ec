//! A table that is opened when it is first used: opening one, and writing back where it begins, costs
//! a commit more than what most commits do to it.

use redb::{Key, Table, TableDefinition, Value, WriteTransaction};

/// A table, for writing in one transaction.
pub(in crate::buffer) struct OnDemand<'txn, K: Key + 'static, V: Value + 'static> {
    transaction: &'txn WriteTransaction,
    definition: TableDefinition<'static, K, V>,
    table: Option<Table<'txn, K, V>>,
}

impl<'txn, K: Key, V: Value> OnDemand<'txn, K, V> {
    /// A table of a transaction.
    pub(in crate::buffer) fn new(
        transaction: &'txn WriteTransaction,
        definition: TableDefinition<'static, K, V>,
    ) -> Self {
        Self { transaction, definition, table: None }
    }

    /// The open table. It is made if it is missing.
    pub(in crate::buffer) fn open(&mut self) -> Result<&mut Table<'txn, K, V>, redb::Error> {
        match &mut self.table {
            Some(table) => Ok(table),
            closed => Ok(closed.insert(self.transaction.open_table(self.definition)?)),
        }
    }
}
