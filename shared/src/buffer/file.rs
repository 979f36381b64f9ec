//! The buffer file on its filesystem: who may touch it, whether it is still there, and how much
//! room is left.
//!
//! The file is made 0600 in a folder made 0700. A link, another owner, or modes that let others in are
//! refused, for the files beside it as well. One of them is a ballast file that is given up when the disk
//! is full, so that replay can still remove what it has applied.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::statvfs::statvfs;
use redb::backends::FileBackend;
use redb::{Builder, ConcurrencyMode, Database, DatabaseError};
use rustix::fs::{Advice, AtFlags, CWD, FileType, Statx, StatxFlags, fadvise, statx};
use thiserror::Error;

use super::is_damage;
use super::keys::KeysError;

/// Room set aside for emptying the buffer on a full disk (bytes).
const BALLAST_BYTES: u64 = 4 << 20;

/// Why the buffer file cannot be used at all.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The folder or file is not safe to use.
    #[error("BUFFER_PATH: {path}: {problem}")]
    Unsafe {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The operating system refused.
    #[error("BUFFER_PATH: {path}")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// How it refused.
        source: io::Error,
    },
    /// It is no redb file, or a damaged one, or in use by a program that does not share it.
    #[error(
        "BUFFER_PATH: {path} cannot be opened as a buffer file. `holdfast-worker buffer repair` makes \
         it anew of what can be read, `holdfast-worker buffer salvage` writes that out, \
         BUFFER_RECREATE=true has the file moved aside at the next start, and `holdfast-worker buffer \
         import` takes in what was written out"
    )]
    Database {
        /// The file.
        path: PathBuf,
        /// What redb said.
        source: Box<redb::Error>,
    },
    /// It is damaged in a way that redb does not foresee.
    #[error(
        "BUFFER_PATH: {path} is damaged. `holdfast-worker buffer repair` makes it anew of what can be \
         read, `holdfast-worker buffer salvage` writes that out, BUFFER_RECREATE=true has the file \
         moved aside at the next start, and `holdfast-worker buffer import` takes in what was written \
         out"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Its tables do not agree with one another.
    #[error(
        "BUFFER_PATH: the tables of {path} do not agree. `holdfast-worker buffer repair` makes it anew \
         of what can be read, `holdfast-worker buffer salvage` writes that out"
    )]
    Disagreeing {
        /// The file.
        path: PathBuf,
    },
    /// It was a buffer file, and has lost all it had.
    #[error(
        "BUFFER_PATH: {path} is empty, and the files beside it show that it was in use: put its \
         content back, or start with BUFFER_RECREATE=true, which moves it aside with its log"
    )]
    Emptied {
        /// The file.
        path: PathBuf,
    },
    /// Another process holds on to it, and may itself have been stopped.
    #[error("BUFFER_PATH: {path} cannot be had in time: another process holds on to it")]
    Held {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a newer program.
    #[error("BUFFER_PATH: {path} has format {found}, this program knows up to {known}")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The file's format.
        found: u64,
        /// The newest format this program knows.
        known: u64,
    },
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl OpenError {
    /// Whether the file is damaged, rather than unsafe, in use, or of another program.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Database { source, .. } => is_damage(source),
            Self::Damaged { .. } | Self::Disagreeing { .. } | Self::Emptied { .. } => true,
            Self::Unsafe { .. }
            | Self::Io { .. }
            | Self::Held { .. }
            | Self::NewerFormat { .. }
            | Self::Keys(_) => false,
        }
    }
}

/// A path, and which file it led to when that was opened.
#[derive(Debug)]
pub(super) struct Located {
    path: PathBuf,
    identity: Identity,
}

impl Located {
    /// A path, and the file that was opened by it.
    pub(super) fn new(path: &Path, file: &File) -> io::Result<Self> {
        let identity = Identity::of(file, Path::new(""), AtFlags::EMPTY_PATH)?;
        Ok(Self { path: path.to_owned(), identity })
    }

    /// The path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// True if the path still leads to that file: if not, nothing written to it would be found again.
    pub(super) fn is_in_place(&self) -> bool {
        let now = Identity::of(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW);
        now.is_ok_and(|now| now == self.identity)
    }

