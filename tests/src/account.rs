//! Which account the servers run as: PostgreSQL refuses to be root.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::sync::OnceLock;

use anyhow::Context;
use nix::unistd::{User, geteuid};

/// An unprivileged account that root steps down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

impl Account {
    /// The account to step down to: `postgres`, else `nobody`, when we are root; `None` when we are
    /// not, because then everything simply runs as ourselves.
    ///
    /// # Errors
    /// When we are root and the machine has neither account.
    pub fn to_step_down_to() -> anyhow::Result<Option<Self>> {
        static FOUND: OnceLock<Option<Account>> = OnceLock::new();
        if !geteuid().is_root() {
            return Ok(None);
        }
        let found = FOUND.get_or_init(|| {
            ["postgres", "nobody"].into_iter().find_map(|name| {
                let user = User::from_name(name).ok().flatten()?;
                Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
            })
        });
        found.map(Some).context(
            "PostgreSQL refuses to run as root, and neither `postgres` nor `nobody` exists here",
        )
    }

    /// Hands one file or folder to this account.
    ///
    /// # Errors
    /// What `chown` answers.
    pub fn own(self, path: &Path) -> anyhow::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("chown {}", path.display()))
    }

    /// Whether this account may walk through every folder above `path`. A clone in `/root` may not
    /// be walked through by anybody else.
    #[must_use]
    pub fn reaches(self, path: &Path) -> bool {
        path.ancestors()
            .skip(1)
            .filter_map(|folder| folder.metadata().ok())
            .all(|folder| self.may_enter(&folder))
    }

    fn may_enter(self, folder: &Metadata) -> bool {
        let needed = match (folder.uid() == self.uid, folder.gid() == self.gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        folder.mode() & needed != 0
    }
}
