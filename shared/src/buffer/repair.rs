//! Repairing the buffer file while it is in use: a new file is made of what can be read (`recover`) and
//! takes the place of the damaged one.
//!
//! All of it is done with the write turn of the damaged file held, by redb's lock for that and without
//! redb, which may not be able to begin a transaction any more. The paths change places in one step, so
//! a crash leaves the one or the other. Other processes notice that the path leads elsewhere, and
//! open it anew. The log stays where it is: what it had is in the new file, whose generation is later.
//!
//! The damaged file stays beside the new one; [`KEPT`] of them do.

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use redb::StorageBackend;
use redb::backends::FileBackend;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;
use tempfile::TempDir;
use thiserror::Error;
use tokio::sync::oneshot;

use super::audit::{ActKind, note};
use super::file::{
    BufferFile, Located, open_private_in_place, private_folder, sibling, sync_folder,
};
use super::keys::Keys;
use super::layout::FORMAT;
use super::log::Log;
use super::pages::Pages;
use super::recover::{Recovered, Recovery};
use super::{BufferError, OpenError, unix_millis};
use crate::guard::guarded;
use crate::metric;
use crate::settings::BufferSettings;

/// Damaged files that are kept.
pub(super) const KEPT: usize = 3;
/// The byte that redb locks for the write turn (docs/design.md of redb 4.6).
const TURN: u64 = 1 << 62;
/// How long the turn is waited for.
const WAIT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// How the audit log names a repair that nobody asked for.
pub(super) const BY_ITSELF: &str = "holdfast";

/// Repairs under way in this process.
static UNDER_WAY: AtomicU64 = AtomicU64::new(0);

/// Why the buffer file was not repaired.
#[derive(Debug, Error)]
pub enum RepairError {
    /// The operating system refused.
    #[error("the buffer file cannot be repaired: {0}")]
    Io(#[from] io::Error),
    /// Another process has held on to the file for too long.
    #[error("the buffer file cannot be repaired: another process holds on to it")]
    Held,
    /// It was written by another version of the program.
    #[error(
        "the buffer file cannot be repaired: it has format {found}, this program writes {FORMAT}"
    )]
    Format {
        /// The file's format.
        found: u64,
    },
    /// Nothing in it tells which tables it has.
    #[error("the buffer file cannot be repaired: nothing says what is in it")]
    Unknown,
    /// The file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new file could not be made.
    #[error("the buffer file cannot be repaired: {0}")]
    NewFile(Box<redb::Error>),
    /// Nobody carried it out.
    #[error("the buffer file cannot be repaired: {0}")]
    Buffer(#[from] BufferError),
}

impl From<redb::Error> for RepairError {
    fn from(error: redb::Error) -> Self {
        Self::NewFile(Box::new(error))
    }
}

/// What a repair found, and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Tables with pages that cannot be read, or do not match their checksums.
    pub damaged_tables: Vec<String>,
    /// Entries of indexes, and counters, that are not what the records make of them.
    pub wrong_entries: u64,
    /// Pending operations that are there, or would be, afterwards.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// Records in quarantine.
    pub quarantined: u64,
    /// Where the damaged file is now; none if nothing was changed.
    pub kept_as: Option<PathBuf>,
    /// Why the file could not be opened before.
    pub refused: Option<String>,
}

impl Repaired {
    /// Whether there was anything to repair.
    #[must_use]
    pub fn found_damage(&self) -> bool {
        !self.damaged_tables.is_empty() || self.wrong_entries > 0 || self.refused.is_some()
    }

    fn of(recovered: Recovered) -> Self {
        let Recovered { damaged, wrong, pending, dead, quarantined, has_tables: _ } = recovered;
        let (damaged_tables, wrong_entries) = (damaged, wrong);
        let (kept_as, refused) = (None, None);
        Self { damaged_tables, wrong_entries, pending, dead, quarantined, kept_as, refused }
    }
}

/// What is to become of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing: say what would.
    DryRun,
    /// It is repaired if anything is wrong with it.
    IfDamaged,
    /// It is made anew in any case: redb could not work with it.
    Anew,
}

/// A repair that somebody wants.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) mode: Mode,
    pub(super) by: String,
    /// Who waits for it; whoever met damage does not.
    pub(super) reply: Option<oneshot::Sender<Result<Repaired, RepairError>>>,
}

/// Those that the writer has not looked at.
pub(super) type Orders = Arc<Mutex<Vec<Order>>>;

impl Order {
    /// One of a read that met damage.
    pub(super) fn of_reader() -> Self {
        Self { mode: Mode::IfDamaged, by: BY_ITSELF.to_owned(), reply: None }
    }

