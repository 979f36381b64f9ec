//! Files that are ours alone: the buffer file and those beside it. What others could read or exchange is
//! refused.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use rustix::fs::{Advice, fadvise};

use super::open_error::OpenError;

/// The path of a file that belongs to the buffer file and lies beside it.
#[must_use]
pub fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Drops what the kernel has of a file in memory. After a sync that failed it takes pages for written that
/// are not, and does not write them again (wiki.postgresql.org/wiki/Fsync_Errors); ext4 even takes
/// blocks for begun that it reads as zeros later. Who read that would build on what the disk does not
/// have.
pub(in crate::buffer) fn forget_cached(path: &Path) {
    // What stays, for any reason, is read as it is.
    let Ok(file) = open_private_existing(path) else { return };
    // A page that somebody holds at that moment stays.
    for pause in [Duration::ZERO, Duration::from_millis(2)] {
        thread::sleep(pause);
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
}

/// Has on the disk which files there are beside a file, and under which names.
pub(in crate::buffer) fn sync_folder(path: &Path) -> io::Result<()> {
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
pub(in crate::buffer) fn open_private_in_place(path: &Path) -> Result<File, OpenError> {
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
pub(super) fn problem_of(meta: &fs::Metadata) -> Option<&'static str> {
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
