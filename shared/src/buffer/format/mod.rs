//! What stands in the files: records, keys, tables, and the numbers that name them.

pub(in crate::buffer) mod damage;
pub(in crate::buffer) mod entry;
pub(in crate::buffer) mod generation;
pub(in crate::buffer) mod keys;
pub(in crate::buffer) mod layout;
pub(in crate::buffer) mod record;
