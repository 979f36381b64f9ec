//! Preparing a file that was opened: tables are made if it is new, those of another format are refused,
//! and a damaged WAL is emptied.

use redb::{Database, ReadableDatabase, TableError};

use super::intake::Intake;
use super::totals::Totals;
use crate::buffer::disk::file::BufferFile;
use crate::buffer::format::layout::{
    CHECKPOINT, COUNTERS, FORMAT, FORMAT_KEY, WAL_GENERATION, WAL_LAID,
};
use crate::buffer::wal::file::Wal;
use crate::buffer::wal::salvage::{State, look_through};
use crate::buffer::wal::tail::{Mark, Tail};

/// What came of preparing a file.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::buffer) enum Prepared {
    /// It can be used, with its WAL.
    Ready,
    /// The paths lead to other files, or will.
    OtherFiles,
    /// Its tables are of another format than [`FORMAT`].
    OtherFormat(u64),
}

/// Makes the tables of a new file, and empties a WAL that is damaged. `spare` bytes may be used for a
/// WAL.
pub(in crate::buffer) fn prepare(
    file: &BufferFile,
    database: &Database,
    wal: &Wal,
    spare: u64,
) -> Result<Prepared, redb::Error> {
    let mut is_missing = false;
    if let Some((found, mark, is_laid)) = state(database)? {
        if found != FORMAT {
            return Ok(Prepared::OtherFormat(found));
        }
        is_missing = is_laid && !wal.is_laid()?;
        if look_through(wal, mark).0 == State::Sound && !is_missing {
            return Ok(Prepared::Ready);
        }
    }
    let transaction = database.begin_write()?;
    // To who waited while the file was repaired, the WAL of the new one would be foreign.
    if !file.is_in_place() || !wal.is_in_place() {
        transaction.abort()?;
        return Ok(Prepared::OtherFiles);
    }
    let mut totals = Totals::open(&transaction)?;
    let found = totals.counter(FORMAT_KEY)?;
    let mark = mark(|name| totals.counter(name))?;
    if found == 0 {
        totals.set(FORMAT_KEY, FORMAT);
    }
    totals.close()?;
    // Another process may have been first.
    if found != 0 && found != FORMAT {
        transaction.abort()?;
        return Ok(Prepared::OtherFormat(found));
    }
    match look_through(wal, mark).0 {
        State::Sound if is_missing => {
            tracing::error!(
                "the write-ahead log is missing, or cut off: what was in it alone is lost"
            );
        }
        State::Sound => {}
        State::Damaged => {
            tracing::error!(
                "the buffer's write-ahead log is damaged: what can be read of it is taken over"
            );
        }
        State::Foreign => {
            wal.put_aside()?;
            transaction.abort()?;
            return Ok(Prepared::OtherFiles);
        }
    }
    let mut intake = Intake::open(&transaction, wal, Tail::default())?;
    intake.checkpoint()?.make()?;
    wal.lay(spare);
    intake.begin_wal();
    intake.close()?;
    transaction.commit()?;
    Ok(Prepared::Ready)
}

/// The file's format, which tail it has, and whether there may be something in a WAL; none if it has
/// just been made.
fn state(database: &Database) -> Result<Option<(u64, Mark, bool)>, redb::Error> {
    let counters = match database.begin_read()?.open_table(COUNTERS) {
        Ok(counters) => counters,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let counter = |name: &str| Ok(counters.get(name)?.map_or(0, |value| value.value()));
    Ok(Some((counter(FORMAT_KEY)?, mark(counter)?, counter(WAL_LAID)? > 0)))
}

fn mark(counter: impl Fn(&str) -> Result<u64, redb::Error>) -> Result<Mark, redb::Error> {
    Ok(Mark { generation: counter(WAL_GENERATION)?, from: counter(CHECKPOINT)? })
}
