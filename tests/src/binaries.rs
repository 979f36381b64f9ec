//! The product's binaries, never stale: built once per test process, in the profile of the test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder with `holdfast-api`, `holdfast-worker` and `holdfast-migration`, freshly built.
///
/// The first call runs `cargo build --workspace --bins`, which is a moment when nothing changed.
///
/// # Panics
/// When the build fails.
#[must_use]
pub fn binaries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = profile_folder();
        let profile = folder.file_name().expect("a profile folder has a name").to_string_lossy();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build
            .args(["build", "--workspace", "--bins", "--quiet", "--target-dir"])
            .arg(target_folder());
        match profile.as_ref() {
            "debug" => {}
            other => drop(build.args(["--profile", other])),
        }
        // What cargo tells a test of its own package would be news to build scripts that look at it:
        // they, and all that needs them, would be built anew in every run.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO_PKG_") {
                build.env_remove(&name);
            }
        }
        build.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_MANIFEST_PATH");
        let status = build.current_dir(workspace_root()).status().expect("cargo can be run");
        assert!(status.success(), "the product does not build: {status}");
        folder
    })
}

/// The root of the source tree.
pub(crate) fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in a workspace")
}

/// Where cargo put this very program: `target/debug`, `target/release`, ...
fn profile_folder() -> PathBuf {
    let program = std::env::current_exe().expect("a path of our own");
    let folder = program.parent().expect("a program lies in a folder");
    let inner = folder.file_name().is_some_and(|name| name == "deps" || name == "examples");
    let folder =
        if inner { folder.parent().expect("deps lies in a profile folder") } else { folder };
    folder.to_path_buf()
}

/// The target folder; with a cross-compilation triple, the one above it. Cargo marks it as a cache.
pub(crate) fn target_folder() -> PathBuf {
    let profile = profile_folder();
    let marked = profile.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    marked.or(profile.parent()).expect("a profile lies in a target folder").to_path_buf()
}
