//! One active worker per buffer file. A second worker waits as a standby until the first has ended, in
//! order or by a crash.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use shared::buffer::{open_private, sibling};

/// How often a standby looks whether the place is free. The lock is the kernel's: it is free as soon
/// as the process that held it is gone.
const LOOK: Duration = Duration::from_millis(250);

/// Waits until this is the one worker on the buffer file. It stays so until the returned file is
/// dropped.
///
/// # Errors
/// If the lock file cannot be made or locked at all, or is not ours alone.
pub async fn become_active(buffer_path: &Path) -> io::Result<File> {
    let file = open_private(&sibling(buffer_path, "worker-lock")).map_err(io::Error::other)?;
    let mut waiting = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut waiting, true) {
                    tracing::info!("another worker is active on this buffer: standing by");
                }
                tokio::time::sleep(LOOK).await;
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}
