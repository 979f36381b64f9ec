//! Making removed bytes unreadable in the file, while it is in use.
//!
//! redb is copy-on-write. What was removed stays in two kinds of places, and each needs its own
//! remedy:
//!
//! - **Behind the entries of pages in use.** A page that is changed twice in one transaction is
//!   changed in place, and a value replaced by one of the same length takes the whole page along. So
//!   every record is taken out and put in again: taking the first entry out of a committed page
//!   builds a new one, of its other entries alone.
//! - **In free pages.** They are filled: values as large as a page are written until the file has to
//!   grow, which it does only when no page is free. A page is handed out free of what it held.
//!
//! The WAL is overwritten behind its last frame: what was removed from the tables was in an earlier
//! generation.
//!
//! A page becomes free when no process reads a state of the file in which it was used. That this is
//! so is tested with a sentinel: a page of random bytes that is written after everything else was
//! removed, removed itself, and must not be found in the file afterwards.
//!
//! Every transaction is short, and other writers have their turn in between. A crash leaves filler,
//! which the next run removes.

use std::fs::File;
use std::io::Read;
use std::ops::Bound;
use std::path::Path;
use std::time::Duration;

use redb::{ReadableTable, Table};

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::commit::job::{OnFullDisk, Room};
use crate::buffer::error::BufferError;
use crate::buffer::format::layout::Bytes;
use crate::buffer::tables::Tables;
use crate::buffer::tables::intake::Intake;

/// Entries that one transaction takes out and puts in again, at the most.
const ENTRIES: usize = 500;
/// Bytes that one transaction writes, about.
const CHUNK_BYTES: usize = 4 << 20;
/// The size of redb's pages.
const PAGE: usize = 4096;
/// What a page with one entry of the table needs besides the value: four bytes of head, the key, and
/// the end of the value.
const PAGE_OVERHEAD: usize = 4 + 8 + 4;
/// Pages written after the file has grown: single pages that were freed in that very transaction are
/// handed out before larger runs are split.
const AFTERWARDS: usize = 64;
/// Commits before the filling, and the pause between two: what is removed is free after the second,
/// unless somebody reads the state before it.
const SETTLING: (usize, Duration) = (4, Duration::from_millis(20));
/// Pauses before the free pages are filled once more, because somebody still read an old state of
/// the file. Each time the file may double.
const PAUSES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(25)];
/// How often a chunk is tried whose turn did not come in time.
const TRIES: usize = 10;
/// Commits that may shrink the file: each gives back half of the free pages at its end.
const SHRINKS: usize = 64;

impl Buffer {
    /// Makes everything that has been removed from the file unreadable in it.
    pub(in crate::buffer) async fn scrub(&self) -> Result<(), BufferError> {
        // One at a time: each would take the other's filler away.
        let _turn = self.scrubbing.lock().await;
        self.drop_filler().await?;
        self.rebuild(|tables| Ok(&mut tables.records)).await?;
        self.rebuild(|tables| tables.dead.open()).await?;
        self.rebuild(|tables| tables.quarantine.open()).await?;
        self.retried(wipe_wal).await?;
        let sentinel = self.plant_sentinel().await?;
        let mut pauses = PAUSES.into_iter();
        while !self.fill(&sentinel).await? {
            let Some(pause) = pauses.next() else {
                let problem = "a process goes on reading an old state of the file";
                return Err(BufferError::Unavailable(problem.to_owned()));
            };
            tokio::time::sleep(pause).await;
        }
        self.shrink().await
    }

