//! The write-ahead log (WAL): a file beside the buffer file that has the newest operations until they go
//! into its tables.
//!
//! To put a few records into tables rewrites pages of each, and the books that redb keeps of them. To
//! put them at the end of a file that is there in its whole length already takes one write and one
//! sync. So appends go to the WAL, and into the tables in one go when there are many (see `tail`).
//!
//! ```text
//! frame    head · body · zeros up to a multiple of 4,096
//! head     magic 8 · generation u64 · place of the first record u64 · number of records u32
//!          · length of the body u32 · CRC-32 of the body · CRC-32 of the head so far
//! body     for each record: its length u32, the record
//! ```
//! Integers are little-endian. Frames follow each other; a commit of appends is one frame.
//!
//! A **generation** is what the WAL holds between two times that it was emptied into the tables. The
//! counter `wal_generation` names it, and grows in the very transaction that empties the WAL, so what
//! an older generation has left there counts for nothing. Its lower 24 bits tell the WALs of different
//! files apart. It begins with a frame without records, which is written before anything else of it: who
//! reads an older one sees there that it was overtaken.
//!
//! Only who has the write turn writes. Of a frame the first page is written last, so that one whose
//! writer was killed has no head; after a loss of power a frame may have a head and a body that does not
//! match it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::frame::{Frame, HEAD, Head, PAGE, records_of};
use crate::buffer::disk::file::Located;
use crate::buffer::disk::open_error::OpenError;
use crate::buffer::disk::private::{open_private, sibling, sync_folder};
use crate::buffer::format::record::unix_millis;

/// The length of the file, in bytes. It bounds what has to be put into tables on a full disk, with what
/// room the ballast leaves.
pub(in crate::buffer) const LENGTH: u64 = 2 << 20;

const PAGE_BYTES: usize = 4096;

/// What a WAL has.
#[derive(Clone, Copy, Debug)]
pub(in crate::buffer) struct Logged {
    /// The generation of its frames.
    pub(in crate::buffer) generation: u64,
    /// Where they end.
    pub(in crate::buffer) end: u64,
    /// The place after their last record.
    pub(in crate::buffer) next: u64,
}

/// The open WAL.
#[derive(Debug)]
pub(in crate::buffer) struct Wal {
    located: Located,
    pub(in crate::buffer) file: File,
}

impl Wal {
    /// Opens the WAL of a buffer file; makes an empty one if there is none.
    pub(in crate::buffer) fn open(buffer_path: &Path) -> Result<Self, OpenError> {
        let path = sibling(buffer_path, "log");
        let file = open_private(&path)?;
        let located = Located::new(&path, &file);
        let located = located.map_err(|source| OpenError::Io { path: path.clone(), source })?;
        Ok(Self { located, file })
    }

