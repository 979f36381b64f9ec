//! Preparing a file that was opened: tables are made if it is new, those of an earlier format are brought
//! to this one, and a damaged log is emptied.

use redb::{Database, ReadableDatabase, ReadableTable, TableError, WriteTransaction};

use super::totals::Totals;
use super::{Tables, signed};
use crate::buffer::disk::file::BufferFile;
use crate::buffer::format::layout::{
    BYTES, COUNTERS, FORMAT, FORMAT_KEY, INDEXED, LOG_GENERATION, LOG_LAID, PENDING, RECORDS,
};
use crate::buffer::wal::log::Log;
use crate::buffer::wal::salvage::{State, look_through};
use crate::buffer::wal::tail::{Mark, Tail};

/// The counter of formats 1 and 2 that had the place after the last record.
const NEXT_PLACE: &str = "next_place";

/// What came of preparing a file.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::buffer) enum Prepared {
    /// It can be used, with its log.
    Ready,
    /// The paths lead to other files, or will.
    OtherFiles,
    /// It was written by a newer program.
    NewerFormat(u64),
}

/// Makes the tables of a new file, brings those of an earlier format to this one, and empties a log that
/// is damaged. `spare` bytes may be used for a log.
pub(in crate::buffer) fn prepare(
    file: &BufferFile,
    database: &Database,
    log: &Log,
    spare: u64,
) -> Result<Prepared, redb::Error> {
    let mut is_missing = false;
    if let Some((found, mark, is_laid)) = state(database)? {
        if found > FORMAT {
            return Ok(Prepared::NewerFormat(found));
        }
        is_missing = is_laid && !log.is_laid()?;
        let (state, _) = look_through(log, mark);
        if found == FORMAT && state == State::Sound && !is_missing {
            return Ok(Prepared::Ready);
        }
    }
    let transaction = database.begin_write()?;
    // To who waited while the file was repaired, the log of the new one would be foreign.
    if !file.is_in_place() || !log.is_in_place() {
        transaction.abort()?;
        return Ok(Prepared::OtherFiles);
    }
    // Another process may have been first.
    let (found, mark) = take_over(&transaction)?;
    if found > FORMAT {
        transaction.abort()?;
        return Ok(Prepared::NewerFormat(found));
    }
    match look_through(log, mark).0 {
        State::Sound if is_missing => {
            tracing::error!("the log is missing, or cut off: what was in it alone is lost");
        }
        State::Sound => {}
        State::Damaged => {
            tracing::error!("the buffer's log is damaged: what can be read of it is taken over");
        }
        State::Foreign => {
            log.put_aside()?;
            transaction.abort()?;
            return Ok(Prepared::OtherFiles);
        }
    }
    let mut tables = Tables::open(&transaction, log, Tail::default())?;
    tables.make()?;
    if found < FORMAT {
        take_unindexed(&mut tables)?;
    }
    tables.index(u64::MAX)?;
    log.lay(spare);
    tables.begin_log();
    tables.close()?;
    transaction.commit()?;
    Ok(Prepared::Ready)
}

/// Brings the counters of an earlier format to this one. Returns the format before, and which tail the
/// file had in a log.
fn take_over(transaction: &WriteTransaction) -> Result<(u64, Mark), redb::Error> {
    let mut totals = Totals::open(transaction)?;
    let found = totals.counter(FORMAT_KEY)?;
    let mark = mark(|name| totals.counter(name))?;
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
    Ok((found, mark))
}

/// Makes of what earlier formats had in `records` alone a tail.
fn take_unindexed(tables: &mut Tables<'_>) -> Result<(), redb::Error> {
    let Tables { records, tail, .. } = tables;
    records.retain_in::<u64, _>(tail.next().., |place, record| {
        tail.pad(place);
        tail.push(record.into());
        false
    })?;
    Ok(())
}

/// The file's format, which tail it has, and whether there may be something in a log; none if it has
/// just been made.
fn state(database: &Database) -> Result<Option<(u64, Mark, bool)>, redb::Error> {
    let counters = match database.begin_read()?.open_table(COUNTERS) {
        Ok(counters) => counters,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let counter = |name: &str| Ok(counters.get(name)?.map_or(0, |value| value.value()));
    Ok(Some((counter(FORMAT_KEY)?, mark(counter)?, counter(LOG_LAID)? > 0)))
}

fn mark(counter: impl Fn(&str) -> Result<u64, redb::Error>) -> Result<Mark, redb::Error> {
    Ok(Mark { generation: counter(LOG_GENERATION)?, from: counter(INDEXED)? })
}
