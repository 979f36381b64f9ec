//! This process's opinion of PostgreSQL: a circuit breaker that keeps requests from waiting for a
//! database that is known to be away.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Store, StoreError};

use crate::metric;

/// Pause between two looks at a PostgreSQL that is up. With the time that reads have by default, one
/// that hangs is noticed within two seconds, also when nobody asks for anything.
const LOOK: Duration = Duration::from_millis(750);

/// Earlier spans of PostgreSQL being up that are kept in mind, at the most.
const SPANS: usize = 64;

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

/// A state, and since when PostgreSQL has been up, or has not been; `None` until it is looked for.
#[derive(Clone, Debug)]
struct Opinion {
    state: LinkState,
    since: Option<Instant>,
    /// From when to when it was up before, oldest first.
    was_up: VecDeque<(Instant, Instant)>,
}

impl Opinion {
    fn is_up(&self) -> bool {
        self.state == LinkState::Up
    }

    /// Takes on another state, and returns whether that opened or closed the breaker.
    fn become_state(&mut self, state: LinkState, now: Instant) -> bool {
        let was_up = self.is_up();
        self.state = state;
        let has_turned = was_up != self.is_up();
        if has_turned || self.since.is_none() {
            let since = self.since.replace(now);
            if let Some(since) = since.filter(|_| was_up) {
                if self.was_up.len() == SPANS {
                    self.was_up.pop_front();
                }
                self.was_up.push_back((since, now));
            }
        }
        has_turned
    }

    fn lasts(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn up_between(&self, from: Option<Instant>, now: Instant) -> Duration {
        let is_up = self.since.filter(|_| self.is_up()).map(|since| (since, now));
        let spans = self.was_up.iter().copied().chain(is_up);
        let within = spans.map(|(begin, end)| {
            let begin = from.map_or(begin, |from| begin.max(from));
            end.saturating_duration_since(begin)
        });
        within.sum()
    }
}

/// The circuit breaker. Starts `Down`: only a probe that has written closes it.
#[derive(Debug)]
pub struct Link {
    opinion: watch::Sender<Opinion>,
    /// What the last probe met, so that each new trouble is told once.
    met: Mutex<Option<StoreError>>,
}

impl Default for Link {
    fn default() -> Self {
        let opinion = Opinion { state: LinkState::Down, since: None, was_up: VecDeque::new() };
        Self { opinion: watch::Sender::new(opinion), met: Mutex::new(None) }
    }
}

impl Link {
    /// What this process thinks of PostgreSQL now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.opinion.borrow().state
    }

    /// True if requests may ask PostgreSQL.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state() == LinkState::Up
    }

    /// For how long PostgreSQL has been up in all within the last `span`, as far as this process has
    /// looked for it: breaks do not make it begin anew. By a clock that does not jump. After very many
    /// breaks it is less than it was.
    #[must_use]
    pub fn up_within(&self, span: Duration) -> Duration {
        // Longer ago than that clock reaches: all there is.
        let now = Instant::now();
        self.opinion.borrow().up_between(now.checked_sub(span), now)
    }

    /// For how long PostgreSQL has been away without a break, as far as this process has looked for it;
    /// `None` if it is up. By a clock that does not jump.
    #[must_use]
    pub fn away_for(&self) -> Option<Duration> {
        let opinion = self.opinion.borrow();
        (!opinion.is_up()).then(|| opinion.lasts())
    }

    /// Notes what a request has met: an error that others would meet as well opens the breaker.
    pub fn report(&self, error: StoreError) {
        let class = error.class();
        if !class.breaks_the_link() {
            return;
        }
        let opened = self.opinion.send_if_modified(|opinion| {
            opinion.is_up() && opinion.become_state(LinkState::Down, Instant::now())
        });
        if opened {
            metrics::gauge!(metric::LINK_STATE.name).set(0.0);
            tracing::error!(%error, class = class.as_str(), "PostgreSQL is away: writes go to the buffer");
        }
    }

    /// Probes PostgreSQL once, and closes the breaker if it takes writes.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn probe(&self, store: &Store) -> Result<(), StoreError> {
        if !self.is_up() {
            self.turn(LinkState::Probing);
        }
        let probed = store.probe().await;
        let now = if probed.is_ok() { LinkState::Up } else { LinkState::Down };
        let has_turned = self.turn(now);
        metrics::gauge!(metric::LINK_STATE.name).set(if now == LinkState::Up { 1.0 } else { 0.0 });
        if has_turned && now == LinkState::Up {
            tracing::info!("PostgreSQL takes writes");
        }
        self.tell(probed.err());
        probed
    }

    /// Takes on another state, and returns whether that opened or closed the breaker.
    fn turn(&self, state: LinkState) -> bool {
        let mut has_turned = false;
        self.opinion.send_modify(|opinion| {
            has_turned = opinion.become_state(state, Instant::now());
        });
        has_turned
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
        let _ = self.opinion.subscribe().wait_for(|now| now.state != state).await;
    }

    /// Keeps looking at PostgreSQL while the link is up, without end: that it is away is found out
    /// without anybody asking for anything.
    pub async fn keep_looking(&self, store: &Store) {
        loop {
            // As above: this cannot fail.
            let _ = self.opinion.subscribe().wait_for(|now| now.is_up()).await;
            tokio::time::sleep(LOOK).await;
            let looked = if self.is_up() { store.look().await } else { Ok(()) };
            match looked {
                Ok(()) => {}
                // All connections may be in use: a probe has one of its own.
                Err(StoreError::Unreachable) => drop(self.probe(store).await),
                Err(error) => self.report(error),
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_from_the_first_look_and_from_each_turn_and_from_no_probe_in_between() {
        let link = Link::default();
        let since = || link.opinion.borrow().since;
        let up_for = || link.up_within(Duration::MAX);
        let nothing = (None, Some(Duration::ZERO), Duration::ZERO);
        assert_eq!((since(), link.away_for(), up_for()), nothing);
        link.turn(LinkState::Probing);
        let looked = since();
        assert!(looked.is_some());
        link.turn(LinkState::Down);
        link.turn(LinkState::Probing);
        assert!(since() == looked && link.away_for().is_some() && up_for().is_zero());
        assert!(link.turn(LinkState::Up));
        let up = since();
        assert!(up > looked && link.away_for().is_none() && !up_for().is_zero());
        assert!(!link.turn(LinkState::Up));
        assert_eq!(since(), up);
        link.report(StoreError::Broken);
        assert!(since() > up && link.away_for().is_some());
    }

    #[test]
    fn the_time_that_postgresql_was_up_goes_on_after_a_break() {
        let link = Link::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut opinion = link.opinion.borrow().clone();
        for round in 0..3 {
            opinion.become_state(LinkState::Probing, at(110 * round));
            opinion.become_state(LinkState::Up, at(110 * round + 10));
            opinion.become_state(LinkState::Down, at(110 * round + 110));
        }
        let up = |opinion: &Opinion, from, to| opinion.up_between(Some(at(from)), at(to)).as_secs();
        assert_eq!([280, 225, 210, 0].map(|from| up(&opinion, from, 330)), [50, 100, 110, 300]);
        opinion.become_state(LinkState::Up, at(340));
        assert_eq!([342, 300, 0].map(|from| up(&opinion, from, 347)), [5, 37, 307]);
        assert_eq!(opinion.up_between(None, at(347)), Duration::from_secs(307));
        for _ in 0..2 * SPANS {
            opinion.become_state(LinkState::Down, at(350));
            opinion.become_state(LinkState::Up, at(350));
        }
        assert_eq!(opinion.was_up.len(), SPANS);
    }
}
