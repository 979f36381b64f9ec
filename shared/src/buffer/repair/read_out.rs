//! Reading out what is left of a buffer file that cannot be opened, without changing it.

use std::fs::File;
use std::path::Path;

use tempfile::TempDir;

use super::anew::recover;
use super::error::{RepairError, Repaired};
use crate::buffer::disk::open_error::OpenError;
use crate::buffer::disk::pages::Pages;
use crate::buffer::disk::private::private_folder;
use crate::buffer::format::keys::Keys;
use crate::buffer::wal::file::Wal;
use crate::guard::guarded;
use crate::settings::BufferSettings;

/// What can be read of a buffer file that may not be opened, in a new one that is removed with this.
#[derive(Debug)]
pub struct Salvaged {
    /// Settings with which the new file is opened.
    pub settings: BufferSettings,
    /// What it has, and what was wrong.
    pub found: Repaired,
    _folder: TempDir,
}

/// Reads what can be had of a file, and of the WAL beside it, whatever state they are in. Neither is
/// changed. The settings give the keys.
///
/// # Errors
/// If the file cannot be read at all, or there is no room for the new one (in `TMPDIR`).
pub fn salvage(path: &Path, settings: &BufferSettings) -> Result<Salvaged, RepairError> {
    let keys = Keys::parse(settings.buffer_keys.as_ref()).map_err(OpenError::from)?;
    let folder = tempfile::tempdir()?;
    let settings = BufferSettings {
        buffer_path: folder.path().join("data/buffer.redb"),
        buffer_min_free_bytes: 0,
        ..settings.clone()
    };
    let (pages, wal) = (Pages::new(File::open(path)?)?, Wal::existing(path)?);
    private_folder(&settings.buffer_path)?;
    let cache = settings.buffer_cache_bytes;
    let target = &settings.buffer_path;
    let recovered = guarded(|| recover(&pages, wal.as_ref(), target, cache, &keys, |_| Ok(())));
    let recovered = recovered.unwrap_or_else(|place| Err(redb::Error::Corrupted(place).into()))?;
    Ok(Salvaged { settings, found: Repaired::of(recovered), _folder: folder })
}
