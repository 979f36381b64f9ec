//! A buffer file as plain bytes: redb's pages (format 3, as redb 4.6 writes it; docs/design.md of redb),
//! read without redb, which may refuse a damaged file or panic at it.
//!
//! ```text
//! header      magic 9 · god byte · 2 zeros · page size u32 · header pages of a region u32
//!             · data pages of a region u32 · ... ; commit slots at 64 and 192
//! slot        version · has tables u8 · 6 bytes · tree of tables (page 8, checksum 16, length u64)
//!             · ... ; checksum of all before at 112
//! leaf        1 · 0 · pairs u16 · ends of keys u32 each · ends of values u32 each · keys · values
//! branch      2 · 0 · keys u16 · 4 bytes · checksums of children 16 each · children 8 each · ...
//! ```
//! Ends are left out where the width is fixed. Each page's checksum (XXH3, 128 bits) stands in what
//! leads to it. Nothing here panics, follows a circle, or reads beyond the file.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::xxh3_128;

/// The size of a page of order 0, in bytes.
pub(super) const PAGE: u64 = 4096;
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";
const SLOTS: [usize; 2] = [64, 192];
const SLOT_LENGTH: usize = 128;
const SLOT_CHECK: usize = 112;
/// Where a slot says whether there is a tree of tables, and where that begins: ours, and redb's own.
const USER_TREE: (usize, usize) = (1, 8);
const SYSTEM_TREE: (usize, usize) = (2, 40);
/// Flags of the god byte: which slot is the newer one; that it is not on the disk yet.
const PRIMARY: u8 = 1;
const UNFLUSHED: u8 = 8;
/// Data pages of a region, unless the header says otherwise.
const REGION_PAGES: u64 = 1 << 20;
/// Levels of a tree at the most, as in redb.
const DEPTH: usize = 128;
/// A page's length at the most: no record comes near it.
const LONGEST: u64 = 64 << 20;
/// Pairs that a page may hold when its own number is not to be believed.
const GUESSES: usize = 256;

/// Where a tree begins, and how wide its keys and values are; none: each has its own length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    root: Option<(u64, u128)>,
    length: u64,
    key: Option<usize>,
    value: Option<usize>,
}

/// A pair of a tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    /// Whether all pages that lead to it, and its own, match their checksums.
    pub(super) is_sound: bool,
}

/// Trees by the names of their tables.
pub(super) type Trees = HashMap<String, Tree>;

/// A file, read page by page.
#[derive(Debug)]
pub(super) struct Pages {
    file: File,
    length: u64,
    header: Vec<u8>,
    /// Bytes of a region, and of what stands in it before its pages.
    region: (u64, u64),
}

