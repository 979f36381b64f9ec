//! How a damaged file's indexes and counters differ from those that were made anew from its records.

use redb::{Key, ReadableDatabase, ReadableTableMetadata, TableDefinition, Value};

use super::recover::Recovery;
use crate::buffer::disk::walk::Pair;
use crate::buffer::format::layout::{
    BY_PRIORITY, BYTES, COUNTERS, DEAD, DEAD_COUNT, IDS, LANE_STATES, LANES, LaneState, PENDING,
    QUARANTINE, QUARANTINED, READY, REVOKED_UNTIL, USER_TOTALS, USERS, WAITING,
};
use crate::guard::guarded;

impl Recovery<'_> {
    /// How many rows of the indexes, and counters, were not what they are now.
    pub(super) fn compare(&self) -> Result<u64, redb::Error> {
        let exactly = |old: &[u8], new: &[u8]| old == new;
        let but_for_newest = |old: &[u8], new: &[u8]| {
            let decoded = |bytes: &[u8]| bytes.try_into().ok().map(LaneState::decode);
            let state = |bytes| decoded(bytes).map(|it| LaneState { newest: 0, ..it }.encode());
            state(old) == state(new)
        };
        let mut wrong = self.differing(LANES, exactly)?
            + self.differing(LANE_STATES, but_for_newest)?
            + self.differing(READY, exactly)?
            + self.differing(WAITING, exactly)?
            + self.differing(IDS, exactly)?
            + self.differing(USERS, exactly)?
            + self.differing(USER_TOTALS, exactly)?
            + self.differing(REVOKED_UNTIL, exactly)?;
        let read = self.target.begin_read()?;
        let counters = read.open_table(COUNTERS)?;
        for name in [PENDING, BYTES].into_iter().chain(BY_PRIORITY) {
            let now = counters.get(name)?.map_or(0, |value| value.value());
            wrong += u64::from(now != self.counter(name));
        }
        let dead = read.open_table(DEAD)?.len()?;
        let quarantined = read.open_table(QUARANTINE)?.len()?;
        wrong += u64::from(dead != self.counter(DEAD_COUNT));
        Ok(wrong + u64::from(quarantined != self.counter(QUARANTINED)))
    }

    fn differing<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
        is_same: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Result<u64, redb::Error> {
        let now = self.target.begin_read()?.open_table(table)?;
        let (mut wrong, mut same) = (0, 0);
        let tree = self.states[0].0.get(redb::TableHandle::name(&table));
        if let Some(tree) = tree.filter(|tree| tree.is_of(K::fixed_width(), V::fixed_width())) {
            self.pages.walk(tree, &mut |pair: Pair<'_>| {
                let found = guarded(|| now.get(K::from_bytes(pair.key)));
                let found = found.map_err(redb::Error::Corrupted)??;
                let now = found.as_ref().map(|value| value.value());
                let is_same =
                    now.is_some_and(|now| is_same(pair.value, V::as_bytes(&now).as_ref()));
                if is_same {
                    same += 1
                } else {
                    wrong += 1
                }
                Ok::<(), redb::Error>(())
            })?;
        }
        Ok(wrong + now.len()?.saturating_sub(same))
    }
}
