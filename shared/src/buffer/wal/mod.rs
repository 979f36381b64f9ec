//! The write-ahead log (WAL): it holds the newest operations until a checkpoint moves them into the
//! tables. An append to it is durable once its frame is synced. `file` describes the format.

pub(in crate::buffer) mod file;
pub(in crate::buffer) mod frame;
pub(in crate::buffer) mod salvage;
pub(in crate::buffer) mod tail;
