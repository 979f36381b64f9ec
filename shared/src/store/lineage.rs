//! Which PostgreSQL this is, and whether it has lost something that it had committed.
//!
//! A cluster has a system identifier for life. Its write-ahead log has a timeline, which is another one
//! after each promotion of a standby and each recovery to a point in time. The position in the log only
//! grows. So another identifier or timeline, or a position that went back, says that the data may be
//! older than what was read before.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::held::Connections;
use super::{Class, Store, StoreError, column};

/// The flushed position: what is behind it may be lost in a crash, and was not acknowledged.
const LINEAGE: &str = r"
SELECT (SELECT system_identifier FROM pg_control_system()) AS system,
    left(pg_walfile_name(pg_current_wal_flush_lsn()), 8) AS timeline,
    (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS position";

/// A cluster, on one timeline. Shown as 24 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    system: u64,
    timeline: u32,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:08x}", self.system, self.timeline)
    }
}

/// What is known now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Which PostgreSQL was met last; `None` while it is away, and where it does not tell.
    pub identity: Option<Identity>,
    /// Another number after each change of what was met: what was derived from an earlier one is to be
    /// looked at again.
    pub generation: u64,
    /// How often the log of the same PostgreSQL was found to be shorter than before.
    pub setbacks: u64,
}

/// Which PostgreSQL one process has met.
#[derive(Debug, Default)]
pub struct Lineage {
    known: Mutex<Known>,
    /// True once it was told that PostgreSQL does not say who it is.
    told: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    seen: Seen,
    /// The last that was met, and the position of its log.
    last: Option<(Identity, u64)>,
}

impl Lineage {
    /// What is known now.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.known().seen
    }

    /// PostgreSQL is away: which one comes back is not known.
    pub(super) fn forget(&self) {
        self.known().seen.identity = None;
    }

    fn note(&self, identity: Identity, position: u64) {
        let mut known = self.known();
        let before = known.last.replace((identity, position));
        let is_same = before.is_some_and(|(before, _)| before == identity);
        let went_back = is_same && before.is_some_and(|(_, before)| position < before);
        if went_back || (before.is_some() && !is_same) {
            tracing::warn!(
                %identity,
                "PostgreSQL is another one than before, or was set back: what is cached is forgotten"
            );
        }
        known.seen.identity = Some(identity);
        known.seen.setbacks += u64::from(went_back);
        known.seen.generation += u64::from(went_back || !is_same);
    }

    /// Tells once that PostgreSQL does not say who it is.
    fn tell(&self, error: StoreError) {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %error,
                "PostgreSQL does not tell its system identifier and its timeline: after a failover \
                 that loses data, delete the key holdfast:cache:epoch in Redis"
            );
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Reads which PostgreSQL this is. One that does not tell this role is taken for always the same.
    pub(super) async fn read_lineage(&self, connections: &Connections) -> Result<(), StoreError> {
        let rows = match connections.query(LINEAGE, Vec::new()).await {
            Ok(rows) => rows,
            Err(error) => match error.class() {
                Class::Unavailable | Class::Unknown | Class::Transient => return Err(error),
                Class::Schema | Class::Auth | Class::Data | Class::Internal => {
                    self.lineage.tell(error);
                    return Ok(());
                }
            },
        };
        let row = rows.first().ok_or(StoreError::Shape)?;
        let (system, position): (i64, i64) = (column(row, "system")?, column(row, "position")?);
        let timeline = u32::from_str_radix(&column::<String>(row, "timeline")?, 16)
            .map_err(|_| StoreError::Shape)?;
        let identity = Identity { system: system.cast_unsigned(), timeline };
        self.lineage.note(identity, position.cast_unsigned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_cluster_another_timeline_and_a_shorter_log_are_changes_and_a_longer_log_is_none() {
        let (lineage, of) = (Lineage::default(), |system, timeline| Identity { system, timeline });
        let generation_after = |identity, position| {
            lineage.note(identity, position);
            lineage.seen().generation
        };
        assert_eq!(generation_after(of(1, 1), 100), 1);
        assert_eq!(generation_after(of(1, 1), 100), 1);
        assert_eq!(generation_after(of(1, 1), 200), 1);
        assert_eq!(generation_after(of(1, 2), 150), 2);
        assert_eq!(generation_after(of(2, 1), 300), 3);
        assert_eq!(lineage.seen().setbacks, 0);
        assert_eq!(generation_after(of(2, 1), 299), 4);
        assert_eq!(lineage.seen().setbacks, 1);
        lineage.forget();
        assert_eq!((lineage.seen().identity, generation_after(of(2, 1), 299)), (None, 4));
    }

    #[test]
    fn an_identity_has_24_digits() {
        let identity = Identity { system: u64::MAX, timeline: 1 };
        assert_eq!(identity.to_string(), "ffffffffffffffff00000001");
    }
}
