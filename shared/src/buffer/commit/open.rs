//! Opening the file and its WAL: tables are made if the file is new, and the WAL is looked through.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use redb::{ReadTransaction, ReadableDatabase, ReadableTableMetadata};

use super::snapshot::Opened;
use crate::buffer::disk::file::BufferFile;
use crate::buffer::disk::open_error::OpenError;
use crate::buffer::disk::pages::Pages;
use crate::buffer::disk::private::{open_private_existing, open_private_in_place, sibling};
use crate::buffer::error::{Chain, guarded as guarded_redb, is_full};
use crate::buffer::format::keys::Keys;
use crate::buffer::format::layout::{
    COUNTERS, DEAD, DEAD_COUNT, FORMAT, LANE_STATES, LANES, PENDING, QUARANTINE, QUARANTINED,
    READY, RECORDS, REVOKED, REVOKED_UNTIL, USERS, WAITING,
};
use crate::buffer::repair::anew::{BY_ITSELF, Mode, repair};
use crate::buffer::repair::aside::move_aside;
use crate::buffer::repair::error::{RepairError, Repaired};
use crate::buffer::repair::turn::Turn;
use crate::buffer::tables::prepare::{Prepared, prepare};
use crate::buffer::wal::file::Wal;
use crate::guard::guarded;
use crate::settings::BufferSettings;

/// How often the counters' pages are read, while others may be writing, before they are taken for damaged.
const TRIES: usize = 5;
/// How long a file may be empty that another process is making, and how often it is looked at.
const BEING_MADE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(10);

/// What is done with a file that is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::buffer) enum IfDamaged {
    /// Nothing: it is refused.
    Refuse,
    /// It is repaired. One that cannot be is moved aside if the settings say so.
    Repair,
}

/// Opens the file and its WAL, and makes sure that all tables are there and of a format this program
/// knows.
pub(in crate::buffer) fn open_file(
    settings: &BufferSettings,
    if_damaged: IfDamaged,
) -> Result<Arc<Opened>, OpenError> {
    match open_in_place(settings, Checks::All) {
        Err(error) if error.is_damage() && if_damaged == IfDamaged::Repair => {
            tracing::error!(error = %Chain(&error), "the buffer file is damaged: it is repaired");
            repair_and_open(settings, error)
        }
        opened => opened,
    }
}

fn repair_and_open(settings: &BufferSettings, error: OpenError) -> Result<Arc<Opened>, OpenError> {
    let path = &settings.buffer_path;
    match repair_refused(settings, &error, false, BY_ITSELF) {
        Ok(_) => match open_in_place(settings, Checks::Least) {
            Ok(opened) => return Ok(opened),
            Err(error) => {
                tracing::error!(error = %Chain(&error), "it cannot be opened all the same")
            }
        },
        Err(error) => tracing::error!(error = %Chain(&error), "it stays as it is"),
    }
    if !settings.buffer_recreate {
        return Err(error);
    }
    // This very file has to be refused once more: another process may have made it anew meanwhile.
    let file = open_private_in_place(path)?;
    match open_in_place(settings, Checks::All) {
        Err(error) if error.is_damage() => {}
        opened => return opened,
    }
    if let Some(aside) = move_aside(path, file).map_err(|error| at(path, error))? {
        tracing::error!(
            path = %aside.display(),
            "the buffer file cannot be opened and was moved aside (BUFFER_RECREATE): write out what \
             can be read of it with `holdfast-worker buffer salvage`, and take that in with \
             `holdfast-worker buffer import`"
        );
    }
    open_in_place(settings, Checks::Least)
}

/// Repairs a file that was refused for damage, without opening it; with `dry_run` it only says what is
/// wrong.
///
/// # Errors
/// If it cannot be read or written, or nothing in it says what it is.
pub fn repair_refused(
    settings: &BufferSettings,
    refused: &OpenError,
    dry_run: bool,
    by: &str,
) -> Result<Repaired, RepairError> {
    let keys = Keys::parse(settings.buffer_keys.as_ref()).map_err(OpenError::from)?;
    let mode = if dry_run {
        Mode::DryRun
    } else if matches!(refused, OpenError::Disagreeing { .. }) {
        // Only by counts, which may be in order.
        Mode::IfDamaged
    } else {
        // redb cannot work with it.
        Mode::Anew
    };
    let repaired = repair(settings, &keys, mode, by)?;
    Ok(Repaired { refused: Some(Chain(refused).to_string()), ..repaired })
}

fn at(path: &Path, error: RepairError) -> OpenError {
    match error {
        RepairError::Open(error) => error,
        RepairError::Held => OpenError::Held { path: path.to_owned() },
        RepairError::Io(source) => OpenError::Io { path: path.to_owned(), source },
        RepairError::Format { .. }
        | RepairError::Unknown
        | RepairError::NewFile(_)
        | RepairError::Buffer(_) => {
            OpenError::Io { path: path.to_owned(), source: std::io::Error::other(error) }
        }
    }
}

