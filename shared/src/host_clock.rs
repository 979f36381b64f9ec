//! The clock that all processes of a host share. What is acknowledged later on a host has the greater
//! version, across all of its processes and their restarts.
//!
//! Each process has a clock of its own ([`Clock`]), and all of them read the same wall clock. A
//! process's clock can be ahead of the wall clock for two reasons: it has read versions of another host
//! whose clock is fast, or the wall clock was set back. Then the process writes its reading beside the
//! buffer file before it answers ([`ClockSlot`]), and the others go on from there. Each process also
//! writes its reading once a second. Processes that start after the wall clock was set back go on from
//! that.
//!
//! A version from too far ahead moves no clock. The buffer file remembers it for its entity alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::buffer::{Buffer, ClockSlot, OpenError};
use crate::domain::{Clock, HybridTime, Lane, Version};

/// How often the mark is written beside the buffer file in any case, and brought to the disk.
const SYNC: Duration = Duration::from_secs(1);
/// How long writing a mark may take before it is gone on without.
const WRITE: Duration = Duration::from_millis(200);
/// By how much the wall clock has to fall behind one that does not jump before it counts as set back
/// (milliseconds).
const STEP_MS: u64 = 20;
/// Entities of which it is known that the buffer file remembers them, at the most.
const REMEMBERED: usize = 100_000;

/// The clock of a host, as one process sees it.
#[derive(Debug)]
pub struct HostClock {
    clock: Arc<Clock>,
    buffer: Arc<Buffer>,
    slot: RwLock<Arc<ClockSlot>>,
    /// Versions from far ahead that the buffer file is known to remember.
    remembered: Mutex<HashMap<Lane, Version>>,
    /// Whether the last write of a mark failed: it is told once.
    has_failed: AtomicBool,
    /// What the wall clock showed lately (Unix milliseconds), and when, by a clock that does not jump.
    shown: Mutex<(u64, Instant)>,
}

impl HostClock {
    /// Goes on from where the clocks of this host are, or were when their processes ended.
    ///
    /// # Errors
    /// If the file beside the buffer file cannot be used.
    pub fn open(buffer: Arc<Buffer>) -> Result<Self, OpenError> {
        let (slot, from) = ClockSlot::claim(&buffer.settings().buffer_path)?;
        let clock = Arc::new(Clock::default());
        clock.go_on_from(from);
        Ok(Self {
            clock,
            buffer,
            slot: RwLock::new(Arc::new(slot)),
            remembered: Mutex::default(),
            has_failed: AtomicBool::new(false),
            shown: Mutex::new((HybridTime::now().millis, Instant::now())),
        })
    }

    /// Draws a version greater than all that were acknowledged or served by this host before.
    pub fn next(&self) -> Version {
        // From memory of the kernel's: a thousand bytes that are written again and again.
        self.clock.go_on_from(self.slot().highest());
        self.bridge_a_step_back();
        self.clock.next()
    }

    /// If the wall clock was set back, goes on from where it would be: what other processes have drawn
    /// before is behind that.
    fn bridge_a_step_back(&self) {
        let (shown, at) = *self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let expected = shown.saturating_add(passed);
        if expected > HybridTime::now().millis + STEP_MS {
            self.clock.go_on_from(HybridTime { millis: expected, counter: 0 });
        }
    }

    /// The clock of this process.
    #[must_use]
    pub fn of_process(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Takes note of versions that were read, or written, before they are served or acknowledged: later
    /// ones of any process of this host exceed them.
    pub async fn saw(&self, seen: impl IntoIterator<Item = (Lane, Version)>) {
        // Those of creates are older than whatever is drawn.
        let is_far = |(_, version): &(Lane, Version)| {
            version.time().millis > 0 && self.clock.observe(*version)
        };
        let far: Vec<(Lane, Version)> = seen.into_iter().filter(is_far).collect();
        if self.clock.time() > HybridTime::now() {
            self.write_mark().await;
        }
        if !far.is_empty() {
            self.remember(far).await;
        }
    }

    async fn write_mark(&self) {
        let (slot, time) = (self.slot(), self.clock.time());
        let writing = tokio::task::spawn_blocking(move || slot.write(time));
        let error = match tokio::time::timeout(WRITE, writing).await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(error.to_string()),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it takes too long".to_owned()),
        };
        let had_failed = self.has_failed.swap(error.is_some(), Ordering::Relaxed);
        if let Some(error) = error.filter(|_| !had_failed) {
            tracing::error!(error, "the clock's mark cannot be written beside the buffer file");
        }
    }

