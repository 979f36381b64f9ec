//! How slow online writes are at the moment. The api notes it in a small file beside the buffer file.
//! Replay, in another process, reads it and makes room for online writes.
//!
//! The file is a hint and is not synced. The api renews it several times a second while there are online
//! writes. If replay cannot read it, or finds it old, it goes on as if there were none.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::buffer::{open_private, open_private_existing, sibling};

/// How often the file is renewed.
const RENEW: Duration = Duration::from_millis(50);
/// Advice that is older than this says that nobody is online.
const STALE: Duration = Duration::from_millis(500);

/// How long online writes take at PostgreSQL (microseconds).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Online {
    /// When nothing is in their way.
    pub quiet_us: f64,
    /// Lately.
    pub now_us: f64,
}

impl Online {
    /// How much longer than when nothing is in their way.
    #[must_use]
    pub fn slowdown(&self) -> f64 {
        self.now_us / self.quiet_us.max(1.0)
    }

    /// The estimates after another write took `us`: lately is an average in which the last few
    /// writes count, quiet a low quantile, which follows a faster write quickly and a slower one
    /// slowly.
    fn after(self, us: f64) -> Self {
        let weight = if us < self.quiet_us { 0.1 } else { 0.0005 };
        Self {
            quiet_us: self.quiet_us + weight * (us - self.quiet_us),
            now_us: self.now_us + 0.2 * (us - self.now_us),
        }
    }
}

/// The api's side: takes note of online writes.
#[derive(Debug)]
pub struct OnlineNotes {
    path: PathBuf,
    state: Mutex<(Option<Online>, Instant)>,
}

impl OnlineNotes {
    /// Notes go to a file beside this buffer file.
    #[must_use]
    pub fn beside(buffer_path: &Path) -> Self {
        Self { path: path_beside(buffer_path), state: Mutex::new((None, Instant::now())) }
    }

    /// Notes that a batch of online writes took this long.
    pub fn note(&self, took: Duration) {
        let us = took.as_secs_f64() * 1e6;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let online = state.0.map_or(Online { quiet_us: us, now_us: us }, |online| online.after(us));
        state.0 = Some(online);
        if state.1.elapsed() < RENEW {
            return;
        }
        state.1 = Instant::now();
        drop(state);
        let path = self.path.clone();
        let Ok(text) = serde_json::to_vec(&online) else { return };
        // Advice that cannot be written is not given; the task ends by itself at once.
        tokio::task::spawn_blocking(move || renew(&path, &text));
    }
}

/// Replay's side: how those who are online fare now; `None` if nobody is.
#[must_use]
pub fn online(buffer_path: &Path) -> Option<Online> {
    let path = path_beside(buffer_path);
    let mut file = open_private_existing(&path).ok()?;
    let renewed = file.metadata().ok()?.modified().ok()?;
    let age = SystemTime::now().duration_since(renewed).unwrap_or_default();
    if age > STALE {
        return None;
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Writes the file anew; one that is not ours alone, or a link, gives way to one that is.
fn renew(path: &Path, text: &[u8]) -> io::Result<()> {
    let opened = open_private(path).or_else(|_| {
        std::fs::remove_file(path)?;
        open_private(path).map_err(io::Error::other)
    });
    let mut file = opened?;
    file.set_len(0)?;
    file.write_all(text)
}

fn path_beside(buffer_path: &Path) -> PathBuf {
    sibling(buffer_path, "online")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_note_that_is_a_link_or_open_to_others_is_not_followed_and_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let buffer = dir.path().join("buffer.redb");
        let (path, elsewhere) = (path_beside(&buffer), dir.path().join("elsewhere"));
        let text = serde_json::to_vec(&Online { quiet_us: 1.0, now_us: 2.0 }).unwrap();
        std::fs::write(&elsewhere, &text).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert_eq!(online(&buffer), None);
        renew(&path, &text).unwrap();
        assert_eq!(online(&buffer), Some(Online { quiet_us: 1.0, now_us: 2.0 }));
        assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(online(&buffer), None);
        renew(&path, &text).unwrap();
        assert!(online(&buffer).is_some());
    }

    #[test]
    fn quiet_is_what_writes_take_when_nothing_is_in_their_way() {
        let mut online = Online { quiet_us: 1000.0, now_us: 1000.0 };
        for _ in 0..200 {
            online = online.after(5000.0);
        }
        assert!(online.slowdown() > 2.5, "{online:?}");
        for _ in 0..100 {
            online = online.after(1000.0);
        }
        assert!(online.slowdown() < 1.1, "{online:?}");
    }
}
