//! This process's opinion of PostgreSQL: a circuit breaker that keeps requests from waiting for a
//! database that is known to be away.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Store, StoreError};

/// What this process thinks of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It takes writes.
    Up,
    /// It does not; nothing waits for it.
    Down,
    /// It did not; a probe is under way, and nothing else waits for it.
    Probing,
}

/// The circuit breaker. Starts `Down`: only a probe that has written closes it.
#[derive(Debug)]
pub struct Link {
    state: watch::Sender<LinkState>,
    /// What the last probe met, so that each new trouble is told once.
    met: Mutex<Option<StoreError>>,
}

impl Default for Link {
    fn default() -> Self {
        Self { state: watch::Sender::new(LinkState::Down), met: Mutex::new(None) }
    }
}

impl Link {
    /// What this process thinks of PostgreSQL now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        *self.state.borrow()
    }

    /// True if requests may ask PostgreSQL.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state() == LinkState::Up
    }

    /// Notes what a request has met: an error that others would meet as well opens the breaker.
    pub fn report(&self, error: StoreError) {
        let class = error.class();
        if !class.breaks_the_link() {
            return;
        }
        let opened = self.state.send_if_modified(|state| {
            let was_up = *state == LinkState::Up;
            if was_up {
                *state = LinkState::Down;
            }
            was_up
        });
        if opened {
            metrics::gauge!("link_state").set(0.0);
            tracing::error!(%error, class = class.as_str(), "PostgreSQL is away: writes go to the buffer");
        }
    }

    /// Probes PostgreSQL once, and closes the breaker if it takes writes.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn probe(&self, store: &Store) -> Result<(), StoreError> {
        if !self.is_up() {
            self.state.send_replace(LinkState::Probing);
        }
        let probed = store.probe().await;
        let now = if probed.is_ok() { LinkState::Up } else { LinkState::Down };
        let before = self.state.send_replace(now);
        metrics::gauge!("link_state").set(if now == LinkState::Up { 1.0 } else { 0.0 });
        if before != LinkState::Up && now == LinkState::Up {
            tracing::info!("PostgreSQL takes writes");
        }
        self.tell(probed.err());
        probed
    }

    fn tell(&self, met: Option<StoreError>) {
        let mut before = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = met.filter(|_| *before != met) {
            let class = error.class().as_str();
            tracing::error!(%error, class, "PostgreSQL does not take writes");
        }
        *before = met;
    }

    /// Waits until the state is another than `state`.
    pub async fn left(&self, state: LinkState) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.state.subscribe().wait_for(|now| *now != state).await;
    }

    /// Keeps probing while the link is down, every `interval`, until `shutdown`.
    pub async fn keep_probing(
        &self,
        store: &Store,
        interval: Duration,
        shutdown: CancellationToken,
    ) {
        let keep = async {
            loop {
                self.left(LinkState::Up).await;
                if self.probe(store).await.is_err() {
                    tokio::time::sleep(interval).await;
                }
            }
        };
        shutdown.run_until_cancelled(keep).await;
    }
}
