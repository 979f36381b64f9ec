//! Sums over the other tables: the counters, and what each user has pending.
//!
//! Every change of an operation changes several of them. While a transaction is being made they are
//! kept in memory, and written once at its end ([`Totals::close`]), in the order of their keys.

use std::collections::BTreeMap;

use redb::{ReadableTable, Table, TableError, WriteTransaction};

use super::on_demand::OnDemand;
use crate::buffer::format::layout::{COUNTERS, USER_TOTALS};

/// The sums, open for writing in one transaction.
pub(in crate::buffer) struct Totals<'txn> {
    counters: Table<'txn, &'static str, u64>,
    users: OnDemand<'txn, u128, (u64, u64)>,
    changed: BTreeMap<&'static str, u64>,
    changed_users: BTreeMap<u128, (u64, u64)>,
}

impl<'txn> Totals<'txn> {
    /// The sums of a transaction.
    pub(in crate::buffer) fn open(transaction: &'txn WriteTransaction) -> Result<Self, TableError> {
        Ok(Self {
            counters: transaction.open_table(COUNTERS)?,
            users: OnDemand::new(transaction, USER_TOTALS),
            changed: BTreeMap::new(),
            changed_users: BTreeMap::new(),
        })
    }

    /// Makes the tables that are missing.
    pub(in crate::buffer) fn make(&mut self) -> Result<(), redb::Error> {
        self.users.open()?;
        Ok(())
    }

    /// A counter; 0 if it was never set.
    pub(in crate::buffer) fn counter(&self, name: &str) -> Result<u64, redb::Error> {
        match self.changed.get(name) {
            Some(value) => Ok(*value),
            None => Ok(self.counters.get(name)?.map_or(0, |value| value.value())),
        }
    }

    /// Sets a counter.
    pub(in crate::buffer) fn set(&mut self, name: &'static str, value: u64) {
        self.changed.insert(name, value);
    }

    /// Adds to a counter.
    pub(in crate::buffer) fn add(
        &mut self,
        name: &'static str,
        delta: i64,
    ) -> Result<(), redb::Error> {
        self.set(name, self.counter(name)?.saturating_add_signed(delta));
        Ok(())
    }

    /// A user's pending operations, and their bytes.
    pub(in crate::buffer) fn of_user(&mut self, user: u128) -> Result<(u64, u64), redb::Error> {
        match self.changed_users.get(&user) {
            Some(total) => Ok(*total),
            None => Ok(self.users.open()?.get(user)?.map_or((0, 0), |total| total.value())),
        }
    }

    /// Adds to a user's pending operations, and their bytes.
    pub(super) fn add_to_user(
        &mut self,
        user: u128,
        operations: i64,
        bytes: i64,
    ) -> Result<(), redb::Error> {
        let (count, length) = self.of_user(user)?;
        let total = (count.saturating_add_signed(operations), length.saturating_add_signed(bytes));
        self.changed_users.insert(user, total);
        Ok(())
    }

    /// Writes what has changed. Users with nothing pending are forgotten.
    pub(in crate::buffer) fn close(mut self) -> Result<(), redb::Error> {
        for (name, value) in self.changed {
            self.counters.insert(name, value)?;
        }
        for (user, total) in self.changed_users {
            if total.0 > 0 {
                self.users.open()?.insert(user, total)?;
            } else {
                self.users.open()?.remove(user)?;
            }
        }
        Ok(())
    }
}
