//! What an operator may see and do.

pub(in crate::buffer) mod acts;
pub(in crate::buffer) mod audit;
pub(in crate::buffer) mod erase;
pub(in crate::buffer) mod lists;
pub(in crate::buffer) mod rekey;
pub(in crate::buffer) mod scrub;
pub(in crate::buffer) mod verify;
