//! Versions that this host knows of and that none of its clocks may reach: those of entities that were
//! served or written with a version from far ahead, which does not drag the clocks along. A later edit of
//! such an entity is given a version past it (`append`), by whichever process of the host takes it.
//!
//! There are none as long as the clocks of hosts differ by less than [`MAX_AHEAD_MS`]. An entry is of no
//! use any more once the wall clock has come past it.
//!
//! [`MAX_AHEAD_MS`]: crate::domain::MAX_AHEAD_MS

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::error::BufferError;
use crate::buffer::format::layout::AHEAD_COUNT;
use crate::domain::{Lane, Version};

impl Buffer {
    /// Remembers the versions of entities for all processes of the host, across restarts.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn remember_ahead(&self, seen: Vec<(Lane, Version)>) -> Result<(), BufferError> {
        self.write(move |tables, _| Ok(tables.remember_all(seen.iter().copied())?)).await
    }

    /// Forgets what this host's clocks have come past by now.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn forget_overtaken(&self) -> Result<(), BufferError> {
        let [known] = self.read(|snapshot| snapshot.counters([AHEAD_COUNT])).await?;
        if known == 0 {
            return Ok(());
        }
        self.write(|tables, _| Ok(tables.forget_overtaken()?)).await
    }
}
