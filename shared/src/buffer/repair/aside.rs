//! The damaged file and the new one change places; damaged ones are kept beside it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::error::RepairError;
use super::turn::Turn;
use crate::buffer::disk::file::Located;
use crate::buffer::disk::private::{sibling, sync_folder};
use crate::buffer::format::record::unix_millis;

/// Damaged files that are kept.
const KEPT: usize = 3;

/// Gives the paths of the damaged file and of the new one to each other, in one step. Returns where the
/// damaged one is now.
pub(in crate::buffer) fn put_in_place(path: &Path, target: &Path) -> Result<PathBuf, RepairError> {
    File::open(target)?.sync_all()?;
    // First, so that nothing is left where a filesystem cannot do it.
    renameat_with(CWD, target, CWD, path, RenameFlags::EXCHANGE).map_err(io::Error::from)?;
    let mut aside = sibling(path, &format!("damaged.{}", unix_millis()));
    if let Err(error) = fs::rename(target, &aside) {
        tracing::error!(%error, "the damaged file keeps the name of an unfinished one");
        aside = target.to_owned();
    }
    sync_folder(path)?;
    forget_oldest(path);
    Ok(aside)
}

/// Moves a file that could not be opened, and its WAL, out of the way. Returns where it is now; none if
/// the path leads to another one.
pub(in crate::buffer) fn move_aside(
    path: &Path,
    file: File,
) -> Result<Option<PathBuf>, RepairError> {
    let turn = Turn::take(&file)?;
    if !Located::new(path, &file)?.is_in_place() {
        return Ok(None);
    }
    let aside = sibling(path, &format!("damaged.{}", unix_millis()));
    // The WAL first: a new file must not find it.
    match fs::rename(sibling(path, "log"), sibling(&aside, "log")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs::rename(path, &aside)?,
    }
    sync_folder(path)?;
    drop((turn, file));
    forget_oldest(path);
    Ok(Some(aside))
}

/// Removes the oldest damaged files, with their WALs, so that no more than [`KEPT`] are left.
fn forget_oldest(path: &Path) {
    let prefix = sibling(path, "damaged.");
    let Some(prefix) = prefix.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
        return;
    };
    let Some(entries) = path.parent().and_then(|folder| fs::read_dir(folder).ok()) else { return };
    let mut kept: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.strip_prefix(&prefix)?.parse().ok()?, entry.path()))
        })
        .collect();
    kept.sort_unstable();
    let many = kept.len().saturating_sub(KEPT);
    for (_, old) in kept.into_iter().take(many) {
        for path in [sibling(&old, "log"), old] {
            if let Err(error) = remove(&path) {
                tracing::warn!(%error, path = %path.display(), "an old damaged file stays");
            }
        }
    }
}

pub(in crate::buffer) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
