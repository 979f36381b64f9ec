//! Repair: builds a new buffer file from what can be read of a damaged one.

pub(in crate::buffer) mod anew;
pub(in crate::buffer) mod aside;
pub(in crate::buffer) mod compare;
mod derive;
pub(in crate::buffer) mod error;
pub(in crate::buffer) mod missing;
pub(in crate::buffer) mod read_out;
pub(in crate::buffer) mod recover;
pub(in crate::buffer) mod rows;
pub(in crate::buffer) mod turn;
