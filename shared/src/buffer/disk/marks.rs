//! The high-water marks of the clocks of this host, in a file beside the buffer file (`.clock`).
//!
//! Each process that draws versions has a slot in it, where it writes its clock's reading whenever that
//! is not behind the wall clock, before it answers what it read or wrote. Others read all slots before
//! they draw. So what one process acknowledges is older than what another draws later, although one of
//! them follows the fast clock of another host. Slots stay as they are when their process ends, and the
//! next one goes on from there.
//!
//! Each mark is written and synced once a second in any case. A clock that begins behind its mark, since
//! the wall clock was set back meanwhile, begins with a margin that makes up for that second.
//!
//! ```text
//! header   generation u64 · CRC-32 of it · zeros 4
//! slot     milliseconds u64 · counter u32 · CRC-32 of both
//! ```
//! Integers are little-endian. A slot whose check does not hold is empty.
//!
//! The header says how far the buffer file had come (see `old_copy`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::file::Located;
use super::open_error::OpenError;
use super::private::{open_private, sibling};
use crate::buffer::format::generation::is_of_same_file;
use crate::domain::HybridTime;

/// Processes of one file that draw versions at once, at the most.
const SLOTS: usize = 64;
const SLOT: usize = 16;
const HEADER: usize = 16;
const LENGTH: usize = HEADER + SLOTS * SLOT;
/// How much later than its mark a clock begins that would begin before it (milliseconds): more than passes
/// between two syncs.
const MARGIN_MS: u64 = 2000;

/// The marks of a host's clocks.
#[derive(Debug)]
pub(in crate::buffer) struct Marks {
    located: Located,
    file: File,
}

impl Marks {
    /// Opens the marks beside a buffer file; makes an empty file if there is none.
    pub(in crate::buffer) fn open(buffer_path: &Path) -> Result<Self, OpenError> {
        let path = path_beside(buffer_path);
        let file = open_private(&path)?;
        let located = Located::new(&path, &file);
        let located = located.map_err(|source| OpenError::Io { path, source })?;
        Ok(Self { located, file })
    }

    /// The furthest of all clocks, running or ended.
    pub(in crate::buffer) fn highest(&self) -> HybridTime {
        let mut bytes = [0; LENGTH];
        // A file that is shorter, or cannot be read, has no more marks.
        let read = self.file.read_at(&mut bytes, 0).unwrap_or(0);
        let slots = bytes[..read].get(HEADER..).unwrap_or_default().chunks_exact(SLOT);
        slots.filter_map(decode).max().unwrap_or_default()
    }

    /// How far the buffer file had come at least; `None` if that is not known.
    pub(in crate::buffer) fn generation(&self) -> Option<u64> {
        let mut header = [0; HEADER];
        self.file.read_exact_at(&mut header, 0).ok()?;
        let (content, rest) = header.split_first_chunk::<8>()?;
        let check = crc32fast::hash(content).to_le_bytes();
        rest.starts_with(&check).then_some(u64::from_le_bytes(*content))
    }

    /// Notes how far the buffer file has come. If two processes do so at once, the lower generation may
    /// stay until the next one.
    ///
    /// It comes after a commit that is on the disk: after a loss of power it may be behind the file, and never
    /// before it.
    pub(in crate::buffer) fn note_generation(&self, generation: u64) -> io::Result<()> {
        let is_known = |noted| is_of_same_file(noted, generation) && noted >= generation;
        if self.generation().is_some_and(is_known) {
            return Ok(());
        }
        let mut header = [0; HEADER];
        let content = generation.to_le_bytes();
        header[..8].copy_from_slice(&content);
        header[8..12].copy_from_slice(&crc32fast::hash(&content).to_le_bytes());
        self.file.write_all_at(&header, 0)
    }
}

/// A process's own slot, for as long as this lives.
#[derive(Debug)]
pub struct ClockSlot {
    marks: Marks,
    at: u64,
    written: Mutex<HybridTime>,
    synced: Mutex<HybridTime>,
}

impl ClockSlot {
    /// Takes a slot beside a buffer file that no process has, and tells from where its clock has to go on.
    ///
    /// # Errors
    /// If the file cannot be used, or has no slot left.
    pub fn claim(buffer_path: &Path) -> Result<(Self, HybridTime), OpenError> {
        let path = path_beside(buffer_path);
        let marks = Marks::open(buffer_path)?;
        let highest = marks.highest();
        let from = if highest < HybridTime::now() {
            highest
        } else {
            HybridTime { millis: highest.millis + MARGIN_MS, ..highest }
        };
        let io = |source| OpenError::Io { path: path.clone(), source };
        let at = free_slot(&marks.file).map_err(io)?;
        let slot = Self { marks, at, written: Mutex::default(), synced: Mutex::default() };
        Ok((slot, from))
    }

