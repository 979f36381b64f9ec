//! Reading the audit log of the file, and what is noted in it from outside.

use redb::ReadableTable;

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::error::BufferError;
use crate::buffer::format::layout::AUDIT;
use crate::buffer::format::record::unix_millis;
use crate::buffer::tables::audit::{Act, ActKind, note};

impl Buffer {
    /// The latest entries of the audit log, newest first.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn audit(&self, limit: usize) -> Result<Vec<Act>, BufferError> {
        self.read(move |transaction| {
            let audit = transaction.open_table(AUDIT)?;
            let mut acts = Vec::new();
            for entry in audit.iter()?.rev().take(limit) {
                acts.extend(serde_json::from_slice::<Act>(entry?.1.value()).ok());
            }
            Ok(acts)
        })
        .await
    }

    /// Notes in the audit log that operations were taken in that had been written out.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn note_import(&self, by: &str) -> Result<(), BufferError> {
        let by = by.to_owned();
        self.write(move |tables, _| note(tables, unix_millis(), &by, ActKind::Import, None)).await
    }
}
