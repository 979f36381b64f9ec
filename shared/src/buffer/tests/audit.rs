//! The agreement of all tables, and damage done on purpose.

use redb::ReadableTable;

use super::super::*;

/// Fails if anything is wrong with the file.
pub(super) async fn check(buffer: &Buffer) {
    let found = buffer.verify().await.unwrap();
    assert_eq!(found.problems, Vec::<String>::new());
}

/// Flips a bit of the record at `place`.
pub(super) async fn flip(buffer: &Buffer, place: u64, offset: usize) {
    buffer
        .write(move |tables, _| {
            let mut bytes = tables.records.get(place).unwrap().unwrap().value().to_vec();
            bytes[offset] ^= 4;
            tables.records.insert(place, bytes.as_slice()).unwrap();
            Ok(())
        })
        .await
        .unwrap();
}
