//! Repairing the buffer file while it is in use: a new file is made of what can be read (`recover`) and
//! takes the place of the damaged one.
//!
//! All of it is done with the write turn of the damaged file held, by redb's lock for that and without
//! redb, which may not be able to begin a transaction any more. The paths change places in one step, so
//! a crash leaves the one or the other. Other processes notice that the path leads elsewhere, and
//! open it anew. The WAL stays where it is: what it had is in the new file, whose generation is later.
//!
//! The damaged file stays beside the new one; a few of them do (`aside`).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::aside::{put_in_place, remove};
use super::error::{RepairError, Repaired};
use super::recover::{Recovered, Recovery};
use super::turn::Turn;
use crate::buffer::disk::file::{BufferFile, Located};
use crate::buffer::disk::pages::Pages;
use crate::buffer::disk::private::{open_private_in_place, sibling};
use crate::buffer::error::BufferError;
use crate::buffer::format::keys::Keys;
use crate::buffer::format::layout::FORMAT;
use crate::buffer::format::record::unix_millis;
use crate::buffer::tables::Tables;
use crate::buffer::tables::audit::{ActKind, note};
use crate::buffer::wal::file::Wal;
use crate::guard::guarded;
use crate::metric;
use crate::settings::BufferSettings;

/// How the audit log names a repair that nobody asked for.
pub(in crate::buffer) const BY_ITSELF: &str = "holdfast";

/// Repairs under way in this process.
static UNDER_WAY: AtomicU64 = AtomicU64::new(0);

/// What is to become of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::buffer) enum Mode {
    /// Nothing: say what would.
    DryRun,
    /// It is repaired if anything is wrong with it.
    IfDamaged,
    /// It is made anew in any case: redb could not work with it.
    Anew,
}

/// Whether a repair is under way in this process.
pub(in crate::buffer) fn is_under_way() -> bool {
    UNDER_WAY.load(Ordering::Relaxed) > 0
}

/// Repairs the buffer file at its path. The thread that calls this has no turn to write.
pub(in crate::buffer) fn repair(
    settings: &BufferSettings,
    keys: &Keys,
    mode: Mode,
    by: &str,
) -> Result<Repaired, RepairError> {
    UNDER_WAY.fetch_add(1, Ordering::Relaxed);
    let repaired = guarded(|| try_repair(settings, keys, mode, by));
    UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    repaired.unwrap_or_else(|place| Err(redb::Error::Corrupted(place).into()))
}

fn try_repair(
    settings: &BufferSettings,
    keys: &Keys,
    mode: Mode,
    by: &str,
) -> Result<Repaired, RepairError> {
    let path = &settings.buffer_path;
    let file = open_private_in_place(path)?;
    let turn = Turn::take(&file)?;
    if !Located::new(path, &file)?.is_in_place() {
        // Another process was first.
        return Ok(Repaired::default());
    }
    let (pages, wal) = (Pages::new(file)?, Wal::existing(path)?);
    let unfinished = Unfinished(sibling(path, "repairing"));
    let target = &unfinished.0;
    let act = |tables: &mut Tables<'_>| note(tables, unix_millis(), by, ActKind::Repair, None);
    let recovered = recover(&pages, wal.as_ref(), target, settings.buffer_cache_bytes, keys, act)?;
    if !recovered.has_tables {
        return Err(RepairError::Unknown);
    }
    let mut repaired = Repaired::of(recovered);
    let swaps = match mode {
        Mode::DryRun => false,
        Mode::IfDamaged => repaired.found_damage(),
        Mode::Anew => true,
    };
    if swaps {
        let aside = put_in_place(path, target)?;
        metrics::counter!(metric::BUFFER_REPAIRS.name).increment(1);
        tracing::error!(
            path = %aside.display(), tables = ?repaired.damaged_tables, by,
            wrong_entries = repaired.wrong_entries, pending = repaired.pending,
            dead = repaired.dead, quarantined = repaired.quarantined,
            "the buffer file was damaged, and made anew from its records: the damaged one is kept"
        );
        repaired.kept_as = Some(aside);
    }
    if repaired.kept_as.as_ref() == Some(&unfinished.0) {
        // What is there now is the damaged file.
        std::mem::forget(unfinished);
    }
    drop(turn);
    Ok(repaired)
}

/// Makes a new file at `target` of what can be read of another.
pub(super) fn recover(
    pages: &Pages,
    wal: Option<&Wal>,
    target: &Path,
    cache_bytes: usize,
    keys: &Keys,
    finish: impl FnOnce(&mut Tables<'_>) -> Result<(), BufferError>,
) -> Result<Recovered, RepairError> {
    remove(target)?;
    remove(&sibling(target, "log"))?;
    let (_file, database) = BufferFile::open(target, cache_bytes)?;
    let mut recovery = Recovery::new(pages, wal, &database, keys);
    if let Some(found) = recovery.format().filter(|found| *found != FORMAT) {
        return Err(RepairError::Format { found });
    }
    Ok(recovery.run(finish)?)
}

/// A new file that has not taken the place of another yet, with its WAL. Removed when it is dropped.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        for path in [&sibling(&self.0, "log"), &self.0] {
            if let Err(error) = remove(path) {
                tracing::warn!(%error, path = %path.display(), "an unfinished file stays");
            }
        }
    }
}
