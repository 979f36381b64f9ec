//! What operators do with the buffer: list, retry and discard operations, pause replay, read the audit
//! log, verify the file, encrypt it anew, and erase users.

pub(in crate::buffer) mod acts;
pub(in crate::buffer) mod agreement;
pub(in crate::buffer) mod audit;
pub(in crate::buffer) mod erase;
pub(in crate::buffer) mod lists;
pub(in crate::buffer) mod rekey;
pub(in crate::buffer) mod scrub;
pub(in crate::buffer) mod verify;
