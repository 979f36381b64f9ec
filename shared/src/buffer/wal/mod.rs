//! The write-ahead log (WAL): the newest operations, which no table tells of yet.

pub(in crate::buffer) mod file;
pub(in crate::buffer) mod frame;
pub(in crate::buffer) mod salvage;
pub(in crate::buffer) mod tail;
