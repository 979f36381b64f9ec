//! Waiting for conditions with a deadline, never for a guessed time.

use std::time::{Duration, Instant};

const POLL_EVERY: Duration = Duration::from_millis(10);

/// Polls `condition` until it holds; answers how long that took.
///
/// # Panics
/// With `what`, when it does not hold within the deadline.
pub async fn wait_until(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) -> Duration {
    let started = Instant::now();
    wait_for(deadline, what, async || condition().await.then_some(())).await;
    started.elapsed()
}

/// Polls `attempt` until it yields something; answers that.
///
/// # Panics
/// With `what`, when it yields nothing within the deadline, also when a single attempt hangs.
pub async fn wait_for<T>(
    deadline: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Option<T>,
) -> T {
    let polling = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    };
    match tokio::time::timeout(deadline, polling).await {
        Ok(found) => found,
        Err(_) => panic!("waited {deadline:?} in vain: {what}"),
    }
}
