//! Whether the buffer file is an older copy of itself, with its log, that was put back.
//!
//! How far the file has come, the generation of its log, stands beside it as well (`marks`): the writer
//! notes each one that a commit has begun. A file that is behind what was noted has been further. A file
//! made anew has another number, and one that was repaired has a later generation.
//!
//! What was noted is never lowered for the same file, so each start tells of the copy until it has come
//! as far. PostgreSQL knows it too, as of the last heartbeat, also when the whole folder was put back.

use std::path::Path;

use super::Buffer;
use super::log::is_of_same_file;
use super::marks::Marks;
use super::snapshot::Opened;

use crate::metric;

/// Whether an opened file has been further than it is; tells so.
pub(super) fn look(path: &Path, opened: &Opened, marks: &Marks) -> bool {
    // In this order: others note what is in the file by then.
    let noted = marks.generation();
    let now = super::guarded(|| opened.generation());
    let is_old =
        noted.zip(now.ok()).is_some_and(|(noted, now)| is_of_same_file(noted, now) && noted > now);
    if is_old {
        tell(path);
    }
    is_old
}

/// Tells that the file is an older copy of itself.
fn tell(path: &Path) {
    metrics::counter!(metric::BUFFER_ROLLBACKS.name).increment(1);
    tracing::error!(
        path = %path.display(),
        "the buffer file is an older copy of itself: what was accepted after the copy was made and not \
         replayed by then is lost here. If the newer files (the buffer and its .log) still exist, stop \
         all processes on the buffer and put both back; else ask clients to check what they were \
         answered 202 for since the copy was made"
    );
}

impl Buffer {
    /// True if the file was an older copy of itself when it was opened.
    #[must_use]
    pub fn is_old_copy(&self) -> bool {
        self.is_old_copy
    }

    /// Tells that the file is an older copy of itself, as somebody else knows.
    pub fn tell_of_old_copy(&self) {
        tell(&self.settings.buffer_path);
    }
}
