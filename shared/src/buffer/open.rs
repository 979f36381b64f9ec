//! Opening the file: its tables are made if it is new, and those of an earlier format brought to this
//! one.

use std::panic::catch_unwind;

use redb::{Database, ReadableDatabase, ReadableTable, TableError};

use super::file::{BufferFile, OpenError};
use super::layout::{COUNTERS, FORMAT, FORMAT_KEY, INDEXED, NEXT_PLACE};
use super::tables::Tables;
use super::tail::Tail;
use super::totals::Totals;
use crate::settings::BufferSettings;

/// Opens the file and makes sure that all tables are there and of a format this program knows.
pub(super) fn open_file(settings: &BufferSettings) -> Result<(BufferFile, Database), OpenError> {
    // redb panics at some kinds of damage.
    catch_unwind(|| open_sound_file(settings))
        .unwrap_or_else(|_| Err(OpenError::Damaged { path: settings.buffer_path.clone() }))
}

fn open_sound_file(settings: &BufferSettings) -> Result<(BufferFile, Database), OpenError> {
    let path = &settings.buffer_path;
    let (file, database) = BufferFile::open(path, settings.buffer_cache_bytes)?;
    let found = prepare(&database)
        .map_err(|error| OpenError::Database { path: path.clone(), source: Box::new(error) })?;
    if found > FORMAT {
        let known = FORMAT;
        return Err(OpenError::NewerFormat { path: path.clone(), found, known });
    }
    Ok((file, database))
}

/// Makes the tables of a new file, and brings those of an earlier format to this one. Returns the
/// file's format.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    if let Some(found) = format(database)?.filter(|found| *found >= FORMAT) {
        return Ok(found);
    }
    let transaction = database.begin_write()?;
    let mut totals = Totals::open(&transaction)?;
    // Another process may have been first.
    let found = totals.counter(FORMAT_KEY)?;
    if found < FORMAT {
        totals.set(INDEXED, totals.counter(NEXT_PLACE)?);
        totals.set(FORMAT_KEY, FORMAT);
    }
    totals.close()?;
    let mut tables = Tables::open(&transaction, Tail::default())?;
    tables.make()?;
    tables.close()?;
    transaction.commit()?;
    Ok(found.max(FORMAT))
}

/// The file's format; `None` for one that has just been made.
fn format(database: &Database) -> Result<Option<u64>, redb::Error> {
    match database.begin_read()?.open_table(COUNTERS) {
        Ok(counters) => Ok(counters.get(FORMAT_KEY)?.map(|value| value.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
