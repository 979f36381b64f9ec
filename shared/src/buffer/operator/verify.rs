//! Checking a whole buffer file while it is in use: every record, the agreement of all tables, and the checksums
//! of the pages as the disk has them. What redb keeps in memory may be from before they were damaged.

use std::convert::Infallible;
use std::fmt::Display;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use redb::{ReadTransaction, ReadableDatabase};

use super::agreement::{Verification, check};
use crate::buffer::commit::buffer::Buffer;
use crate::buffer::commit::writer::Handle;
use crate::buffer::disk::pages::Pages;
use crate::buffer::disk::private::open_private_existing;
use crate::buffer::disk::walk::{Pair, Trees};
use crate::buffer::error::BufferError;

/// After how many entries progress is told.
const STEP: u64 = 1000;

impl Buffer {
    /// Checks the whole file, while others read and write. Tells `progress` how many entries of tables have
    /// had their pages checked.
    ///
    /// Nothing is copied. Records and tables are checked in one state of redb's; then the checksums of pages
    /// in one state that stays as it is on the disk (`Pinned`). Pages that are freed meanwhile are not
    /// used again before the end, so the file may grow.
    ///
    /// # Errors
    /// If the file cannot be read at all.
    pub async fn verify(
        &self,
        progress: impl Fn(u64) + Send + 'static,
    ) -> Result<Verification, BufferError> {
        let keys = Arc::clone(&self.keys);
        let checking = self.read_to_the_end(move |snapshot| check(snapshot, Some(&keys)));
        let checked = checking.await;
        let mut found = match checked {
            Err(BufferError::Damaged(problem)) => {
                let mut found = Verification::default();
                found.wrong(format!("the tables cannot be read: {problem}"));
                found
            }
            checked => checked?,
        };
        let (path, handle) = (self.settings().buffer_path.clone(), Arc::clone(&self.handle));
        let pinned = self.at_turn(move || Pinned::take(&path, &handle)).await?;
        let damaged = tokio::task::spawn_blocking(move || pinned.damaged_trees(progress)).await;
        let unchecked = |_| BufferError::Unavailable("the pages were not checked".to_owned());
        for tree in damaged.map_err(unchecked)? {
            found.wrong(format!("{tree}: a page cannot be read, or fails its integrity check"));
        }
        Ok(found)
    }

    /// Checks that the indexes agree with the headers of the records, in the state that there is now.
    ///
    /// # Errors
    /// If the file cannot be read at all.
    pub async fn check_indexes(&self) -> Result<Verification, BufferError> {
        self.read_to_the_end(move |snapshot| check(snapshot, None)).await
    }
}

/// A state of the file whose pages stay as they are: redb uses no page again that belonged to a state which
/// a reader of any process may see, or to a later one.
struct Pinned {
    pages: Pages,
    trees: Trees,
    damaged: Vec<String>,
    _reader: ReadTransaction,
}

impl Pinned {
    /// Pins the state that there is now, and checks the books that redb keeps. The caller holds the write turn.
    fn take(path: &Path, handle: &Handle) -> Result<Self, BufferError> {
        let unavailable = |error: &dyn Display| BufferError::Unavailable(error.to_string());
        let opened = Arc::clone(&handle.read().unwrap_or_else(PoisonError::into_inner));
        let reader = opened.database.begin_read().map_err(|error| unavailable(&error))?;
        let file = open_private_existing(path).map_err(|error| unavailable(&error))?;
        let pages = Pages::new(file).map_err(|error| unavailable(&error))?;
        let (trees, damaged) = pages.damaged_books();
        Ok(Self { pages, trees, damaged, _reader: reader })
    }

    /// Which trees do not match their checksums.
    fn damaged_trees(self, progress: impl Fn(u64)) -> Vec<String> {
        let (mut damaged, mut seen) = (self.damaged, 0_u64);
        for (name, tree) in &self.trees {
            let mut count = |_: Pair<'_>| {
                seen += 1;
                if seen.is_multiple_of(STEP) {
                    progress(seen);
                }
                Ok::<(), Infallible>(())
            };
            if self.pages.walk(tree, &mut count) != Ok(true) {
                damaged.push(name.clone());
            }
        }
        damaged.sort_unstable();
        damaged
    }
}