impl Pages {
    /// The pages of an open file.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let mut pages = Self { file, length, header: Vec::new(), region: (REGION_PAGES * PAGE, 0) };
        pages.header = pages.read(0, PAGE.min(length)).unwrap_or_default();
        let number = |at: usize| pages.header.get(at..at + 4).map(u32_of).map(u64::from);
        if let (Some(before), Some(data)) = (number(16), number(20))
            && (1..=REGION_PAGES).contains(&data)
            && before <= REGION_PAGES
        {
            pages.region = ((before + data) * PAGE, before * PAGE);
        }
        Ok(pages)
    }

    /// The trees of the state that the file has, and of the one before it; whether the slot and the
    /// pages that tell of them match their checksums. Pages of the state before may have been used
    /// again since.
    pub(super) fn states(&self) -> [(Trees, bool); 2] {
        let newer = self.newer_slot();
        let older = if newer == SLOTS[0] { SLOTS[1] } else { SLOTS[0] };
        [newer, older].map(|at| self.trees(at))
    }

    /// Whether the pages of a table, if there is one, of redb's own books, and all branches match their
    /// checksums: at damage in the books redb does not even panic in order, and where a branch leads
    /// elsewhere, a commit may give away pages that others have. Whoever asks holds a transaction, or
    /// pages are used again meanwhile.
    pub(super) fn has_sound(&self, table: &str) -> bool {
        let ([(trees, is_sound), _], (own, is_own_sound)) = (self.states(), self.own_trees());
        let has = |tree| self.walk::<Infallible>(tree, &mut |_| Ok(())) == Ok(true);
        is_sound
            && is_own_sound
            && trees.get(table).is_none_or(has)
            && own.values().all(has)
            && trees.values().all(|tree| self.has_sound_branches(tree))
    }

    /// Whether the branches of a tree match their checksums. Of its leaves, of which there are many more,
    /// few are read.
    fn has_sound_branches(&self, tree: &Tree) -> bool {
        let Some((root, check)) = tree.root else { return true };
        let ignore = &mut |_: Pair<'_>| Ok::<(), Infallible>(());
        let seen = HashSet::new();
        let mut walk =
            Walk { pages: self, tree, seen, pairs: 0, visit: ignore, to_the_leaves: false };
        walk.page(root, check, 0) == Ok(true)
    }

    /// The trees of redb's own tables, and whether what tells of them is sound.
    fn own_trees(&self) -> (Trees, bool) {
        let at = self.newer_slot();
        self.header.get(at..at + SLOT_LENGTH).map_or_else(
            || (Trees::new(), false),
            |slot| self.named(&Tree::of_slot(slot, SYSTEM_TREE)),
        )
    }

    fn newer_slot(&self) -> usize {
        let god = self.header.get(MAGIC.len()).copied().unwrap_or(0);
        SLOTS[usize::from((god & PRIMARY != 0) != (god & UNFLUSHED != 0))]
    }

    fn trees(&self, slot: usize) -> (Trees, bool) {
        let Some(slot) = self.header.get(slot..slot + SLOT_LENGTH) else {
            return (Trees::new(), false);
        };
        let has_check = self.header.starts_with(&MAGIC)
            && slot.get(SLOT_CHECK..).map(u128_of) == Some(xxh3_128(&slot[..SLOT_CHECK]));
        let (trees, is_whole) = self.named(&Tree::of_slot(slot, USER_TREE));
        (trees, has_check && is_whole)
    }

    /// The trees that a tree of tables names, and whether it is whole.
    fn named(&self, root: &Tree) -> (Trees, bool) {
        let mut trees = Trees::new();
        let walked = self.walk(root, &mut |pair: Pair<'_>| {
            if let (Ok(name), Some(tree)) = (str::from_utf8(pair.key), Tree::of_row(pair.value)) {
                trees.insert(name.to_owned(), tree);
            }
            Ok::<(), Infallible>(())
        });
        (trees, matches!(walked, Ok(true)))
    }

    /// Which trees of the state that the file has do not match their checksums, redb's own included.
    /// Whoever asks has the write turn, or pages are used again meanwhile.
    pub(super) fn damaged_trees(&self) -> Vec<String> {
        let ([(mut trees, is_whole), _], mut damaged) = (self.states(), Vec::new());
        let (own, is_own_whole) = self.own_trees();
        trees.extend(own.into_iter().map(|(name, tree)| (format!("redb's {name}"), tree)));
        if !is_whole {
            damaged.push("the list of tables".to_owned());
        }
        if !is_own_whole {
            damaged.push("redb's list of its own tables".to_owned());
        }
        for (name, tree) in trees {
            if self.walk(&tree, &mut |_| Ok::<(), Infallible>(())) != Ok(true) {
                damaged.push(name);
            }
        }
        damaged.sort_unstable();
        damaged
    }

    /// Visits the pairs of a tree in order, as far as its pages can be read. Returns whether all of
    /// them were, and match their checksums.
    pub(super) fn walk<E>(
        &self,
        tree: &Tree,
        visit: &mut impl FnMut(Pair<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let Some((root, check)) = tree.root else { return Ok(tree.length == 0) };
        let seen = HashSet::new();
        let mut walk = Walk { pages: self, tree, seen, pairs: 0, visit, to_the_leaves: true };
        let is_whole = walk.page(root, check, 0)?;
        Ok(is_whole && walk.pairs == tree.length)
    }

    /// Visits what may be pairs, in all pages that may be leaves with keys of this width and values of
    /// any: also pages that are free, and what they held long ago.
    pub(super) fn scan<E>(
        &self,
        key: usize,
        visit: &mut impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut at = PAGE;
        while at < self.length {
            let Some(page) = self.read(at, PAGE.min(self.length - at)) else {
                at += PAGE;
                continue;
            };
            let told = page.get(2..4).map_or(0, |bytes| usize::from(u16_of(bytes)));
            let mut is_known = false;
            if page.iter().any(|byte| *byte != 0) {
                // Where the number itself is damaged, another may fit.
                for pairs in std::iter::once(told).chain(1..=GUESSES) {
                    is_known |= self.scan_leaf(at, &page, pairs, key, visit)?;
                    if is_known {
                        break;
                    }
                }
            }
            at += PAGE;
        }
        Ok(())
    }

    /// As [`Pages::scan`], one page with this number of pairs. Returns whether one was known.
    fn scan_leaf<E>(
        &self,
        at: u64,
        page: &[u8],
        pairs: usize,
        key: usize,
        visit: &mut impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let keys = 4 + 4 * pairs;
        let values = keys + key * pairs;
        let Some(ends) = page.get(4..keys).filter(|_| pairs > 0 && values <= page.len()) else {
            return Ok(false);
        };
        // Quick, since it is so for most numbers that are not the right one.
        if (u32_of(ends) as usize) < values {
            return Ok(false);
        }
        let ends: Vec<usize> = ends.chunks_exact(4).map(|end| u32_of(end) as usize).collect();
        let (mut is_known, mut start, mut whole) = (false, values, None);
        for (number, end) in ends.into_iter().enumerate() {
            let begin = std::mem::replace(&mut start, end);
            let is_long = end > page.len();
            if begin > end || is_long && end as u64 > LONGEST {
                continue;
            }
            if is_long && whole.as_ref().is_none_or(|whole: &Vec<u8>| whole.len() < end) {
                whole = self.read(at, end as u64);
            }
            let bytes = if is_long { whole.as_deref().unwrap_or_default() } else { page };
            let name = keys + key * number;
            if let (Some(name), Some(value)) = (page.get(name..name + key), bytes.get(begin..end)) {
                is_known |= visit(name, value)?;
            }
        }
        Ok(is_known)
    }

    /// A page of a tree by its number.
    fn page(&self, number: u64) -> Option<Vec<u8>> {
        let order = number >> 59;
        let index = number & (0x000F_FFFF >> order.min(20));
        let region = number >> 20 & 0x000F_FFFF;
        let length = PAGE.checked_shl(u32::try_from(order).ok()?).filter(|it| *it <= LONGEST)?;
        let at = PAGE + region * self.region.0 + self.region.1 + index * length;
        self.read(at, length)
    }

    fn read(&self, at: u64, length: u64) -> Option<Vec<u8>> {
        at.checked_add(length).filter(|end| *end <= self.length)?;
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        self.file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    }
}

