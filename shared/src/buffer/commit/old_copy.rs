//! Whether the buffer file is an older copy of itself, with its WAL, that was put back.
//!
//! How far the file has come, the generation of its WAL, stands beside it as well (`marks`): the writer
//! notes each one that a commit has begun. A file that is behind what was noted has been further. A file
//! made anew has another number, and one that was repaired has a later generation.
//!
//! What was noted is never lowered for the same file, so each start tells of the copy until it has come
//! as far. PostgreSQL knows it too, as of the last heartbeat, also when the whole folder was put back.

use std::path::Path;

use super::snapshot::Opened;
use crate::buffer::disk::marks::Marks;
use crate::buffer::error::guarded;
use crate::buffer::format::generation::is_of_same_file;
use crate::metric;

/// Whether an opened file has been further than it is; tells so.
pub(in crate::buffer) fn look(path: &Path, opened: &Opened, marks: &Marks) -> bool {
    // In this order: others note what is in the file by then.
    let noted = marks.generation();
    let now = guarded(|| opened.generation());
    let is_old =
        noted.zip(now.ok()).is_some_and(|(noted, now)| is_of_same_file(noted, now) && noted > now);
    if is_old {
        tell(path);
    }
    is_old
}

/// Tells that the file is an older copy of itself.
pub(super) fn tell(path: &Path) {
    metrics::counter!(metric::BUFFER_ROLLBACKS.name).increment(1);
    tracing::error!(
        path = %path.display(),
        "the buffer file is an older copy of itself: what was accepted after the copy was made and not \
         replayed by then is lost here. If the newer files (the buffer and its .log) still exist, stop \
         all processes on the buffer and put both back; else ask clients to check what they were \
         answered 202 for since the copy was made"
    );
}
