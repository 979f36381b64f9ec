//! Sealing everything in the file with the newest key, while it is in use. Each transaction looks at
//! a limited number of records, so that other writers get their turn in between; places, order and
//! attempts stay as they are.

use std::ops::Bound;
use std::sync::Arc;

use redb::ReadableTable;
use thiserror::Error;

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::error::BufferError;
use crate::buffer::format::keys::Keys;
use crate::buffer::format::layout::{decode_dead, encode_dead};
use crate::buffer::format::record::{self, unix_millis};
use crate::buffer::tables::Tables;
use crate::buffer::tables::audit::{ActKind, note};

/// Records that one transaction looks at.
const CHUNK: usize = 500;

/// Why nothing, or not everything, was sealed anew.
#[derive(Debug, Error)]
pub enum RekeyError {
    /// There is no key to seal with.
    #[error("BUFFER_KEYS is not set: there is no key to seal with")]
    NoKeys,
    /// The file cannot be used. What was sealed anew stays so.
    #[error(transparent)]
    Buffer(#[from] BufferError),
}

/// What came of sealing everything with the newest key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rekeyed {
    /// Records looked at.
    pub seen: u64,
    /// Pending operations that were sealed anew.
    pub pending: u64,
    /// Dead letters that were sealed anew.
    pub dead: u64,
    /// Records that could not be read and were left as they are.
    pub unreadable: u64,
}

impl Buffer {
    /// Seals every pending operation and dead letter with the newest key, then makes the old bytes
    /// unreadable in the file. Tells `progress` how many records have been looked at.
    ///
    /// # Errors
    /// Without keys, or if the file cannot be used.
    pub async fn rekey(&self, by: &str, progress: impl Fn(u64)) -> Result<Rekeyed, RekeyError> {
        if self.keys.newest().is_none() {
            return Err(RekeyError::NoKeys);
        }
        let mut done = Rekeyed::default();
        let mut after = Some(Bound::Unbounded);
        while let Some(from) = after {
            let keys = Arc::clone(&self.keys);
            let work = move |tables: &mut Tables<'_>| rekey_pending(tables, &keys, from);
            after = self.chunk(work).await?.add_to(&mut done, |done| &mut done.pending);
            progress(done.seen);
        }
        let mut after = Some(Bound::Unbounded);
        while let Some(from) = after {
            let keys = Arc::clone(&self.keys);
            let work = move |tables: &mut Tables<'_>| rekey_dead(tables, &keys, from);
            after = self.chunk(work).await?.add_to(&mut done, |done| &mut done.dead);
            progress(done.seen);
        }
        let by = by.to_owned();
        self.chunk(move |tables| note(tables, unix_millis(), &by, ActKind::Rekey, None)).await?;
        self.scrub().await?;
        Ok(done)
    }
}

/// What one transaction did, and where the next goes on.
struct Part<K> {
    seen: u64,
    sealed: u64,
    unreadable: u64,
    after: Option<Bound<K>>,
}

impl<K> Part<K> {
    fn add_to(
        self,
        done: &mut Rekeyed,
        kind: impl Fn(&mut Rekeyed) -> &mut u64,
    ) -> Option<Bound<K>> {
        done.seen += self.seen;
        *kind(done) += self.sealed;
        done.unreadable += self.unreadable;
        self.after
    }
}

fn rekey_pending(
    tables: &mut Tables<'_>,
    keys: &Keys,
    from: Bound<u64>,
) -> Result<Part<u64>, BufferError> {
    let mut part = Part { seen: 0, sealed: 0, unreadable: 0, after: None };
    let mut found = Vec::new();
    for entry in tables.records.range((from, Bound::Unbounded))?.take(CHUNK) {
        let (place, bytes) = entry?;
        part.seen += 1;
        part.after = Some(Bound::Excluded(place.value()));
        if record::key_id(bytes.value()) != keys.newest() {
            found.push((place.value(), record::decode(place.value(), bytes.value(), keys)));
        }
    }
    for (place, read) in found {
        let Ok((header, operation)) = read else {
            part.unreadable += 1;
            continue;
        };
        let payload = record::encode_payload(&operation, keys)?;
        tables.replace(place, &header, &record::encode(place, &header, &payload))?;
        part.sealed += 1;
    }
    Ok(part)
}

fn rekey_dead(
    tables: &mut Tables<'_>,
    keys: &Keys,
    from: Bound<(i64, u128)>,
) -> Result<Part<(i64, u128)>, BufferError> {
    let mut part = Part { seen: 0, sealed: 0, unreadable: 0, after: None };
    let mut found = Vec::new();
    for entry in tables.dead.open()?.range((from, Bound::Unbounded))?.take(CHUNK) {
        let (key, bytes) = entry?;
        part.seen += 1;
        part.after = Some(Bound::Excluded(key.value()));
        let read = decode_dead(bytes.value());
        if read.as_ref().is_ok_and(|(_, record)| record::key_id(record) == keys.newest()) {
            continue;
        }
        let read = read.and_then(|(certificate, bytes)| {
            Ok((record::decode(certificate.place, bytes, keys)?, certificate))
        });
        found.push((key.value(), read));
    }
    for (key, read) in found {
        let Ok(((header, operation), certificate)) = read else {
            part.unreadable += 1;
            continue;
        };
        let payload = record::encode_payload(&operation, keys)?;
        let record = record::encode(certificate.place, &header, &payload);
        tables.dead.open()?.insert(key, encode_dead(&certificate, &record).as_slice())?;
        part.sealed += 1;
    }
    Ok(part)
}
