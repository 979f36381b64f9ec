//! Reads whole tables and checks that they agree with one another.

use std::collections::{BTreeMap, BTreeSet};

use redb::ReadableTable;

use super::super::layout::*;
use super::super::record::{self, Header};
use super::super::*;

/// Fails if the tables do not agree.
pub(super) async fn check(buffer: &Buffer) {
    buffer
        .read(|transaction| {
            audit(transaction);
            Ok(())
        })
        .await
        .unwrap();
}

fn audit(transaction: &ReadTransaction) {
    let mut lanes: BTreeMap<[u8; 17], Vec<(u64, Header)>> = BTreeMap::new();
    let (mut users, mut places, mut bytes) = (BTreeMap::new(), BTreeMap::new(), 0);
    let mut pending = 0;
    for entry in transaction.open_table(RECORDS).unwrap().iter().unwrap() {
        let (place, record) = entry.unwrap();
        let (place, record) = (place.value(), record.value());
        let (header, _) = record::decode(place, record).unwrap();
        lanes.entry(record::lane_bytes(header.lane)).or_default().push((place, header));
        *users.entry(header.user_id.as_u128()).or_insert(0_u64) += 1;
        places.insert(header.id.as_uuid().as_u128(), place);
        bytes += record.len() as u64;
        pending += 1;
    }
    let counters = transaction.open_table(COUNTERS).unwrap();
    let counter = |name: &str| counters.get(name).unwrap().map_or(0, |value| value.value());
    assert_eq!((counter(PENDING), counter(BYTES)), (pending, bytes), "counters");
    let dead = transaction.open_table(DEAD).unwrap();
    assert_eq!(counter(DEAD_COUNT), dead.iter().unwrap().count() as u64, "dead");
    let totals: BTreeMap<u128, u64> = all(&transaction.open_table(USER_TOTALS).unwrap());
    assert_eq!(totals, users, "users");
    for (id, place) in all(&transaction.open_table(PLACES).unwrap()) {
        match Place::decode(place).unwrap() {
            Place::Pending(place) => assert_eq!(places.remove(&id), Some(place)),
            Place::Dead(at) => assert!(dead.get((at, id)).unwrap().is_some()),
            Place::Quarantined(_) => {}
        }
    }
    assert!(places.is_empty(), "records without a place");
    indexes(transaction, lanes);
}

/// Checks the order of lanes and where replay finds them.
fn indexes(transaction: &ReadTransaction, lanes: BTreeMap<[u8; 17], Vec<(u64, Header)>>) {
    let ordered: BTreeSet<([u8; 17], u64)> = transaction
        .open_table(LANES)
        .unwrap()
        .iter()
        .unwrap()
        .map(|entry| {
            let (key, _) = entry.unwrap();
            (*key.value().0, key.value().1)
        })
        .collect();
    let expected =
        lanes.iter().flat_map(|(lane, of)| of.iter().map(move |(place, _)| (*lane, *place)));
    assert_eq!(ordered, expected.collect(), "order of lanes");
    let (mut ready, mut waiting) = (BTreeSet::new(), BTreeSet::new());
    let states = transaction.open_table(LANE_STATES).unwrap();
    assert_eq!(states.iter().unwrap().count(), lanes.len(), "states of lanes");
    for (lane, of) in &lanes {
        let state = LaneState::decode(states.get(lane).unwrap().unwrap().value());
        let (head, header) = of[0];
        assert_eq!((state.head, state.queued_at), (head, header.queued_at));
        assert_eq!(state.not_before, header.not_before);
        let urgent = of.iter().map(|(_, header)| header.priority).max().unwrap();
        assert_eq!(state.priority(), urgent);
        if header.not_before > 0 {
            waiting.insert((header.not_before, head));
        } else {
            ready.insert((crate::domain::MAX_PRIORITY - urgent, head));
        }
    }
    let keys = all(&transaction.open_table(READY).unwrap()).into_keys().collect::<BTreeSet<_>>();
    assert_eq!(keys, ready, "ready");
    let keys = all(&transaction.open_table(WAITING).unwrap()).into_keys().collect::<BTreeSet<_>>();
    assert_eq!(keys, waiting, "waiting");
}

fn all<K, V, OwnedK: Ord, OwnedV>(table: &impl ReadableTable<K, V>) -> BTreeMap<OwnedK, OwnedV>
where
    K: redb::Key + 'static,
    V: redb::Value + 'static,
    for<'a> K::SelfType<'a>: Into<OwnedK>,
    for<'a> V::SelfType<'a>: IntoOwned<OwnedV>,
{
    table
        .iter()
        .unwrap()
        .map(|entry| {
            let (key, value) = entry.unwrap();
            (key.value().into(), value.value().into_owned())
        })
        .collect()
}

trait IntoOwned<T> {
    fn into_owned(self) -> T;
}

impl IntoOwned<u64> for u64 {
    fn into_owned(self) -> u64 {
        self
    }
}

impl IntoOwned<(u8, u64)> for (u8, u64) {
    fn into_owned(self) -> (u8, u64) {
        self
    }
}

impl<const N: usize> IntoOwned<()> for &[u8; N] {
    fn into_owned(self) {}
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
