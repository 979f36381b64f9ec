//! The table of versions from far ahead (see `buffer/ahead.rs`).

use redb::ReadableTable;
use uuid::Uuid;

use super::{Tables, signed};
use crate::buffer::format::layout::AHEAD_COUNT;
use crate::buffer::format::record::{Header, lane_bytes};
use crate::domain::{HybridTime, Lane, Version};
use crate::metric;

/// Entities at the most. What comes when there are as many is not remembered.
const MOST: u64 = 100_000;

impl Tables<'_> {
    /// The version from far ahead that an entity is known to have, if it is.
    pub(super) fn ahead(&mut self, lane: &[u8; 17]) -> Result<Option<Version>, redb::Error> {
        if self.totals.counter(AHEAD_COUNT)? == 0 {
            return Ok(None);
        }
        let found = self.ahead.open()?.get(lane)?.map(|version| version.value());
        Ok(found.map(|version| Version::from_uuid(Uuid::from_u128(version))))
    }

    /// Remembers the versions of operations that leave the buffer because they have taken effect: no
    /// lane tells of them any more. `reached` is what the clocks of this host exceed by themselves.
    pub(in crate::buffer) fn remember_settled(
        &mut self,
        records: &[(u64, Vec<u8>)],
        reached: HybridTime,
    ) -> Result<(), redb::Error> {
        let headers = records.iter().filter_map(|(place, record)| {
            Header::decode(*place, record).ok().filter(|header| header.id.time() > reached)
        });
        self.remember_all(headers.map(|header| (header.lane, header.id)))
    }

    pub(in crate::buffer) fn remember_all(
        &mut self,
        versions: impl Iterator<Item = (Lane, Version)>,
    ) -> Result<(), redb::Error> {
        let mut versions = versions.peekable();
        // To look through all of them takes long: once for many.
        if versions.peek().is_some() && self.totals.counter(AHEAD_COUNT)? >= MOST {
            self.forget_overtaken()?;
        }
        versions.try_for_each(|(lane, version)| self.remember_ahead(lane, version))
    }

    fn remember_ahead(&mut self, lane: Lane, version: Version) -> Result<(), redb::Error> {
        let (lane, version) = (lane_bytes(lane), version.as_uuid().as_u128());
        let before = self.ahead.open()?.get(&lane)?.map(|known| known.value());
        if before.is_some_and(|known| known >= version) {
            return Ok(());
        }
        if before.is_none() {
            if self.totals.counter(AHEAD_COUNT)? >= MOST {
                metrics::counter!(metric::CLOCK_AHEAD_FORGOTTEN.name).increment(1);
                return Ok(());
            }
            self.totals.add(AHEAD_COUNT, 1)?;
        }
        self.ahead.open()?.insert(&lane, version)?;
        Ok(())
    }

    pub(in crate::buffer) fn forget_overtaken(&mut self) -> Result<(), redb::Error> {
        if self.totals.counter(AHEAD_COUNT)? == 0 {
            return Ok(());
        }
        let (now, mut gone) = (HybridTime::now(), 0);
        self.ahead.open()?.retain(|_, version| {
            let stays = Version::from_uuid(Uuid::from_u128(version)).time() >= now;
            gone += usize::from(!stays);
            stays
        })?;
        self.totals.add(AHEAD_COUNT, -signed(gone))
    }
}
