//! Requests, prepared in a file that `wrk` cycles through.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A body like those that clients send.
pub(super) const BODY: &str = r#"{"title":"Water the plants on the balcony","description":"The two on the left need more than the others, and the fern needs none at all this week."}"#;

/// One request. No part may hold a tab or a line's end.
#[derive(Clone, Debug)]
pub(super) struct Request {
    method: &'static str,
    path: String,
    token: String,
    body: &'static str,
}

impl Request {
    /// A create of a task.
    pub(super) fn create(token: &str) -> Self {
        let path = "/api/v1/tasks".to_owned();
        Self { method: "POST", path, token: token.to_owned(), body: BODY }
    }

    /// A read.
    pub(super) fn get(path: impl Into<String>, token: &str) -> Self {
        Self { method: "GET", path: path.into(), token: token.to_owned(), body: "" }
    }
}

/// Writes requests to `folder`; the file.
pub(super) fn prepare(
    folder: &Path,
    name: &str,
    requests: impl IntoIterator<Item = Request>,
) -> anyhow::Result<PathBuf> {
    let mut text = String::new();
    for Request { method, path, token, body } in requests {
        writeln!(text, "{method}\t{path}\t{token}\t{body}")?;
    }
    let file = folder.join(format!("{name}.requests"));
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}
