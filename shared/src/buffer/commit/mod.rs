//! The buffer as one process has it open: one thread that writes, by group commit, and a few threads
//! that read.

mod attempt;
pub(in crate::buffer) mod buffer;
pub(in crate::buffer) mod job;
pub(in crate::buffer) mod old_copy;
pub(in crate::buffer) mod open;
pub(in crate::buffer) mod orders;
pub(in crate::buffer) mod readers;
mod requests;
pub(in crate::buffer) mod snapshot;
mod upkeep;
pub(in crate::buffer) mod writer;
