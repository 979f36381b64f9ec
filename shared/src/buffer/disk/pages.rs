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

use std::collections::HashSet;
use std::convert::Infallible;
use std::fs::File;
use std::io;

use xxhash_rust::xxh3::xxh3_128;

use super::page_file::{LONGEST, PAGE, PageFile, u16_of, u32_of, u128_of};
use super::walk::{Pair, Tree, Trees, Walk};

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
/// Pairs that a page may hold when its own number is not to be believed.
const GUESSES: usize = 256;

/// A file with redb's pages, and what its header says of them.
#[derive(Debug)]
pub(in crate::buffer) struct Pages(PageFile);

impl Pages {
    /// The pages of an open file.
    pub(in crate::buffer) fn new(file: File) -> io::Result<Self> {
        Ok(Self(PageFile::new(file)?))
    }

    /// The trees of the state that the file has, and of the one before it; whether the slot and the
    /// pages that tell of them match their checksums. Pages of the state before may have been used
    /// again since.
    pub(in crate::buffer) fn states(&self) -> [(Trees, bool); 2] {
        let newer = self.newer_slot();
        let older = if newer == SLOTS[0] { SLOTS[1] } else { SLOTS[0] };
        [newer, older].map(|at| self.trees(at))
    }

    /// Whether the pages of a table, if there is one, of redb's own books, and all branches match their
    /// checksums: at damage in the books redb does not even panic in order, and where a branch leads
    /// elsewhere, a commit may give away pages that others have. Whoever asks holds a transaction, or
    /// pages are used again meanwhile.
    pub(in crate::buffer) fn has_sound(&self, table: &str) -> bool {
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
            Walk { pages: &self.0, tree, seen, pairs: 0, visit: ignore, to_the_leaves: false };
        walk.page(root, check, 0) == Ok(true)
    }

    /// The trees of redb's own tables, and whether what tells of them is sound.
    fn own_trees(&self) -> (Trees, bool) {
        let at = self.newer_slot();
        self.0.header.get(at..at + SLOT_LENGTH).map_or_else(
            || (Trees::new(), false),
            |slot| self.named(&Tree::of_slot(slot, SYSTEM_TREE)),
        )
    }

    fn newer_slot(&self) -> usize {
        let god = self.0.header.get(MAGIC.len()).copied().unwrap_or(0);
        SLOTS[usize::from((god & PRIMARY != 0) != (god & UNFLUSHED != 0))]
    }

    fn trees(&self, slot: usize) -> (Trees, bool) {
        let Some(slot) = self.0.header.get(slot..slot + SLOT_LENGTH) else {
            return (Trees::new(), false);
        };
        let has_check = self.0.header.starts_with(&MAGIC)
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
    pub(in crate::buffer) fn damaged_trees(&self) -> Vec<String> {
        let (trees, mut damaged) = self.damaged_books();
        for (name, tree) in trees {
            if self.walk(&tree, &mut |_| Ok::<(), Infallible>(())) != Ok(true) {
                damaged.push(name);
            }
        }
        damaged.sort_unstable();
        damaged
    }

    /// The trees of the tables in the state that the file has, and what does not match its checksums of the
    /// books that redb keeps, which are small. Whoever asks has the write turn: redb may use pages of
    /// its books again although somebody reads the state that they belong to.
    pub(in crate::buffer) fn damaged_books(&self) -> (Trees, Vec<String>) {
        let ([(trees, is_whole), _], mut damaged) = (self.states(), Vec::new());
        let (own, is_own_whole) = self.own_trees();
        if !is_whole {
            damaged.push("the list of tables".to_owned());
        }
        if !is_own_whole {
            damaged.push("redb's list of its own tables".to_owned());
        }
        for (name, tree) in own {
            if self.walk(&tree, &mut |_| Ok::<(), Infallible>(())) != Ok(true) {
                damaged.push(format!("redb's {name}"));
            }
        }
        (trees, damaged)
    }

    /// Visits the pairs of a tree in order, as far as its pages can be read. Returns whether all of
    /// them were, and match their checksums.
    pub(in crate::buffer) fn walk<E>(
        &self,
        tree: &Tree,
        visit: &mut impl FnMut(Pair<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let Some((root, check)) = tree.root else { return Ok(tree.length == 0) };
        let seen = HashSet::new();
        let mut walk = Walk { pages: &self.0, tree, seen, pairs: 0, visit, to_the_leaves: true };
        let is_whole = walk.page(root, check, 0)?;
        Ok(is_whole && walk.pairs == tree.length)
    }

    /// Visits what may be pairs, in all pages that may be leaves with keys of this width and values of
    /// any: also pages that are free, and what they held long ago.
    pub(in crate::buffer) fn scan<E>(
        &self,
        key: usize,
        visit: &mut impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut at = PAGE;
        while at < self.0.length {
            let Some(page) = self.0.read(at, PAGE.min(self.0.length - at)) else {
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
                whole = self.0.read(at, end as u64);
            }
            let bytes = if is_long { whole.as_deref().unwrap_or_default() } else { page };
            let name = keys + key * number;
            if let (Some(name), Some(value)) = (page.get(name..name + key), bytes.get(begin..end)) {
                is_known |= visit(name, value)?;
            }
        }
        Ok(is_known)
    }
}