    pub(super) fn of_operator(
        mode: Mode,
        by: &str,
    ) -> (Self, oneshot::Receiver<Result<Repaired, RepairError>>) {
        let (reply, repaired) = oneshot::channel();
        (Self { mode, by: by.to_owned(), reply: Some(reply) }, repaired)
    }
}

/// Has a repair made with the writer's next turn.
pub(super) fn order(orders: &Orders, order: Order) {
    let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
    // One that nobody waits for is enough.
    if order.reply.is_some() || orders.iter().all(|other| other.reply.is_some()) {
        orders.push(order);
    }
}

/// Whether a repair is under way in this process.
pub(super) fn is_under_way() -> bool {
    UNDER_WAY.load(Ordering::Relaxed) > 0
}

/// Repairs the buffer file at its path. The thread that calls this has no turn to write.
pub(super) fn repair(
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
    let (pages, log) = (Pages::new(file)?, Log::existing(path)?);
    let unfinished = Unfinished(sibling(path, "repairing"));
    let target = &unfinished.0;
    let act =
        |tables: &mut super::Tables<'_>| note(tables, unix_millis(), by, ActKind::Repair, None);
    let recovered = recover(&pages, log.as_ref(), target, settings.buffer_cache_bytes, keys, act)?;
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

/// What can be read of a buffer file that may not be opened, in a new one that is removed with this.
#[derive(Debug)]
pub struct Salvaged {
    /// Settings with which the new file is opened.
    pub settings: BufferSettings,
    /// What it has, and what was wrong.
    pub found: Repaired,
    _folder: TempDir,
}

/// Reads what can be had of a file, and of the log beside it, whatever state they are in. Neither is
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
    let (pages, log) = (Pages::new(File::open(path)?)?, Log::existing(path)?);
    private_folder(&settings.buffer_path)?;
    let cache = settings.buffer_cache_bytes;
    let target = &settings.buffer_path;
    let recovered = guarded(|| recover(&pages, log.as_ref(), target, cache, &keys, |_| Ok(())));
    let recovered = recovered.unwrap_or_else(|place| Err(redb::Error::Corrupted(place).into()))?;
    Ok(Salvaged { settings, found: Repaired::of(recovered), _folder: folder })
}

/// Makes a new file at `target` of what can be read of another.
pub(super) fn recover(
    pages: &Pages,
    log: Option<&Log>,
    target: &Path,
    cache_bytes: usize,
    keys: &Keys,
    finish: impl FnOnce(&mut super::Tables<'_>) -> Result<(), BufferError>,
) -> Result<Recovered, RepairError> {
    remove(target)?;
    remove(&sibling(target, "log"))?;
    let (_file, database) = BufferFile::open(target, cache_bytes)?;
    let target_log = Log::open(target)?;
    let mut recovery = Recovery::new(pages, log, &database, &target_log, keys);
    if let Some(found) = recovery.format().filter(|found| *found > FORMAT) {
        return Err(RepairError::Format { found });
    }
    Ok(recovery.run(finish)?)
}

/// Gives the paths of the damaged file and of the new one to each other, in one step. Returns where the
/// damaged one is now.
pub(super) fn put_in_place(path: &Path, target: &Path) -> Result<PathBuf, RepairError> {
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

/// Moves a file that could not be opened, and its log, out of the way. Returns where it is now; none if
/// the path leads to another one.
pub(super) fn move_aside(path: &Path, file: File) -> Result<Option<PathBuf>, RepairError> {
    let turn = Turn::take(&file)?;
    if !Located::new(path, &file)?.is_in_place() {
        return Ok(None);
    }
    let aside = sibling(path, &format!("damaged.{}", unix_millis()));
    // The log first: a new file must not find it.
    match fs::rename(sibling(path, "log"), sibling(&aside, "log")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs::rename(path, &aside)?,
    }
    sync_folder(path)?;
    drop((turn, file));
    forget_oldest(path);
    Ok(Some(aside))
}

/// Removes the oldest damaged files, with their logs, so that no more than [`KEPT`] are left.
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

/// A new file that has not taken the place of another yet, with its log. Removed when it is dropped.
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

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The turn to write to a file. It ends when this and the file are dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _backend: FileBackend,
}

impl Turn {
    pub(super) fn take(file: &File) -> Result<Self, RepairError> {
        let unusable = |error: redb::DatabaseError| RepairError::from(redb::Error::from(error));
        let started = Instant::now();
        let backend = FileBackend::new(file.try_clone()?).map_err(unusable)?;
        loop {
            let taken = backend.try_lock_range(Bound::Included(TURN), Bound::Included(TURN));
            if taken.map_err(|error| io::Error::other(error.to_string()))? {
                return Ok(Self { _backend: backend });
            }
            if started.elapsed() > WAIT {
                return Err(RepairError::Held);
            }
            thread::sleep(LOOK);
        }
    }
}