    async fn remember(&self, far: Vec<(Lane, Version)>) {
        let is_new = |(lane, version): &(Lane, Version)| {
            let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.get(lane).is_none_or(|known| known < version)
        };
        let new: Vec<(Lane, Version)> = far.into_iter().filter(is_new).collect();
        if new.is_empty() {
            return;
        }
        if let Err(error) = self.buffer.remember_ahead(new.clone()).await {
            tracing::error!(%error, "versions of a clock far ahead cannot be remembered");
            return;
        }
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() + new.len() > REMEMBERED {
            remembered.clear();
        }
        remembered.extend(new);
    }

    /// Brings marks to the disk, and finds them again if their file was replaced, for as long as it is
    /// polled.
    pub async fn keep_marks(&self) {
        loop {
            tokio::time::sleep(SYNC).await;
            self.bridge_a_step_back();
            *self.shown.lock().unwrap_or_else(PoisonError::into_inner) =
                (HybridTime::now().millis, Instant::now());
            let (slot, path) = (self.slot(), self.buffer.settings().buffer_path.clone());
            let time = self.clock.time().max(HybridTime::now());
            let kept = tokio::task::spawn_blocking(move || {
                let another = if slot.is_in_place() { None } else { Some(ClockSlot::claim(&path)) };
                (another, slot.write(time).and_then(|()| slot.sync()))
            });
            match kept.await {
                Ok((None, Ok(()))) => {}
                Ok((Some(Ok((slot, from))), _)) => {
                    tracing::error!("the clock's file beside the buffer file was replaced");
                    self.clock.go_on_from(from);
                    *self.slot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(slot);
                    self.write_mark().await;
                }
                Ok((Some(Err(error)), _)) => {
                    tracing::error!(%error, "the clock's file beside the buffer file is gone");
                }
                Ok((None, Err(error))) => {
                    tracing::error!(%error, "the clock's mark cannot be brought to the disk");
                }
                Err(error) => tracing::error!(%error, "the clock's mark was not kept"),
            }
        }
    }

    fn slot(&self) -> Arc<ClockSlot> {
        Arc::clone(&self.slot.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::EntityKind;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::settings::BufferSettings;

    const PROCESSES: usize = 3;
    /// Within what a clock follows.
    const LEAD_MS: u64 = 50_000;

    #[derive(Clone, Debug)]
    enum Event {
        Draw(usize),
        See(usize, u64),
        Restart(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        let process = 0..PROCESSES;
        prop_oneof![
            4 => process.clone().prop_map(Event::Draw),
            2 => (process.clone(), 0..LEAD_MS).prop_map(|(process, lead)| Event::See(process, lead)),
            1 => process.prop_map(Event::Restart),
        ]
    }

    /// A version as another host draws it, whose clock is ahead.
    fn from_ahead(millis: u64) -> Version {
        let bits = u128::from(HybridTime::now().millis + millis) << 80 | 0x7 << 76 | 0b10 << 62;
        Version::from_uuid(Uuid::from_u128(bits))
    }

    async fn play(events: Vec<Event>) {
        let folder = tempfile::tempdir().unwrap();
        let settings = BufferSettings {
            buffer_path: folder.path().join("buffer.redb"),
            ..BufferSettings::default()
        };
        let buffer = Arc::new(Buffer::open(&settings).unwrap());
        let open = || Some(HostClock::open(Arc::clone(&buffer)).unwrap());
        let mut clocks: Vec<Option<HostClock>> = (0..PROCESSES).map(|_| open()).collect();
        let lane = Lane { kind: EntityKind::Task, id: Uuid::nil() };
        let mut newest = Version::NONE;
        for event in events {
            match event {
                Event::Draw(process) => {
                    let clock = clocks[process].as_ref().unwrap();
                    let drawn = clock.next();
                    assert!(drawn > newest, "{drawn} after {newest}");
                    newest = drawn;
                    // It is committed, and answered.
                    clock.saw([(lane, drawn)]).await;
                }
                Event::See(process, lead) => {
                    let seen = from_ahead(lead);
                    clocks[process].as_ref().unwrap().saw([(lane, seen)]).await;
                    newest = newest.max(seen);
                }
                Event::Restart(process) => {
                    clocks[process] = None;
                    clocks[process] = open();
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn what_a_host_acknowledges_later_is_newer_over_all_processes_and_restarts(
            events in prop::collection::vec(event(), 1..60)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(play(events));
        }
    }
}
