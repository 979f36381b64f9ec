//! Ending what has been kept long enough.

use std::collections::HashSet;

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::error::BufferError;
use crate::buffer::format::record::unix_millis;
use crate::buffer::tables::audit::purge_audit;
use crate::domain::Lane;

/// Changes that one transaction makes at the most when something is swept.
const SWEEP: usize = 1000;

impl Buffer {
    /// Makes dead letters of operations queued before `cutoff` (Unix milliseconds), a limited
    /// number at a time, sparing the lanes in `busy`. Returns how many there were.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn expire(&self, cutoff: i64, busy: HashSet<Lane>) -> Result<usize, BufferError> {
        self.write(move |tables, room| {
            let spared = |lane: Lane| busy.contains(&lane);
            Ok(tables.expire(cutoff, unix_millis(), room.most(SWEEP), &spared)?)
        })
        .await
    }

    /// Ends the retention of entries of the audit log from before `cutoff` (Unix milliseconds), a
    /// limited number at a time. Returns how many there were.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn purge_audit(&self, cutoff: i64) -> Result<usize, BufferError> {
        self.write(move |tables, room| Ok(purge_audit(tables, cutoff, room.most(SWEEP))?)).await
    }

    /// Ends the retention of dead letters from before `cutoff` (Unix milliseconds), a limited
    /// number at a time. Returns how many there were.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn purge_dead(&self, cutoff: i64) -> Result<usize, BufferError> {
        self.write(move |tables, room| Ok(tables.purge_dead(cutoff, room.most(SWEEP))?)).await
    }
}
