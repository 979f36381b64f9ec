//! Libraries of others that are loaded into a process of ours before its own.

use std::path::PathBuf;

/// Finds a library, below one of the usual folders or, as Debian has it, that of the architecture.
///
/// # Panics
/// When it is not installed.
pub(crate) fn library(below: &str) -> String {
    let roots = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut candidates =
        roots.into_iter().chain(folders.map(|entry| entry.path())).map(|root| root.join(below));
    match candidates.find(|library| library.is_file()) {
        Some(library) => library.to_string_lossy().into_owned(),
        None => panic!("{below} is not installed; try `scripts/setup.sh test`"),
    }
}
