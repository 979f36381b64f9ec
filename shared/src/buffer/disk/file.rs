//! The buffer file on its filesystem: who may touch it, whether it is still there, and how much
//! room is left.
//!
//! The file is made 0600 in a folder made 0700. A link, another owner, or modes that let others in are
//! refused, for the files beside it as well. One of them is a ballast file that is given up when the disk
//! is full, so that replay can still remove what it has applied.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use redb::backends::FileBackend;
use redb::{Builder, ConcurrencyMode, Database, DatabaseError};
use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, statx};

use super::open_error::OpenError;
use super::private::{folder_of, open_private, private_folder, problem_of, sibling};

/// Room set aside for emptying the buffer on a full disk (bytes).
const BALLAST_BYTES: u64 = 4 << 20;

/// A path, and which file it led to when that was opened.
#[derive(Debug)]
pub(in crate::buffer) struct Located {
    path: PathBuf,
    identity: Identity,
}

impl Located {
    /// A path, and the file that was opened by it.
    pub(in crate::buffer) fn new(path: &Path, file: &File) -> io::Result<Self> {
        let identity = Identity::of(file, Path::new(""), AtFlags::EMPTY_PATH)?;
        Ok(Self { path: path.to_owned(), identity })
    }

    /// The path.
    pub(in crate::buffer) fn path(&self) -> &Path {
        &self.path
    }

    /// True if the path still leads to that file: if not, nothing written to it would be found again.
    pub(in crate::buffer) fn is_in_place(&self) -> bool {
        let now = Identity::of(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW);
        now.is_ok_and(|now| now == self.identity)
    }

    /// True if the path leads to another file now: one that is there, and can be opened in its place.
    pub(in crate::buffer) fn is_replaced(&self) -> bool {
        let wanted = StatxFlags::INO | StatxFlags::TYPE;
        statx(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW, wanted).is_ok_and(|now| {
            FileType::from_raw_mode(now.stx_mode.into()).is_file()
                && Identity::of_meta(&now) != self.identity
        })
    }
}

/// Which file it is of all there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: (u32, u32),
    inode: u64,
}

impl Identity {
    /// Asks for nothing but these numbers: if somebody has looked at a file's times, the next write
    /// changes them, and the sync after it writes the inode as well (Linux since 6.13).
    fn of(folder: impl AsFd, path: &Path, flags: AtFlags) -> io::Result<Self> {
        Ok(Self::of_meta(&statx(folder, path, flags, StatxFlags::INO)?))
    }

    fn of_meta(meta: &Statx) -> Self {
        let device = (meta.stx_dev_major, meta.stx_dev_minor);
        Self { device, inode: meta.stx_ino }
    }
}

/// An open buffer file.
#[derive(Debug)]
pub(in crate::buffer) struct BufferFile {
    located: Located,
}

impl BufferFile {
    /// Checks the folder and the file, makes what is missing, and opens it for sharing with other
    /// processes.
    pub(in crate::buffer) fn open(
        path: &Path,
        cache_bytes: usize,
    ) -> Result<(Self, Database), OpenError> {
        let at = |source| OpenError::Io { path: path.to_owned(), source };
        private_folder(path)?;
        let file = open_private(path)?;
        let located = Located::new(path, &file).map_err(at)?;
        let refused = |error: DatabaseError| OpenError::Database {
            path: path.to_owned(),
            source: Box::new(error.into()),
        };
        let database = Builder::new()
            .set_cache_size(cache_bytes)
            .set_concurrency_mode(ConcurrencyMode::MultiWriter)
            .create_with_backend(FileBackend::new(file).map_err(refused)?)
            .map_err(refused)?;
        Ok((Self { located }, database))
    }

    /// True if the path still leads to the file that was opened.
    pub(in crate::buffer) fn is_in_place(&self) -> bool {
        self.located.is_in_place()
    }

    /// True if the path leads to another file now.
    pub(in crate::buffer) fn is_replaced(&self) -> bool {
        self.located.is_replaced()
    }

