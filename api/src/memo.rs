//! Answers to the same question, kept: for questions of which there are few.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{PoisonError, RwLock};

/// What was worked out before. It is never forgotten, so the keys must not be a client's to choose.
#[derive(Debug)]
pub struct Memo<K, V>(RwLock<HashMap<K, V>>);

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memo<K, V> {
    /// The value of a key, worked out if it was not before.
    pub fn of(&self, key: K, work_out: impl FnOnce(&K) -> V) -> V {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        known.unwrap_or_else(|| {
            let value = work_out(&key);
            self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, value.clone());
            value
        })
    }
}
