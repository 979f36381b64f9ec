//! The micro-benchmarks of the buffer and of folding, which live beside their code.

use std::process::Command;

use anyhow::Context;

use crate::binaries::workspace_root;

/// Runs `cargo bench -p shared`; whether it went well.
pub(super) fn run() -> anyhow::Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["bench", "-p", "shared", "--bench", "buffer", "--bench", "fold"])
        .current_dir(workspace_root())
        .status()
        .context("cargo cannot be run")?;
    Ok(status.success())
}
