//! The log: the newest operations, which no table tells of yet.

pub(in crate::buffer) mod frame;
pub(in crate::buffer) mod log;
pub(in crate::buffer) mod salvage;
pub(in crate::buffer) mod tail;
