//! Where things are put: under the target folder, on a real disk, never in a `/tmp` of memory.
//!
//! A folder is named after the process that made it. What a killed run left behind is removed by
//! the next run; what a failed run kept for reading stays until then.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::account::Account;
use crate::binaries::target_folder;

/// Others may walk through, and not look around.
const WALK_THROUGH: u32 = 0o711;

/// A fresh folder for one test, removed when dropped.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn scratch_folder(name: &str) -> TempDir {
    tempfile::Builder::new()
        .prefix(&format!("{name}-{}-", std::process::id()))
        .permissions(Permissions::from_mode(WALK_THROUGH))
        .tempdir_in(scratch_root())
        .expect("a scratch folder")
}

/// The folder that holds all scratch folders of this target folder.
pub(crate) fn scratch_root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = place(&target_folder().join("tmp")).expect("a place for scratch folders");
        sweep(&root);
        root
    })
}

/// Makes the folder `wished` and answers where it is: there, or, when the servers' account cannot
/// reach it (a clone in `/root`), in a folder of ours under `/var/tmp` that is named after it.
///
/// # Errors
/// When neither place can be had, or the one under `/var/tmp` belongs to somebody else.
pub fn place(wished: &Path) -> anyhow::Result<PathBuf> {
    let wished = std::path::absolute(wished)?;
    make_folder(&wished)?;
    match Account::to_step_down_to()? {
        Some(account) if !account.reaches(&wished.join("inside")) => {
            let substitute = substitute_for(&wished);
            let above = substitute.parent().context("the substitute has a parent")?;
            for folder in [above, &substitute] {
                make_folder(folder)?;
                let found = folder.symlink_metadata()?;
                let ours = found.is_dir() && found.uid() == geteuid().as_raw();
                ensure!(ours, "{} exists and is not our folder", folder.display());
            }
            Ok(substitute)
        }
        _ => Ok(wished),
    }
}

fn substitute_for(wished: &Path) -> PathBuf {
    let name = wished.to_string_lossy().trim_matches('/').replace('/', "-");
    Path::new("/var/tmp/holdfast").join(name)
}

/// Whatever the umask, the folders we make can be walked through; what is inside has modes of its own.
fn make_folder(folder: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(WALK_THROUGH)
        .create(folder)
        .with_context(|| format!("making {}", folder.display()))
}

/// Removes the folders of processes that are no more.
fn sweep(root: &Path) {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.rsplit('-').nth(1).and_then(|pid| pid.parse::<u32>().ok());
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another run may be sweeping the same folder: whoever is first, it is gone.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_nobody_else_may_enter_is_seen_as_out_of_reach() {
        let folder = scratch_folder("reach");
        let account = Account { uid: 65_534, gid: 65_534 };
        let inside = folder.path().join("inside");
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        assert!(!account.reaches(&inside));
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        assert_eq!(account.reaches(&inside), account.reaches(folder.path()));
    }

    #[test]
    fn the_substitute_is_named_after_the_place_it_stands_for() {
        let substitute = substitute_for(Path::new("/root/clone/data/dev"));
        assert_eq!(substitute, Path::new("/var/tmp/holdfast/root-clone-data-dev"));
    }
}
