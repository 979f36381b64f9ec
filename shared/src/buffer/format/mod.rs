//! The formats of the buffer's files: records and their encryption, tables, and the numbers of the WAL's
//! generations.

pub(in crate::buffer) mod damage;
pub(in crate::buffer) mod entry;
pub(in crate::buffer) mod generation;
pub(in crate::buffer) mod keys;
pub(in crate::buffer) mod layout;
pub(in crate::buffer) mod record;
