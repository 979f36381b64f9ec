//! A cluster made once and copied for each test: `initdb` takes a second, a copy a tenth of one.
//!
//! The template lies beside the scratch folders and is used again by later runs. Its name says
//! which server made it and for whom; it appears under that name only when it is complete.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, ensure};

use super::cluster::Cluster;
use super::programs::Programs;
use crate::account::Account;
use crate::scratch::{scratch_folder, scratch_root};

/// Puts a copy of the template at `data`.
///
/// # Panics
/// When the template cannot be made.
pub(super) fn copy_to(data: &Path) {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    let template = TEMPLATE.get_or_init(|| ready_made().expect("a cluster to copy"));
    copy(template, data).expect("a copy of the cluster");
}

fn ready_made() -> anyhow::Result<PathBuf> {
    let account =
        Account::to_step_down_to()?.map_or_else(nix::unistd::geteuid, |account| account.uid.into());
    let template =
        scratch_root().join(format!("slim-cluster-{}-{account}", Programs::newest()?.version()));
    if template.is_dir() {
        return Ok(template);
    }
    let making = scratch_folder("cluster");
    let data = making.path().join("data");
    Cluster::open(&data, &making.path().join("initdb.log"), 0)?.slim()?;
    match std::fs::rename(&data, &template) {
        // Another test process was first; its template is as good.
        Err(_) if template.is_dir() => Ok(template),
        renamed => renamed.map(|()| template).context("naming the template"),
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let output = Command::new("cp").arg("-a").args([from, to]).output()?;
    ensure!(output.status.success(), "cp: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
