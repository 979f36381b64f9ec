//! The buffer's files on their filesystem: who may open them, the clock slots, and redb's pages as plain
//! bytes.

pub(in crate::buffer) mod file;
pub(in crate::buffer) mod marks;
pub(in crate::buffer) mod open_error;
pub(in crate::buffer) mod page_file;
pub(in crate::buffer) mod pages;
pub(in crate::buffer) mod private;
pub(in crate::buffer) mod walk;