    /// The furthest of all clocks, running or ended.
    pub fn highest(&self) -> HybridTime {
        self.marks.highest()
    }

    /// Writes this clock's reading, if it is a later one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, time: HybridTime) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if time > *written {
            self.marks.file.write_all_at(&encode(time), self.at)?;
            *written = time;
        }
        Ok(())
    }

    /// Has on the disk what was written. Blocks.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn sync(&self) -> io::Result<()> {
        let written = *self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if written > *synced {
            self.marks.file.sync_data()?;
            *synced = written;
        }
        Ok(())
    }

    /// True if the path still leads to this file: if not, other processes do not see its marks.
    pub fn is_in_place(&self) -> bool {
        self.marks.located.is_in_place()
    }
}

/// Locks the first slot that nobody has: for as long as the file is open, however the process ends.
fn free_slot(file: &File) -> io::Result<u64> {
    for at in (HEADER..LENGTH).step_by(SLOT) {
        let (start, length) = (at as libc::off_t, SLOT as libc::off_t);
        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: start,
            l_len: length,
            l_pid: 0,
        };
        match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => return Ok(at as u64),
            Err(Errno::EAGAIN | Errno::EACCES) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other(format!("more than {SLOTS} processes on one buffer file")))
}

fn encode(time: HybridTime) -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    bytes[..8].copy_from_slice(&time.millis.to_le_bytes());
    bytes[8..12].copy_from_slice(&u32::try_from(time.counter).unwrap_or(u32::MAX).to_le_bytes());
    let check = crc32fast::hash(&bytes[..12]).to_le_bytes();
    bytes[12..].copy_from_slice(&check);
    bytes
}

fn decode(bytes: &[u8]) -> Option<HybridTime> {
    let (content, check) = bytes.split_last_chunk::<4>()?;
    let (millis, counter) = content.split_first_chunk::<8>()?;
    let time = HybridTime {
        millis: u64::from_le_bytes(*millis),
        counter: u64::from(u32::from_le_bytes(counter.try_into().ok()?)),
    };
    (crc32fast::hash(content).to_le_bytes() == *check).then_some(time)
}

fn path_beside(buffer_path: &Path) -> PathBuf {
    sibling(buffer_path, "clock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(millis: u64) -> HybridTime {
        HybridTime { millis, counter: 7 }
    }

    #[test]
    fn each_process_has_a_slot_and_sees_the_marks_of_all_whether_they_run_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buffer.redb");
        let (one, from) = ClockSlot::claim(&path).unwrap();
        assert_eq!(from, HybridTime::default());
        let (other, _) = ClockSlot::claim(&path).unwrap();
        assert_ne!(one.at, other.at);
        one.write(time(5000)).unwrap();
        other.write(time(4000)).unwrap();
        assert_eq!((one.highest(), other.highest()), (time(5000), time(5000)));
        one.write(time(3000)).unwrap();
        assert_eq!(other.highest(), time(5000), "a mark goes back");
        let at = one.at;
        drop((one, other));
        let (next, from) = ClockSlot::claim(&path).unwrap();
        assert_eq!((next.at, from), (at, time(5000)));
    }

    #[test]
    fn a_clock_that_would_begin_behind_its_mark_begins_past_it_and_damage_is_no_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buffer.redb");
        let (slot, _) = ClockSlot::claim(&path).unwrap();
        let ahead = time(HybridTime::now().millis + 30_000);
        slot.write(ahead).unwrap();
        slot.sync().unwrap();
        let (_next, from) = ClockSlot::claim(&path).unwrap();
        assert_eq!(from, time(ahead.millis + MARGIN_MS));
        assert_eq!(ClockSlot::claim(&path).unwrap().1, from, "the margin is added once");
        slot.marks.file.write_all_at(&[0xFF; 3], slot.at).unwrap();
        assert_eq!(slot.highest(), HybridTime::default());
        slot.marks.file.set_len(20).unwrap();
        assert_eq!(slot.highest(), HybridTime::default());
    }
}
