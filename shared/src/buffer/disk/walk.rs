//! Walks through a tree of redb's pages.

use std::collections::{HashMap, HashSet};

use xxhash_rust::xxh3::xxh3_128;

use super::page_file::{PageFile, u16_of, u32_of, u64_of, u128_of};

/// Levels of a tree at the most, as in redb.
const DEPTH: usize = 128;

/// Where a tree begins, and how wide its keys and values are; none: each has its own length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::buffer) struct Tree {
    pub(super) root: Option<(u64, u128)>,
    pub(in crate::buffer) length: u64,
    key: Option<usize>,
    value: Option<usize>,
}

/// A pair of a tree.
#[derive(Clone, Copy, Debug)]
pub(in crate::buffer) struct Pair<'a> {
    pub(in crate::buffer) key: &'a [u8],
    pub(in crate::buffer) value: &'a [u8],
    /// Whether all pages that lead to it, and its own, match their checksums.
    pub(in crate::buffer) is_sound: bool,
}

/// Trees by the names of their tables.
pub(in crate::buffer) type Trees = HashMap<String, Tree>;

/// A walk through a tree.
pub(super) struct Walk<'a, V> {
    pub(super) pages: &'a PageFile,
    pub(super) tree: &'a Tree,
    pub(super) seen: HashSet<u64>,
    pub(super) pairs: u64,
    pub(super) visit: &'a mut V,
    /// Whether leaves are read, or only branches.
    pub(super) to_the_leaves: bool,
}

impl<V> Walk<'_, V> {
    fn is_leaf(&self, number: u64) -> bool {
        self.pages.page(number).is_some_and(|page| page.first() == Some(&1))
    }

    pub(in crate::buffer) fn page<E>(
        &mut self,
        number: u64,
        check: u128,
        depth: usize,
    ) -> Result<bool, E>
    where
        V: FnMut(Pair<'_>) -> Result<(), E>,
    {
        if depth > DEPTH || !self.seen.insert(number) {
            return Ok(false);
        }
        let Some(page) = self.pages.page(number) else { return Ok(false) };
        match page.first() {
            Some(1) => self.leaf(&page, check),
            Some(2) => self.branch(&page, check, depth),
            _ => Ok(false),
        }
    }

    fn leaf<E>(&mut self, page: &[u8], check: u128) -> Result<bool, E>
    where
        V: FnMut(Pair<'_>) -> Result<(), E>,
    {
        let leaf = Leaf::new(page, self.tree);
        let last = leaf.pairs.checked_sub(1).and_then(|last| leaf.value(last));
        let content = last.and_then(|last| page.get(..last.end));
        let is_sound = content.is_some_and(|content| xxh3_128(content) == check);
        let mut is_whole = is_sound;
        for pair in 0..leaf.pairs {
            let key = leaf.key(pair).and_then(|range| page.get(range));
            let value = leaf.value(pair).and_then(|range| page.get(range));
            let (Some(key), Some(value)) = (key, value) else {
                is_whole = false;
                continue;
            };
            self.pairs += 1;
            (self.visit)(Pair { key, value, is_sound })?;
        }
        Ok(is_whole)
    }

    fn branch<E>(&mut self, page: &[u8], check: u128, depth: usize) -> Result<bool, E>
    where
        V: FnMut(Pair<'_>) -> Result<(), E>,
    {
        let keys = page.get(2..4).map_or(0, |bytes| usize::from(u16_of(bytes)));
        let (checks, children) = (8, 8 + 16 * (keys + 1));
        let ends = children + 8 * (keys + 1);
        let end = match self.tree.key {
            Some(width) => Some(ends + width * keys),
            None if keys == 0 => None,
            None => page.get(ends + 4 * (keys - 1)..ends + 4 * keys).map(|it| u32_of(it) as usize),
        };
        let content = end.and_then(|end| page.get(..end));
        let mut is_whole = content.is_some_and(|content| xxh3_128(content) == check);
        for child in 0..=keys {
            let check = page.get(checks + 16 * child..checks + 16 * (child + 1)).map(u128_of);
            let number = page.get(children + 8 * child..children + 8 * (child + 1)).map(u64_of);
            let (Some(check), Some(number)) = (check, number) else { return Ok(false) };
            // All leaves are equally far from the root.
            if !self.to_the_leaves && self.is_leaf(number) {
                return Ok(is_whole);
            }
            is_whole &= self.page(number, check, depth + 1)?;
        }
        Ok(is_whole)
    }
}

/// A leaf, and where things are in it.
struct Leaf<'a> {
    page: &'a [u8],
    pairs: usize,
    tree: &'a Tree,
}

impl<'a> Leaf<'a> {
    fn new(page: &'a [u8], tree: &'a Tree) -> Self {
        let pairs = page.get(2..4).map_or(0, |bytes| usize::from(u16_of(bytes)));
        Self { page, pairs, tree }
    }

    fn ends(&self, width: Option<usize>) -> usize {
        if width.is_none() { 4 * self.pairs } else { 0 }
    }

    fn end_at(&self, at: usize) -> Option<usize> {
        self.page.get(at..at + 4).map(|end| u32_of(end) as usize)
    }

    fn key_end(&self, pair: usize) -> Option<usize> {
        let keys = 4 + self.ends(self.tree.key) + self.ends(self.tree.value);
        match (pair, self.tree.key) {
            (0, _) => Some(keys),
            (_, Some(width)) => Some(keys + width * pair),
            (_, None) => self.end_at(4 + 4 * (pair - 1)),
        }
    }

    fn value_end(&self, pair: usize) -> Option<usize> {
        match (pair, self.tree.value) {
            (0, _) => self.key_end(self.pairs),
            (_, Some(width)) => Some(self.key_end(self.pairs)? + width * pair),
            (_, None) => self.end_at(4 + self.ends(self.tree.key) + 4 * (pair - 1)),
        }
    }

    fn key(&self, pair: usize) -> Option<std::ops::Range<usize>> {
        Some(self.key_end(pair)?..self.key_end(pair + 1)?)
    }

    fn value(&self, pair: usize) -> Option<std::ops::Range<usize>> {
        Some(self.value_end(pair)?..self.value_end(pair + 1)?)
    }
}

impl Tree {
    /// A tree of tables that a commit slot tells of: whether there is one, and where that stands.
    pub(super) fn of_slot(slot: &[u8], (flag, at): (usize, usize)) -> Self {
        let root = (slot[flag] != 0).then(|| (u64_of(&slot[at..]), u128_of(&slot[at + 8..])));
        Self { root, length: u64_of(&slot[at + 24..]), key: None, value: None }
    }

    /// Whether its keys and values have these widths.
    pub(in crate::buffer) fn is_of(&self, key: Option<usize>, value: Option<usize>) -> bool {
        (self.key, self.value) == (key, value)
    }

    /// A tree as the row of its table tells of it: kind (3) · length u64 · has a root · root (page 8,
    /// checksum 16, length u64) · has a width, width u32 of keys · the same of values · ...
    pub(super) fn of_row(row: &[u8]) -> Option<Self> {
        let row = row.get(..52).filter(|row| row[0] == 3)?;
        let width = |at: usize| (row[at] != 0).then(|| u32_of(&row[at + 1..at + 5]) as usize);
        let root = (row[9] != 0).then(|| (u64_of(&row[10..18]), u128_of(&row[18..34])));
        Some(Self { root, length: u64_of(&row[1..9]), key: width(42), value: width(47) })
    }
}
