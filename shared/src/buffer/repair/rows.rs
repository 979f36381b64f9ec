//! Rows on their way into a new file: a limited number of them, and of bytes, in a transaction.

use redb::{Database, Key, ReadableTable, TableDefinition, Value};

use crate::buffer::format::layout::{QUARANTINE, RECORDS};
use crate::buffer::format::record::Header;
use crate::guard::guarded;

/// Rows that one transaction puts into the new file, and their bytes, about.
pub(super) const ROWS: usize = 10_000;
const ROW_BYTES: usize = 8 << 20;

type Row = (Vec<u8>, Vec<u8>);

/// Rows on their way into a table.
#[derive(Default)]
pub(in crate::buffer) struct Rows {
    rows: Vec<Row>,
    bytes: usize,
}

impl Rows {
    pub(in crate::buffer) fn push(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.rows.push((key, value));
    }

    pub(super) fn are_many(&self) -> bool {
        self.rows.len() >= ROWS || self.bytes >= ROW_BYTES
    }

    pub(in crate::buffer) fn take(&mut self) -> Vec<Row> {
        std::mem::take(self).rows
    }
}

/// Puts rows into a table, those whose keys are not there yet.
pub(in crate::buffer) fn put<K: Key + 'static, V: Value + 'static>(
    target: &Database,
    table: TableDefinition<'static, K, V>,
    rows: Vec<Row>,
) -> Result<(), redb::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let transaction = target.begin_write()?;
    {
        let mut table = transaction.open_table(table)?;
        for (key, value) in &rows {
            // A name that is no text, say.
            guarded(|| {
                if table.get(K::from_bytes(key))?.is_none() {
                    table.insert(K::from_bytes(key), V::from_bytes(value))?;
                }
                Ok::<(), redb::StorageError>(())
            })
            .unwrap_or(Ok(()))?;
        }
    }
    Ok(transaction.commit()?)
}

/// Records on their way into the new file: what is sound into `records`, the rest into quarantine.
#[derive(Default)]
pub(in crate::buffer) struct Kept {
    rows: Vec<(u64, Vec<u8>)>,
    bytes: usize,
    /// The place after the last that was sound.
    pub(in crate::buffer) next: u64,
    /// Records that could not be kept under their own place.
    pub(super) misplaced: u64,
}

impl Kept {
    pub(in crate::buffer) fn push(&mut self, place: u64, record: Vec<u8>) {
        self.bytes += record.len();
        self.rows.push((place, record));
    }

    pub(super) fn put_some(&mut self, target: &Database) -> Result<(), redb::Error> {
        let are_many = self.rows.len() >= ROWS || self.bytes >= ROW_BYTES;
        if are_many { self.put(target) } else { Ok(()) }
    }

    pub(in crate::buffer) fn put(&mut self, target: &Database) -> Result<(), redb::Error> {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let transaction = target.begin_write()?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            let mut quarantine = transaction.open_table(QUARANTINE)?;
            for (place, record) in rows {
                let is_sound = Header::decode(place, &record).is_ok();
                if is_sound && records.get(place)?.is_none() {
                    self.next = self.next.max(place.saturating_add(1));
                    records.insert(place, record.as_slice())?;
                } else if !is_sound {
                    let before = quarantine.get(place)?.map(|before| before.value() == record);
                    match before {
                        Some(true) => {}
                        None => drop(quarantine.insert(place, record.as_slice())?),
                        Some(false) => {
                            self.misplaced += 1;
                            quarantine.insert(u64::MAX - self.misplaced, record.as_slice())?;
                        }
                    }
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

pub(super) fn place_of(key: &[u8]) -> u64 {
    u64::from_le_bytes(key.first_chunk().copied().unwrap_or_default())
}

pub(in crate::buffer) fn u128_of(key: &[u8]) -> u128 {
    u128::from_le_bytes(key.first_chunk().copied().unwrap_or_default())
}

pub(super) fn u128_key(id: u128) -> Vec<u8> {
    id.to_le_bytes().to_vec()
}