    /// Bytes free for this user on the file's filesystem.
    pub(in crate::buffer) fn free_bytes(&self) -> io::Result<u64> {
        let stat = statvfs(folder_of(self.located.path()))?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    /// Lays the ballast down if it is missing and there is room for it beside `min_free` bytes.
    /// Returns whether it is there.
    pub(in crate::buffer) fn lay_ballast(&self, min_free: u64) -> bool {
        let ballast = self.ballast();
        let sound = |meta: &fs::Metadata| problem_of(meta).is_none() && meta.len() == BALLAST_BYTES;
        if fs::symlink_metadata(&ballast).is_ok_and(|meta| sound(&meta)) {
            return true;
        }
        let needed = min_free.saturating_add(BALLAST_BYTES);
        if !self.free_bytes().is_ok_and(|free| free >= needed) {
            return false;
        }
        // Made whole under another name first: a crash in between leaves no empty ballast.
        let unfinished = sibling(self.located.path(), &format!("ballast-{}", std::process::id()));
        let lay = || -> io::Result<()> {
            // Left by a process of this id that was killed.
            let _ = fs::remove_file(&unfinished);
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            // Real blocks, not a hole: a hole frees nothing when it is removed.
            io::copy(&mut io::Read::take(io::repeat(0), BALLAST_BYTES), &mut file)?;
            file.sync_all()?;
            fs::rename(&unfinished, &ballast)
        };
        lay()
            .inspect_err(|error| {
                tracing::warn!(%error, "the buffer's ballast cannot be laid");
                let _ = fs::remove_file(&unfinished);
            })
            .is_ok()
    }

    /// Gives the ballast up. Returns whether there was one.
    pub(in crate::buffer) fn drop_ballast(&self) -> bool {
        fs::remove_file(self.ballast()).is_ok()
    }

    fn ballast(&self) -> PathBuf {
        sibling(self.located.path(), "ballast")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::super::private::open_private_existing;
    use super::*;

    fn problem(path: &Path) -> String {
        BufferFile::open(path, 1 << 20).err().map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn what_is_made_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/buffer.redb");
        assert_eq!(problem(&path), "");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }

    #[test]
    fn links_and_open_modes_and_foreign_formats_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buffer.redb");
        assert_eq!(problem(&path), "");
        let link = dir.path().join("link.redb");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(problem(&link).contains("link.redb"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(problem(&path).contains("chmod 600"));
        let other = dir.path().join("other.redb");
        fs::write(&other, "not a database, but long enough to be looked at").unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(problem(&other).contains("cannot be opened as a buffer file"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(problem(&dir.path().join("buffer.redb")).contains("writable by everyone"));
    }

    #[test]
    fn a_linked_folder_and_a_file_of_several_names_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data/buffer.redb");
        assert_eq!(problem(&path), "");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("data"), &link).unwrap();
        assert!(problem(&link.join("buffer.redb")).contains("is a symbolic link"));
        let second = dir.path().join("second");
        fs::hard_link(&path, &second).unwrap();
        assert!(problem(&path).contains("several names"));
        fs::remove_file(second).unwrap();
        assert_eq!(problem(&path), "");
        assert!(open_private(dir.path()).is_err(), "a folder");
        assert!(open_private_existing(&dir.path().join("none")).is_err());
        assert!(!dir.path().join("none").exists());
    }

    #[test]
    fn a_ballast_that_is_a_link_or_has_several_names_is_laid_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buffer.redb");
        let (file, _database) = BufferFile::open(&path, 1 << 20).unwrap();
        let (ballast, elsewhere) = (file.ballast(), dir.path().join("elsewhere"));
        let content = vec![7; usize::try_from(BALLAST_BYTES).unwrap()];
        for link in [std::os::unix::fs::symlink::<&Path, &Path>, fs::hard_link::<&Path, &Path>] {
            fs::write(&elsewhere, &content).unwrap();
            fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).unwrap();
            let _ = fs::remove_file(&ballast);
            link(&elsewhere, &ballast).unwrap();
            assert!(file.lay_ballast(0));
            let laid = fs::symlink_metadata(&ballast).unwrap();
            assert!(laid.is_file() && laid.nlink() == 1 && laid.len() == BALLAST_BYTES);
            assert_eq!(fs::read(&elsewhere).unwrap(), content, "what it led to stays as it is");
        }
    }

    #[test]
    fn a_file_that_was_moved_away_or_replaced_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buffer.redb");
        let (file, _database) = BufferFile::open(&path, 1 << 20).unwrap();
        assert!(file.is_in_place());
        fs::rename(&path, dir.path().join("away.redb")).unwrap();
        assert!(!file.is_in_place());
        fs::write(&path, "").unwrap();
        assert!(!file.is_in_place());
    }
}
