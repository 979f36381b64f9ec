//! The agreement of all tables, and damage done on purpose.

use redb::ReadableTable;

use super::*;

/// Fails if anything is wrong with the file.
pub(super) async fn check(buffer: &Buffer) {
    let found = buffer.verify(|_| ()).await.unwrap();
    assert_eq!(found.problems, Vec::<String>::new());
}

/// Flips a bit of the record at `place`.
pub(super) async fn flip(buffer: &Buffer, place: u64, offset: usize) {
    buffer.write(move |tables, _| flip_at(tables, place, offset)).await.unwrap();
}

fn flip_at(tables: &mut Tables<'_>, place: u64, offset: usize) -> Result<(), BufferError> {
    let mut bytes = tables.records.get(place).unwrap().unwrap().value().to_vec();
    bytes[offset] ^= 4;
    tables.records.insert(place, bytes.as_slice()).unwrap();
    Ok(())
}

/// Asks something of the tail.
pub(super) fn tail<T>(buffer: &Buffer, ask: impl FnOnce(&Tail) -> T) -> T {
    let opened = buffer.handle.read().unwrap().clone();
    ask(&Snapshot::take(&opened).unwrap().tail())
}

/// Brings the tables up to some of the operations in the WAL.
pub(super) fn checkpoint(buffer: &Buffer, most: u64) {
    let opened = buffer.handle.read().unwrap().clone();
    let transaction = opened.database.begin_write().unwrap();
    let mut intake = Intake::open(&transaction, &opened.wal, Tail::default()).unwrap();
    intake.checkpoint_some(most).unwrap();
    intake.close().unwrap();
    transaction.commit().unwrap();
}
