//! Why the buffer file cannot be opened.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::buffer::error::is_damage;
use crate::buffer::format::keys::KeysError;

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
         content back, or start with BUFFER_RECREATE=true, which moves it aside with its write-ahead log"
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
    /// Its tables are of a format that this program does not read.
    #[error(
        "BUFFER_PATH: {path} has table format {found}, and this program reads format {known} alone. \
         Start the version that wrote it, drain it with `holdfast-worker drain`, and start this version \
         with an empty buffer"
    )]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// The file's format; 0 if it names none.
        found: u64,
        /// The format of this program.
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
            | Self::OtherFormat { .. }
            | Self::Keys(_) => false,
        }
    }
}
