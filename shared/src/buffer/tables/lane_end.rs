//! How far a lane goes.

use uuid::Uuid;

use crate::buffer::format::layout::LaneState;
use crate::buffer::wal::tail::Group;
use crate::domain::Version;

/// How far a lane goes, as a reader saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneEnd {
    /// How many operations are pending.
    pub(in crate::buffer) count: u64,
    /// The newest of their ids.
    pub(in crate::buffer) newest: Option<Version>,
}

impl LaneEnd {
    /// The end of a lane that has this state in the tables, and these operations in the tail.
    pub(in crate::buffer) fn of(indexed: Option<&LaneState>, tail: Option<&Group>) -> Self {
        let newest = indexed.map(|state| state.newest).max(tail.map(|group| group.newest));
        Self {
            count: indexed.map_or(0, LaneState::len) + tail.map_or(0, Group::count),
            newest: newest.map(|id| Version::from_uuid(Uuid::from_u128(id))),
        }
    }
}
