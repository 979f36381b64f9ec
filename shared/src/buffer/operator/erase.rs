//! Erasing a user: every operation of theirs leaves the file, each with a trace without its payload,
//! and what was written of them, now or long ago, is no longer readable in it.

use std::ops::Bound;
use std::sync::Arc;

use redb::ReadableTable;
use uuid::Uuid;

use crate::buffer::commit::buffer::Buffer;
use crate::buffer::error::BufferError;
use crate::buffer::format::keys::Keys;
use crate::buffer::format::layout::{DEAD_COUNT, QUARANTINED, Whereabouts, decode_dead};
use crate::buffer::format::record::{self, Header, unix_millis};
use crate::buffer::tables::audit::{ActKind, ActedOn, note};
use crate::buffer::tables::{Tables, header_at};
use crate::domain::{EntityKind, Lane};

/// Operations that one transaction removes.
const CHUNK: usize = 500;
/// Dead letters, or records in quarantine, that one transaction looks at.
const LOOK_AT: usize = 2000;
/// How often everything is looked through, at the most: until nothing is found.
const ROUNDS: usize = 100;
/// Why an erased operation is answered as discarded.
const REASON: &str = "erased";

/// How many operations one transaction erased, and where the next goes on.
type Part<K> = (u64, Option<Bound<K>>);

/// How many operations of a user were erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Pending ones.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// Damaged ones whose header names the user.
    pub quarantined: u64,
}

impl Erased {
    fn all(self) -> u64 {
        self.pending + self.dead + self.quarantined
    }
}

impl Buffer {
    /// Erases a user's operations, those that come in meanwhile included, and makes what was
    /// written of them unreadable in the file. It may be called again after an error, and goes on.
    /// The whole file is rewritten, in many short transactions.
    ///
    /// # Errors
    /// If the file cannot be written, if more and more operations come in, or if another process
    /// goes on reading an old state of the file for a minute.
    pub async fn erase_user(&self, user_id: Uuid, by: &str) -> Result<Erased, BufferError> {
        let mut erased = Erased::default();
        for _ in 0..ROUNDS {
            let before = erased.all();
            self.erase_pending(user_id, by, &mut erased.pending).await?;
            self.erase_dead(user_id, by, &mut erased.dead).await?;
            self.erase_quarantined(user_id, by, &mut erased.quarantined).await?;
            if erased.all() == before {
                self.scrub().await?;
                return Ok(erased);
            }
        }
        Err(BufferError::Unavailable("the user's operations keep coming in".to_owned()))
    }

    async fn erase_pending(
        &self,
        user: Uuid,
        by: &str,
        count: &mut u64,
    ) -> Result<(), BufferError> {
        loop {
            let (by, keys) = (by.to_owned(), Arc::clone(&self.keys));
            let work = move |tables: &mut Tables<'_>| pending(tables, &keys, user, &by);
            let erased = self.chunk(work).await?;
            *count += erased;
            if erased == 0 {
                return Ok(());
            }
        }
    }

    async fn erase_dead(&self, user: Uuid, by: &str, count: &mut u64) -> Result<(), BufferError> {
        let mut after = Some(Bound::Unbounded);
        while let Some(from) = after {
            let (by, keys) = (by.to_owned(), Arc::clone(&self.keys));
            let work = move |tables: &mut Tables<'_>| dead(tables, &keys, user, &by, from);
            let (erased, next) = self.chunk(work).await?;
            *count += erased;
            after = next;
        }
        Ok(())
    }

    async fn erase_quarantined(
        &self,
        user: Uuid,
        by: &str,
        count: &mut u64,
    ) -> Result<(), BufferError> {
        let mut after = Some(Bound::Unbounded);
        while let Some(from) = after {
            let by = by.to_owned();
            let work = move |tables: &mut Tables<'_>| quarantined(tables, user, &by, from);
            let (erased, next) = self.chunk(work).await?;
            *count += erased;
            after = next;
        }
        Ok(())
    }
}

fn pending(tables: &mut Tables<'_>, keys: &Keys, user: Uuid, by: &str) -> Result<u64, BufferError> {
    let key = user.as_u128();
    let mut places = Vec::new();
    for entry in tables.users.open()?.range((key, 0)..=(key, u64::MAX))? {
        let place = entry?.0.value().1;
        // What an admin has ordered for others, and what the cache is to do, holds no content of
        // theirs, and must take effect.
        let for_others = header_at(&tables.records, place)?.is_some_and(|header| {
            header.lane.kind == EntityKind::Profile && header.lane.id != user
                || header.lane == Lane::CACHE
        });
        if !for_others {
            places.push(place);
        }
        if places.len() == CHUNK {
            break;
        }
    }
    let erased = count(places.len());
    for (place, record) in tables.remove_all(places)? {
        if let Some(acted_on) = acted_on(place, &record, keys) {
            leave_trace(tables, acted_on, by)?;
        }
    }
    Ok(erased)
}

fn dead(
    tables: &mut Tables<'_>,
    keys: &Keys,
    user: Uuid,
    by: &str,
    from: Bound<(i64, u128)>,
) -> Result<Part<(i64, u128)>, BufferError> {
    let (mut next, mut found) = (None, Vec::new());
    for entry in tables.dead.open()?.range((from, Bound::Unbounded))?.take(LOOK_AT) {
        let (key, bytes) = entry?;
        next = Some(Bound::Excluded(key.value()));
        let Ok((certificate, record)) = decode_dead(bytes.value()) else { continue };
        found.extend(
            acted_on(certificate.place, record, keys)
                .filter(|acted_on| acted_on.user_id == user)
                .map(|acted_on| (key.value(), acted_on)),
        );
    }
    let erased = count(found.len());
    for (key, acted_on) in found {
        tables.dead.open()?.remove(key)?;
        tables.totals.add(DEAD_COUNT, -1)?;
        leave_trace(tables, acted_on, by)?;
    }
    Ok((erased, next))
}

fn quarantined(
    tables: &mut Tables<'_>,
    user: Uuid,
    by: &str,
    from: Bound<u64>,
) -> Result<Part<u64>, BufferError> {
    let (mut next, mut found) = (None, Vec::new());
    for entry in tables.quarantine.open()?.range((from, Bound::Unbounded))?.take(LOOK_AT) {
        let (place, bytes) = entry?;
        next = Some(Bound::Excluded(place.value()));
        let header = Header::decode(place.value(), bytes.value()).ok();
        found.extend(
            header
                .filter(|header| header.user_id == user)
                .map(|header| (place.value(), ActedOn::unread(&header, REASON))),
        );
    }
    let erased = count(found.len());
    for (place, acted_on) in found {
        tables.quarantine.open()?.remove(place)?;
        tables.totals.add(QUARANTINED, -1)?;
        leave_trace(tables, acted_on, by)?;
    }
    Ok((erased, next))
}

/// What the trace says: of a record that cannot be opened, what its header tells.
fn acted_on(place: u64, record: &[u8], keys: &Keys) -> Option<ActedOn> {
    match record::decode(place, record, keys) {
        Ok((_, operation)) => Some(ActedOn::read(&operation, REASON)),
        Err(_) => Header::decode(place, record).ok().map(|header| ActedOn::unread(&header, REASON)),
    }
}

fn leave_trace(tables: &mut Tables<'_>, acted_on: ActedOn, by: &str) -> Result<(), BufferError> {
    let now = unix_millis();
    tables.ids.open()?.insert(acted_on.id.as_u128(), Whereabouts::Discarded(now).encode())?;
    note(tables, now, by, ActKind::Erase, Some(acted_on))
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
