//! Opening the file: its tables are made if it is new, and those of an earlier format brought to this
//! one.

use std::panic::catch_unwind;

use redb::{Database, ReadableDatabase, ReadableTable, TableError, WriteTransaction};

use super::file::{BufferFile, OpenError};
use super::layout::{BYTES, COUNTERS, FORMAT, FORMAT_KEY, INDEXED, PENDING, RECORDS};
use super::tables::{Tables, signed};
use super::tail::Tail;
use super::totals::Totals;
use crate::settings::BufferSettings;

/// The counter of formats 1 and 2 that had the place after the last record.
const NEXT_PLACE: &str = "next_place";

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
    // Another process may have been first.
    let found = take_over(&transaction)?;
    let mut tables = Tables::open(&transaction, Tail::default())?;
    tables.make()?;
    tables.close()?;
    transaction.commit()?;
    Ok(found.max(FORMAT))
}

/// Brings the counters of an earlier format to this one. Returns the format before.
fn take_over(transaction: &WriteTransaction) -> Result<u64, redb::Error> {
    let mut totals = Totals::open(transaction)?;
    let found = totals.counter(FORMAT_KEY)?;
    if found < 3 {
        let next = totals.counter(NEXT_PLACE)?;
        if found < 2 {
            totals.set(INDEXED, next);
        }
        let records = transaction.open_table(RECORDS)?;
        for entry in records.range(totals.counter(INDEXED)?..next)? {
            totals.add(PENDING, -1)?;
            totals.add(BYTES, -signed(entry?.1.value().len()))?;
        }
    }
    if found < FORMAT {
        totals.set(FORMAT_KEY, FORMAT);
    }
    totals.close()?;
    Ok(found)
}

/// The file's format; `None` for one that has just been made.
fn format(database: &Database) -> Result<Option<u64>, redb::Error> {
    match database.begin_read()?.open_table(COUNTERS) {
        Ok(counters) => Ok(counters.get(FORMAT_KEY)?.map(|value| value.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