    /// Makes a change in a transaction of its own request, and tries again if its turn does not come
    /// in time: a long job must not end because the file is busy once.
    pub(in crate::buffer) async fn chunk<T, F>(&self, work: F) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: Fn(&mut Tables<'_>) -> Result<T, BufferError> + Clone + Send + 'static,
    {
        self.retried(move |intake| work(intake.checkpoint()?)).await
    }

    async fn retried<T, F>(&self, work: F) -> Result<T, BufferError>
    where
        T: Send + 'static,
        F: Fn(&mut Intake<'_>) -> Result<T, BufferError> + Clone + Send + 'static,
    {
        let once = |work: F| {
            let work = move |intake: &mut Intake<'_>, _: &Room| work(intake);
            self.take_in(work, OnFullDisk::MakeRoom)
        };
        for _ in 1..TRIES {
            match once(work.clone()).await {
                Err(BufferError::Timeout) => {}
                settled => return settled,
            }
        }
        once(work).await
    }

    /// Takes out every entry of a table and puts it in again.
    async fn rebuild<K>(
        &self,
        table: impl for<'a, 'txn> Fn(
            &'a mut Tables<'txn>,
        ) -> Result<&'a mut Table<'txn, K, Bytes>, redb::Error>
        + Copy
        + Send
        + 'static,
    ) -> Result<(), BufferError>
    where
        K: redb::Key + for<'a> redb::Value<SelfType<'a> = K> + Copy + Send + 'static,
    {
        let mut after = Some(Bound::Unbounded);
        while let Some(from) = after {
            after = self.chunk(move |tables| rebuild(table(tables)?, from)).await?;
        }
        Ok(())
    }

    /// Writes a page of random bytes and removes it again, in two transactions.
    async fn plant_sentinel(&self) -> Result<Vec<u8>, BufferError> {
        let mut sentinel = vec![0; PAGE - PAGE_OVERHEAD];
        getrandom::fill(&mut sentinel)
            .map_err(|error| BufferError::Unavailable(error.to_string()))?;
        let planted = sentinel.clone();
        self.chunk(move |tables| {
            tables.scrub.open()?.insert(u64::MAX, planted.as_slice())?;
            Ok(())
        })
        .await?;
        self.chunk(|tables| {
            tables.scrub.open()?.remove(u64::MAX)?;
            Ok(())
        })
        .await?;
        Ok(sentinel)
    }

    /// Fills all free pages and frees them again; says whether the sentinel's was among them.
    async fn fill(&self, sentinel: &[u8]) -> Result<bool, BufferError> {
        let (commits, pause) = SETTLING;
        for _ in 0..commits {
            self.chunk(|_| Ok(())).await?;
            tokio::time::sleep(pause).await;
        }
        let (mut next, mut grown) = (0, false);
        while !grown {
            let path = self.settings.buffer_path.clone();
            (next, grown) = self.chunk(move |tables| fill(tables, &path, next)).await?;
        }
        let afterwards = move |tables: &mut Tables<'_>| {
            (next..).take(AFTERWARDS).try_for_each(|number| insert_filler(tables, number))
        };
        self.chunk(afterwards).await?;
        let (path, wanted) = (self.settings.buffer_path.clone(), sentinel.to_vec());
        let found = tokio::task::spawn_blocking(move || contains(&path, &wanted)).await;
        self.drop_filler().await?;
        match found {
            Ok(Ok(found)) => Ok(!found),
            Ok(Err(error)) => Err(BufferError::Unavailable(error.to_string())),
            Err(_) => Err(BufferError::Unavailable("the file was not looked through".to_owned())),
        }
    }

    async fn drop_filler(&self) -> Result<(), BufferError> {
        let pages = CHUNK_BYTES / PAGE;
        loop {
            let removed = self
                .chunk(move |tables| {
                    let last = tables
                        .scrub
                        .open()?
                        .range::<u64>(..)?
                        .rev()
                        .take(pages)
                        .last()
                        .transpose()?;
                    let Some(first) = last.map(|(key, _)| key.value()) else { return Ok(false) };
                    tables.scrub.open()?.retain_in(first.., |_, _| false)?;
                    Ok(true)
                })
                .await?;
            if !removed {
                return Ok(());
            }
        }
    }

    /// Lets redb give back the free end of the file.
    async fn shrink(&self) -> Result<(), BufferError> {
        let path = &self.settings.buffer_path;
        let (mut length, mut unchanged) = (length_of(path)?, 0);
        for _ in 0..SHRINKS {
            self.chunk(|_| Ok(())).await?;
            let now = length_of(path)?;
            unchanged = if now < length { 0 } else { unchanged + 1 };
            length = now;
            if unchanged == 3 {
                break;
            }
        }
        Ok(())
    }
}

/// Overwrites what earlier generations have left in the WAL, behind what there is of this one.
fn wipe_wal(intake: &mut Intake<'_>) -> Result<(), BufferError> {
    intake.checkpoint()?;
    intake.wipe_wal().map_err(|error| BufferError::Unavailable(error.to_string()))
}

fn rebuild<K>(
    table: &mut Table<'_, K, Bytes>,
    from: Bound<K>,
) -> Result<Option<Bound<K>>, BufferError>
where
    K: redb::Key + for<'a> redb::Value<SelfType<'a> = K> + Copy + 'static,
{
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for entry in table.range((from, Bound::<K>::Unbounded))?.take(ENTRIES) {
        let (key, value) = entry?;
        bytes += value.value().len();
        entries.push((key.value(), value.value().to_vec()));
        if bytes >= CHUNK_BYTES {
            break;
        }
    }
    for (key, _) in &entries {
        table.remove(key)?;
    }
    for (key, value) in &entries {
        table.insert(key, value.as_slice())?;
    }
    Ok(entries.last().map(|(key, _)| Bound::Excluded(*key)))
}

/// Writes filler, a limited amount; says with which number to go on and whether the file has grown.
fn fill(tables: &mut Tables<'_>, path: &Path, first: u64) -> Result<(u64, bool), BufferError> {
    let before = length_of(path)?;
    for number in (first..).take(CHUNK_BYTES / PAGE) {
        insert_filler(tables, number)?;
        if length_of(path)? > before {
            return Ok((number + 1, true));
        }
    }
    Ok((first + (CHUNK_BYTES / PAGE) as u64, false))
}

fn insert_filler(tables: &mut Tables<'_>, number: u64) -> Result<(), BufferError> {
    tables.scrub.open()?.insert(number, [0; PAGE - PAGE_OVERHEAD].as_slice())?;
    Ok(())
}

fn length_of(path: &Path) -> Result<u64, BufferError> {
    let meta = std::fs::metadata(path);
    Ok(meta.map_err(|error| BufferError::Unavailable(error.to_string()))?.len())
}

/// Whether a file contains these bytes.
fn contains(path: &Path, wanted: &[u8]) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let mut page = vec![0; PAGE];
    // Pages begin at multiples of their size, and a page with one entry ends with its value.
    loop {
        match file.read_exact(&mut page) {
            Ok(()) if page.ends_with(wanted) => return Ok(true),
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
