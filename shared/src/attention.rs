//! Conditions that an operator should look at. `/health` of both processes lists them.

use crate::buffer::Stats;
use crate::store::CLOCK_SKEW_US;

/// Beyond this one times of this host are not to be relied on.
const GREAT_SKEW_US: u64 = 60_000_000;

/// What somebody should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Replay has given operations up.
    DeadLetters,
    /// Records are set aside that cannot be read.
    Quarantine,
    /// Operations are pending that replay never comes to: the buffer file is damaged, and not repaired.
    BufferStuck,
    /// An operator has stopped replay.
    Paused,
    /// The clocks of PostgreSQL and this host are more than a second apart.
    ClockSkew,
    /// The buffer file is an older copy of itself.
    OldCopy,
}

impl Attention {
    /// The word that `/health` has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeadLetters => "dead_letters",
            Self::Quarantine => "quarantine",
            Self::BufferStuck => "buffer_stuck",
            Self::Paused => "paused",
            Self::ClockSkew => "clock_skew",
            Self::OldCopy => "old_copy",
        }
    }
}

/// What the attention that is needed follows from.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// How full the buffer is.
    pub stats: Stats,
    /// Whether an operator has stopped replay.
    pub is_paused: bool,
    /// PostgreSQL's clock minus this host's (microseconds).
    pub clock_offset_us: i64,
    /// Whether the worker has found that the buffer file is an older copy of itself.
    pub has_old_copy: bool,
    /// Whether the worker has found it damaged, and could not have it repaired.
    pub is_buffer_stuck: bool,
}

impl Signs {
    /// What somebody should look at.
    #[must_use]
    pub fn attention(&self) -> Vec<Attention> {
        let signs = [
            (self.stats.dead > 0, Attention::DeadLetters),
            (self.stats.quarantined > 0, Attention::Quarantine),
            (self.is_stuck(), Attention::BufferStuck),
            (self.is_paused, Attention::Paused),
            (self.clock_offset_us.unsigned_abs() > CLOCK_SKEW_US, Attention::ClockSkew),
            (self.has_old_copy, Attention::OldCopy),
        ];
        signs.into_iter().filter_map(|(is_so, attention)| is_so.then_some(attention)).collect()
    }

    /// True if the service is not what it should be, so that `/health` answers 503. Dead letters and
    /// records in quarantine can wait for somebody to come.
    #[must_use]
    pub fn are_grave(&self) -> bool {
        self.is_stuck()
            || self.is_paused
            || self.has_old_copy
            || self.clock_offset_us.unsigned_abs() > GREAT_SKEW_US
    }

    fn is_stuck(&self) -> bool {
        self.stats.is_stuck || self.is_buffer_stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_wait_is_shown_and_what_cannot_is_grave() {
        let full = Stats { pending: 5, waiting_lanes: 5, ..Stats::default() };
        let calm = Signs {
            stats: full,
            is_paused: false,
            clock_offset_us: -900_000,
            has_old_copy: false,
            is_buffer_stuck: false,
        };
        assert_eq!((calm.attention(), calm.are_grave()), (vec![], false));
        let stats = |stats: Stats| Signs { stats, ..calm };
        for (signs, attention, is_grave) in [
            (stats(Stats { dead: 1, ..full }), Attention::DeadLetters, false),
            (stats(Stats { quarantined: 1, ..full }), Attention::Quarantine, false),
            (stats(Stats { is_stuck: true, ..full }), Attention::BufferStuck, true),
            (Signs { is_buffer_stuck: true, ..calm }, Attention::BufferStuck, true),
            (Signs { is_paused: true, ..calm }, Attention::Paused, true),
            (Signs { clock_offset_us: -1_100_000, ..calm }, Attention::ClockSkew, false),
            (Signs { clock_offset_us: 61_000_000, ..calm }, Attention::ClockSkew, true),
            (Signs { has_old_copy: true, ..calm }, Attention::OldCopy, true),
        ] {
            assert_eq!(signs.attention(), [attention]);
            assert_eq!(signs.are_grave(), is_grave, "{attention:?}");
        }
    }
}