    /// True if the path leads to another file now: one that is there, and can be opened in its place.
    pub(super) fn is_replaced(&self) -> bool {
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
pub(super) struct BufferFile {
    located: Located,
}

impl BufferFile {
    /// Checks the folder and the file, makes what is missing, and opens it for sharing with other
    /// processes.
    pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<(Self, Database), OpenError> {
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
    pub(super) fn is_in_place(&self) -> bool {
        self.located.is_in_place()
    }

    /// True if the path leads to another file now.
    pub(super) fn is_replaced(&self) -> bool {
        self.located.is_replaced()
    }

    /// Bytes free for this user on the file's filesystem.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let stat = statvfs(folder_of(self.located.path()))?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }

    /// Lays the ballast down if it is missing and there is room for it beside `min_free` bytes.
    /// Returns whether it is there.
    pub(super) fn lay_ballast(&self, min_free: u64) -> bool {
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
    pub(super) fn drop_ballast(&self) -> bool {
        fs::remove_file(self.ballast()).is_ok()
    }

    fn ballast(&self) -> PathBuf {
        sibling(self.located.path(), "ballast")
    }
}

/// The path of a file that belongs to the buffer file and lies beside it.
#[must_use]
pub fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Drops what the kernel has of a file in memory. After a sync that failed it takes pages for written that
/// are not, and does not write them again (wiki.postgresql.org/wiki/Fsync_Errors); ext4 even takes
/// blocks for begun that it reads as zeros later. Who read that would build on what the disk does not
/// have.
pub(super) fn forget_cached(path: &Path) {
    // What stays, for any reason, is read as it is.
    let Ok(file) = open_private_existing(path) else { return };
    // A page that somebody holds at that moment stays.
    for pause in [Duration::ZERO, Duration::from_millis(2)] {
        thread::sleep(pause);
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
}

/// Has on the disk which files there are beside a file, and under which names.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// Makes sure that the folder of `path` is there, ours, and not open to everyone.
///
/// # Errors
/// If it is not safe to use, or cannot be made.
pub fn private_folder(path: &Path) -> Result<(), OpenError> {
    let folder = folder_of(path);
    let at = |source| OpenError::Io { path: folder.to_owned(), source };
    let refuse = |problem| Err(OpenError::Unsafe { path: folder.to_owned(), problem });
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at)?;
    let meta = fs::symlink_metadata(folder).map_err(at)?;
    if meta.is_symlink() {
        return refuse("is a symbolic link; name the folder itself");
    }
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        return refuse("the folder belongs to another user");
    }
    if meta.mode() & 0o002 != 0 {
        return refuse("the folder is writable by everyone (chmod o-w)");
    }
    Ok(())
}

/// Opens a file that is ours alone, the buffer file or one beside it, for reading and writing; makes
/// it if it is missing.
///
/// # Errors
/// If it is a link, has several names, belongs to another user or is open to others.
pub fn open_private(path: &Path) -> Result<File, OpenError> {
    open_checked(path, OpenOptions::new().read(true).write(true).create(true).mode(0o600))
}

/// Like [`open_private`], for reading, and makes nothing.
///
/// # Errors
/// As [`open_private`], or if it is missing.
pub fn open_private_existing(path: &Path) -> Result<File, OpenError> {
    open_checked(path, OpenOptions::new().read(true))
}

/// Like [`open_private`], and makes nothing.
pub(super) fn open_private_in_place(path: &Path) -> Result<File, OpenError> {
    open_checked(path, OpenOptions::new().read(true).write(true))
}

fn open_checked(path: &Path, options: &mut OpenOptions) -> Result<File, OpenError> {
    let at = |source| OpenError::Io { path: path.to_owned(), source };
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = options.custom_flags(flags.bits()).open(path).map_err(at)?;
    match problem_of(&file.metadata().map_err(at)?) {
        Some(problem) => Err(OpenError::Unsafe { path: path.to_owned(), problem }),
        None => Ok(file),
    }
}

/// What keeps a file from being ours alone.
fn problem_of(meta: &fs::Metadata) -> Option<&'static str> {
    if !meta.is_file() {
        return Some("is not a regular file");
    }
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        return Some("the file belongs to another user");
    }
    if meta.mode() & 0o077 != 0 {
        return Some("the file is open to other users (chmod 600)");
    }
    if meta.nlink() > 1 {
        return Some("the file has several names (hard links); remove the others");
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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