/// A walk through a tree.
struct Walk<'a, V> {
    pages: &'a Pages,
    tree: &'a Tree,
    seen: HashSet<u64>,
    pairs: u64,
    visit: &'a mut V,
    /// Whether leaves are read, or only branches.
    to_the_leaves: bool,
}

impl<V> Walk<'_, V> {
    fn is_leaf(&self, number: u64) -> bool {
        self.pages.page(number).is_some_and(|page| page.first() == Some(&1))
    }

    fn page<E>(&mut self, number: u64, check: u128, depth: usize) -> Result<bool, E>
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
    fn of_slot(slot: &[u8], (flag, at): (usize, usize)) -> Self {
        let root = (slot[flag] != 0).then(|| (u64_of(&slot[at..]), u128_of(&slot[at + 8..])));
        Self { root, length: u64_of(&slot[at + 24..]), key: None, value: None }
    }

    /// Whether its keys and values have these widths.
    pub(super) fn is_of(&self, key: Option<usize>, value: Option<usize>) -> bool {
        (self.key, self.value) == (key, value)
    }

    /// A tree as the row of its table tells of it: kind (3) · length u64 · has a root · root (page 8,
    /// checksum 16, length u64) · has a width, width u32 of keys · the same of values · ...
    fn of_row(row: &[u8]) -> Option<Self> {
        let row = row.get(..52).filter(|row| row[0] == 3)?;
        let width = |at: usize| (row[at] != 0).then(|| u32_of(&row[at + 1..at + 5]) as usize);
        let root = (row[9] != 0).then(|| (u64_of(&row[10..18]), u128_of(&row[18..34])));
        Some(Self { root, length: u64_of(&row[1..9]), key: width(42), value: width(47) })
    }
}

fn number<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

fn u16_of(bytes: &[u8]) -> u16 {
    u16::from_le_bytes(number(bytes))
}

fn u32_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(number(bytes))
}

fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(number(bytes))
}

fn u128_of(bytes: &[u8]) -> u128 {
    u128::from_le_bytes(number(bytes))
}
