//! A file with redb's pages, read one by one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The size of a page of order 0, in bytes.
pub(in crate::buffer) const PAGE: u64 = 4096;
/// Data pages of a region, unless the header says otherwise.
const REGION_PAGES: u64 = 1 << 20;
/// A page's length at the most: no record comes near it.
pub(super) const LONGEST: u64 = 64 << 20;

/// A file, read page by page.
#[derive(Debug)]
pub(super) struct PageFile {
    file: File,
    pub(super) length: u64,
    pub(super) header: Vec<u8>,
    /// Bytes of a region, and of what stands in it before its pages.
    region: (u64, u64),
}

impl PageFile {
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

    /// A page of a tree by its number.
    pub(super) fn page(&self, number: u64) -> Option<Vec<u8>> {
        let order = number >> 59;
        let index = number & (0x000F_FFFF >> order.min(20));
        let region = number >> 20 & 0x000F_FFFF;
        let length = PAGE.checked_shl(u32::try_from(order).ok()?).filter(|it| *it <= LONGEST)?;
        let at = PAGE + region * self.region.0 + self.region.1 + index * length;
        self.read(at, length)
    }

    pub(super) fn read(&self, at: u64, length: u64) -> Option<Vec<u8>> {
        at.checked_add(length).filter(|end| *end <= self.length)?;
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        self.file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    }
}

pub(super) fn number<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

pub(super) fn u16_of(bytes: &[u8]) -> u16 {
    u16::from_le_bytes(number(bytes))
}

pub(super) fn u32_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(number(bytes))
}

pub(super) fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(number(bytes))
}

pub(super) fn u128_of(bytes: &[u8]) -> u128 {
    u128::from_le_bytes(number(bytes))
}
