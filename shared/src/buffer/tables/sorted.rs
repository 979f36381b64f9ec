//! Many entries put into a table, or taken out of it, at once and in the order of their keys: redb makes
//! whole pages of what comes into one gap or leaves one range, at a third of the cost of one after the
//! other there.

use std::ops::Bound;

use redb::{CursorError, Key, ReadableTable, StorageError, Table, Value};

use crate::buffer::format::layout::LaneKey;

/// Entries between two that leave a table, over which the scan goes rather than begin again beyond.
const APART: usize = 8;

/// Puts entries into a table. They come in the order of their keys; what has a key that is there
/// already takes the place of what was there.
pub(super) fn insert_sorted<'a, K: Key + 'static, V: Value + 'static>(
    table: &mut Table<'_, K, V>,
    entries: impl IntoIterator<Item = (K::SelfType<'a>, V::SelfType<'a>)>,
) -> Result<(), redb::Error> {
    let mut entries = entries.into_iter();
    let mut next = entries.next();
    while let Some((first, _)) = &next {
        let mut gap = table.lower_bound_mut(Bound::Included(first))?;
        let mut is_taken = true;
        while let Some((key, value)) = &next {
            match gap.insert_before(key, value) {
                Ok(()) => (is_taken, next) = (false, entries.next()),
                Err(CursorError::UnorderedKey) => break,
                Err(error) => return Err(error.into()),
            }
        }
        gap.close()?;
        if let Some((key, value)) = next.take_if(|_| is_taken) {
            table.insert(key, value)?;
            next = entries.next();
        }
    }
    Ok(())
}

/// A key that can be held on its own and compared without being encoded.
pub(in crate::buffer) trait OwnedKey: Key + 'static {
    /// The key, in the order that the table has.
    type Owned: Ord;
    /// What of a table is borrowed, owned.
    fn owned(key: Self::SelfType<'_>) -> Self::Owned;
    /// What is owned, as a table takes it.
    fn lent(key: &Self::Owned) -> Self::SelfType<'_>;
}

macro_rules! owned_as_it_is {
    ($($key:ty),*) => {$(
        impl OwnedKey for $key {
            type Owned = Self;
            fn owned(key: Self) -> Self {
                key
            }
            fn lent(key: &Self) -> Self {
                *key
            }
        }
    )*};
}

owned_as_it_is!(u128, (u8, u64), (u128, u64));

impl OwnedKey for LaneKey {
    type Owned = [u8; 17];
    fn owned(key: &[u8; 17]) -> [u8; 17] {
        *key
    }
    fn lent(key: &[u8; 17]) -> &[u8; 17] {
        key
    }
}

impl OwnedKey for (LaneKey, u64) {
    type Owned = ([u8; 17], u64);
    fn owned((lane, place): (&[u8; 17], u64)) -> Self::Owned {
        (*lane, place)
    }
    fn lent((lane, place): &Self::Owned) -> (&[u8; 17], u64) {
        (lane, *place)
    }
}

/// Takes entries out of a table by their keys, which come in order, each once: those that are there
/// and of which `takes` says so. What lies between them is looked at only where it is little.
pub(super) fn remove_sorted<K: OwnedKey, V: Value + 'static>(
    table: &mut Table<'_, K, V>,
    keys: &[K::Owned],
    mut takes: impl for<'f> FnMut(&K::Owned, V::SelfType<'f>) -> bool,
) -> Result<(), redb::Error> {
    let mut left = keys;
    while !left.is_empty() {
        let (there, passed) = stretch(table, left)?;
        if let [first, ..] = &left[..there] {
            let range = K::lent(first)..=K::lent(&left[there - 1]);
            let mut wanted = left[..there].iter().peekable();
            table.retain_in(range, |key, value| {
                let key = K::owned(key);
                while wanted.next_if(|wanted| **wanted < key).is_some() {}
                let is_wanted = wanted.next_if(|wanted| **wanted == key).is_some();
                !(is_wanted && takes(&key, value))
            })?;
        }
        left = &left[passed..];
    }
    Ok(())
}

/// How many of these keys, from the first, lie near one another in a table, up to the last of them that
/// is there; and how many can be done with then, those that are not there included.
fn stretch<K: OwnedKey, V: Value + 'static>(
    table: &impl ReadableTable<K, V>,
    keys: &[K::Owned],
) -> Result<(usize, usize), StorageError> {
    let (mut there, mut passed, mut between) = (0, 0, 0);
    for entry in table.range(K::lent(&keys[0])..)? {
        let found = K::owned(entry?.0.value());
        passed += keys[passed..].iter().take_while(|key| **key < found).count();
        if keys.get(passed) == Some(&found) {
            passed += 1;
            (there, between) = (passed, 0);
        } else {
            between += 1;
        }
        if passed == keys.len() || between == APART {
            return Ok((there, passed));
        }
    }
    // The others lie beyond the end of the table.
    Ok((there, keys.len()))
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Builder, ReadableTable, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<u128, &str> = TableDefinition::new("table");

    #[test]
    fn entries_come_between_around_and_over_those_that_are_there() {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut table = transaction.open_table(TABLE).unwrap();
        for key in [10, 20, 30, 40] {
            table.insert(key, "old").unwrap();
        }
        let keys = [1, 2, 10, 11, 12, 19, 20, 30, 31, 50, 51, 52];
        insert_sorted(&mut table, keys.map(|key| (key, "new"))).unwrap();
        insert_sorted(&mut table, []).unwrap();
        let entries = table.iter().unwrap().map(|entry| entry.unwrap());
        let entries: Vec<_> = entries.map(|(k, v)| (k.value(), v.value() == "new")).collect();
        let mut expected: Vec<_> = keys.map(|key| (key, true)).into();
        expected.push((40, false));
        expected.sort_unstable();
        assert_eq!(entries, expected);
    }

    #[test]
    fn what_is_there_and_wanted_leaves_and_nothing_else_does() {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut table = transaction.open_table(TABLE).unwrap();
        for key in (0..3000).filter(|key| key % 7 != 3) {
            table.insert(key, if key % 5 == 0 { "kept" } else { "old" }).unwrap();
        }
        // One after the other, near one another, far apart, not there, beyond the end.
        let keys: Vec<u128> = (0..400)
            .chain((400..700).step_by(3))
            .chain((700..2900).step_by(100))
            .chain(2990..3100)
            .collect();
        remove_sorted(&mut table, &keys, |_, value| value == "old").unwrap();
        remove_sorted(&mut table, &[], |_, _| true).unwrap();
        remove_sorted(&mut table, &[5000], |_, _| true).unwrap();
        let left: Vec<u128> = table.iter().unwrap().map(|entry| entry.unwrap().0.value()).collect();
        let leaves = |key: &u128| !key.is_multiple_of(5) && keys.binary_search(key).is_ok();
        let expected: Vec<u128> = (0..3000).filter(|key| key % 7 != 3 && !leaves(key)).collect();
        assert_eq!(left, expected);
    }
}