/// As [`open_file`], for a process that has the file open already and repairs it by itself.
pub(super) fn reopen(settings: &BufferSettings) -> Result<Arc<Opened>, OpenError> {
    open_in_place(settings, Checks::Least)
}

/// What is looked at when a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checks {
    /// What redb needs.
    Least,
    /// Also what can be told at once of the agreement of the tables, and the counters' checksum.
    All,
}

fn open_in_place(settings: &BufferSettings, checks: Checks) -> Result<Arc<Opened>, OpenError> {
    let path = &settings.buffer_path;
    let opened = guarded(|| open_sound_file(settings)).unwrap_or_else(|place| {
        tracing::error!(place, "redb met what it does not foresee");
        Err(OpenError::Damaged { path: path.clone() })
    })?;
    let counts = || guarded_redb(|| counts_agree(&opened.database.begin_read()?));
    let agree = || counts().unwrap_or(false);
    if checks == Checks::All && !agree() && !while_nobody_writes(path, |_| Ok(agree()))? {
        return Err(OpenError::Disagreeing { path: path.clone() });
    }
    Ok(opened)
}

/// Whether what a commit relies on matches its checksums, and the counters: they say which WAL belongs to
/// the file, and what of it counts.
pub(in crate::buffer) fn is_built_soundly(path: &Path) -> Result<bool, OpenError> {
    let is_sound = |file| {
        let pages = Pages::new(file);
        let pages = pages.map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        Ok::<bool, OpenError>(pages.has_sound("counters"))
    };
    // Another process may write the header, and to pages of an older state, while they are read.
    for _ in 0..TRIES {
        if is_sound(open_private_existing(path)?)? {
            return Ok(true);
        }
    }
    while_nobody_writes(path, is_sound)
}

/// Looks at a file with its write turn held.
fn while_nobody_writes(
    path: &Path,
    look: impl FnOnce(File) -> Result<bool, OpenError>,
) -> Result<bool, OpenError> {
    let file = open_private_in_place(path)?;
    let _turn = Turn::take(&file).map_err(|error| at(path, error))?;
    look(file.try_clone().map_err(|source| OpenError::Io { path: path.to_owned(), source })?)
}

fn counts_agree(read: &ReadTransaction) -> Result<bool, redb::Error> {
    let counters = read.open_table(COUNTERS)?;
    let counter =
        |name: &str| Ok::<_, redb::Error>(counters.get(name)?.map_or(0, |value| value.value()));
    let pending = counter(PENDING)?;
    let lanes = read.open_table(READY)?.len()? + read.open_table(WAITING)?.len()?;
    Ok(read.open_table(RECORDS)?.len()? == pending
        && read.open_table(LANES)?.len()? == pending
        && read.open_table(USERS)?.len()? == pending
        && read.open_table(LANE_STATES)?.len()? == lanes
        && read.open_table(DEAD)?.len()? == counter(DEAD_COUNT)?
        && read.open_table(QUARANTINE)?.len()? == counter(QUARANTINED)?
        && read.open_table(REVOKED)?.len()? == read.open_table(REVOKED_UNTIL)?.len()?)
}

fn open_sound_file(settings: &BufferSettings) -> Result<Arc<Opened>, OpenError> {
    let path = &settings.buffer_path;
    refuse_emptied(path)?;
    loop {
        let (file, database) = BufferFile::open(path, settings.buffer_cache_bytes)?;
        // What this transaction may read is not written over while it lasts.
        let pinned = guarded_redb(|| Ok(database.begin_read()?));
        if pinned.is_err() || !is_built_soundly(path)? {
            return Err(OpenError::Disagreeing { path: path.clone() });
        }
        drop(pinned);
        let wal = Wal::open(path)?;
        let spare = file.free_bytes().unwrap_or(0);
        let spare = spare.saturating_sub(settings.buffer_min_free_bytes);
        match prepare(&file, &database, &wal, spare) {
            Ok(Prepared::Ready) => return Ok(Opened::new(file, database, wal)),
            Ok(Prepared::OtherFiles) => {}
            Ok(Prepared::OtherFormat(found)) => {
                return Err(OpenError::OtherFormat { path: path.clone(), found, known: FORMAT });
            }
            // After an error redb wants to be opened anew.
            Err(error) if is_full(&error) && file.drop_ballast() => {
                tracing::warn!("disk full: the buffer's ballast was given up to open it");
            }
            Err(error) => {
                return Err(OpenError::Database { path: path.clone(), source: Box::new(error) });
            }
        }
    }
}

/// Refuses a file that once was a buffer and has nothing in it: its WAL or the worker's lock tell so. One
/// that is just being made is empty for a moment.
fn refuse_emptied(path: &Path) -> Result<(), OpenError> {
    let is_empty = || fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == 0);
    let was_used = || ["log", "worker-lock"].iter().any(|it| sibling(path, it).exists());
    let started = Instant::now();
    while is_empty() && was_used() {
        if started.elapsed() > BEING_MADE {
            return Err(OpenError::Emptied { path: path.to_owned() });
        }
        thread::sleep(LOOK);
    }
    Ok(())
}
