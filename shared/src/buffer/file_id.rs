//! What a worker tells other hosts of its buffer file: which one it is, how far it has come, and how old
//! the oldest operation is that it may still bring to PostgreSQL.

use std::collections::HashSet;

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::error::BufferError;
use crate::buffer::format::generation::file_of;
use crate::buffer::format::layout::WAL_GENERATION;
use crate::buffer::format::record::Header;
use crate::domain::Lane;

/// Records that are passed over in the search for the oldest, at the most.
const PASSED_OVER: usize = 10_000;

/// Which buffer file this is, and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// Drawn when the file was made: tells it from others, and copies of it do not differ in it.
    pub file: u32,
    /// Grows whenever the WAL is emptied into the tables: a copy that is put back has an earlier one.
    pub generation: u64,
}

impl Buffer {
    /// Which buffer file this is, and how far it has come.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn file_id(&self) -> Result<FileId, BufferError> {
        self.read(|snapshot| {
            let [generation] = snapshot.counters([WAL_GENERATION])?;
            Ok(FileId { file: file_of(generation), generation })
        })
        .await
    }

    /// When the oldest pending operation on a task was queued (Unix milliseconds), those of the lanes in
    /// `spared` left out. If very many are left out, one of them may be told all the same.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn oldest_task_but(&self, spared: HashSet<Lane>) -> Result<Option<i64>, BufferError> {
        self.read(move |snapshot| {
            for (passed, entry) in snapshot.records()?.from(0)?.enumerate() {
                let (place, record) = entry?;
                let Ok(header) = Header::decode(place, &record) else { continue };
                let counts = header.lane.kind.is_created() && !spared.contains(&header.lane);
                if counts || passed >= PASSED_OVER {
                    return Ok(Some(header.queued_at));
                }
            }
            Ok(None)
        })
        .await
    }
}