    /// Opens the WAL of a buffer file for reading, whoever it belongs to; none if there is none.
    pub(in crate::buffer) fn existing(buffer_path: &Path) -> io::Result<Option<Self>> {
        let path = sibling(buffer_path, "log");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Self { located: Located::new(&path, &file)?, file }))
    }

    /// What may be records in it, of any generation: each with that and its place.
    pub(in crate::buffer) fn all_records(&self) -> Vec<(u64, u64, Vec<u8>)> {
        let (bytes, mut all) = (self.bytes(), Vec::new());
        for (page, at) in bytes.chunks(PAGE_BYTES).zip((0..).step_by(PAGE_BYTES)) {
            let Some(head) = Head::decode(page) else { continue };
            let body = bytes.get(at + HEAD..).unwrap_or(&[]);
            let places = head.first..head.next();
            all.extend(
                places
                    .zip(records_of(body))
                    .map(|(place, record)| (head.generation, place, record.to_vec())),
            );
        }
        all
    }

    /// The newest generation that has a frame in it, and the place of the first record of what is there
    /// of that.
    pub(in crate::buffer) fn newest(&self) -> Option<(u64, u64)> {
        let bytes = self.bytes();
        let heads: Vec<Head> = bytes.chunks_exact(PAGE_BYTES).filter_map(Head::decode).collect();
        let newest = heads.iter().map(|head| head.generation).max()?;
        let first = heads.iter().filter(|head| head.generation == newest).map(|head| head.first);
        Some((newest, first.min()?))
    }

    /// True if the path still leads to this file.
    pub(in crate::buffer) fn is_in_place(&self) -> bool {
        self.located.is_in_place()
    }

    /// The head at an offset, if there is a sound one.
    pub(in crate::buffer) fn head(&self, at: u64) -> Option<Head> {
        let mut bytes = [0; HEAD];
        self.read(at, &mut bytes).then(|| Head::decode(&bytes)).flatten()
    }

    /// The frame at an offset, if there is a sound head.
    pub(in crate::buffer) fn frame(&self, at: u64) -> Option<Frame> {
        let head = self.head(at).filter(|head| head.end(at) <= LENGTH)?;
        let mut body = vec![0; usize::try_from(head.length).unwrap_or(0)];
        let is_whole = self.read(at + HEAD as u64, &mut body);
        let is_sound = is_whole && crc32fast::hash(&body).to_le_bytes() == head.body_check;
        Some(Frame { head, body, is_sound })
    }

    /// All of it; zeros where there is nothing, or nothing can be read.
    pub(in crate::buffer) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH as usize];
        let length = usize::try_from(self.length().unwrap_or(LENGTH)).unwrap_or(bytes.len());
        let there = length.min(bytes.len());
        if !self.read(0, &mut bytes[..there]) {
            for (page, at) in bytes[..there].chunks_mut(PAGE_BYTES).zip((0..).step_by(PAGE_BYTES)) {
                if !self.read(at, page) {
                    page.fill(0);
                }
            }
        }
        bytes
    }

    /// Fills `bytes`. False if the file ends before, or cannot be read there: a page that the disk has
    /// lost must not keep the tables from being used.
    fn read(&self, at: u64, bytes: &mut [u8]) -> bool {
        match self.file.read_exact_at(bytes, at) {
            Ok(()) => true,
            Err(error) => {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    tracing::error!(%error, at, "the buffer's write-ahead log cannot be read");
                }
                false
            }
        }
    }

    /// The file's length.
    pub(in crate::buffer) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Whether the file has its whole length.
    pub(in crate::buffer) fn is_laid(&self) -> io::Result<bool> {
        Ok(self.length()? >= LENGTH)
    }

    /// Gives the file its whole length, in real blocks, so that no later write needs any: if so many bytes
    /// may be used, and it does not have it yet.
    pub(in crate::buffer) fn lay(&self, spare: u64) {
        let length = self.length().unwrap_or(LENGTH);
        if length >= LENGTH || spare < LENGTH {
            return;
        }
        if let Err(error) = self.lay_from(length) {
            tracing::error!(%error, "the buffer's write-ahead log cannot be laid down");
            // What could not be laid in full is of use to others.
            let _ = self.file.set_len(length);
        }
    }

    fn lay_from(&self, from: u64) -> io::Result<()> {
        let zeros = vec![0; usize::try_from(LENGTH.saturating_sub(from)).unwrap_or(0)];
        self.file.write_all_at(&zeros, from)?;
        self.file.sync_all()?;
        sync_folder(self.located.path())
    }

    /// Whether a frame of these records fits behind `at`.
    pub(in crate::buffer) fn fits(at: u64, records: &[Arc<[u8]>]) -> bool {
        let body: u64 = records.iter().map(|record| 4 + record.len() as u64).sum();
        at.max(PAGE) + (HEAD as u64 + body).next_multiple_of(PAGE) <= LENGTH
    }

    /// Writes a frame behind what the WAL has, and has it on the disk when it returns. Returns where it
    /// ends. After an error nobody finds a frame there, if anything can be written at all.
    pub(in crate::buffer) fn append(
        &self,
        logged: Logged,
        records: &[Arc<[u8]>],
    ) -> io::Result<u64> {
        let logged = self.begun(logged)?;
        let written = self.write_frame(logged, records);
        written.and_then(|end| self.sync().map(|()| end)).inspect_err(|_| {
            let _ = self.file.write_all_at(&[0; PAGE_BYTES], logged.end).and_then(|()| self.sync());
        })
    }

    /// Writes a generation's first frame if it has none. Returns what the WAL has then.
    fn begun(&self, logged: Logged) -> io::Result<Logged> {
        let end = if logged.end == 0 { self.write_frame(logged, &[])? } else { logged.end };
        Ok(Logged { end, ..logged })
    }

    /// Writes a frame behind what the WAL has, and does not wait until it is on the disk. Returns where
    /// it ends.
    pub(in crate::buffer) fn write_frame(
        &self,
        logged: Logged,
        records: &[Arc<[u8]>],
    ) -> io::Result<u64> {
        let Logged { generation, end: at, next } = logged;
        let too_long = || io::Error::from(io::ErrorKind::InvalidInput);
        let length: usize = records.iter().map(|record| 4 + record.len()).sum();
        let mut frame = Vec::with_capacity((HEAD + length).next_multiple_of(PAGE_BYTES));
        frame.resize(HEAD, 0);
        for record in records {
            let length = u32::try_from(record.len()).map_err(|_| too_long())?;
            frame.extend_from_slice(&length.to_le_bytes());
            frame.extend_from_slice(record);
        }
        let count = u32::try_from(records.len()).map_err(|_| too_long())?;
        let head = Head::new(generation, next, count, &frame[HEAD..]).ok_or_else(too_long)?;
        frame[..HEAD].copy_from_slice(&head.encode());
        frame.resize(frame.len().next_multiple_of(PAGE_BYTES), 0);
        let (first_page, others) = frame.split_at(PAGE_BYTES);
        if !others.is_empty() {
            self.file.write_all_at(others, at + PAGE)?;
        }
        self.file.write_all_at(first_page, at)?;
        Ok(head.end(at))
    }

    /// Has on the disk what was written.
    pub(in crate::buffer) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Overwrites everything behind what a generation has written, and begins it if that is nothing: who
    /// reads an older one must see that it was overtaken.
    pub(in crate::buffer) fn wipe(&self, logged: Logged) -> io::Result<()> {
        let from = self.begun(logged)?.end;
        let length = self.length()?.min(LENGTH).saturating_sub(from);
        self.file.write_all_at(&vec![0; usize::try_from(length).unwrap_or(0)], from)?;
        self.sync()
    }

    /// Gives the file another name, so that it is no buffer file's WAL any more.
    pub(in crate::buffer) fn put_aside(&self) -> io::Result<()> {
        let aside = sibling(self.located.path(), &unix_millis().to_string());
        fs::rename(self.located.path(), &aside)?;
        tracing::error!(path = %aside.display(), "a write-ahead log of another buffer file was put aside");
        sync_folder(self.located.path())
    }
}
