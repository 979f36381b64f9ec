//! The lanes of a batch: by kind, in one order for everybody, and in halves where one of them is to
//! blame for an error.

use std::collections::HashMap;

use super::{Class, StoreError};
use crate::domain::{EntityKind, Lane, Operation, Refusal};

/// The positions of one entity's operations in the batch, in order.
pub(super) type LaneOf = (Lane, Vec<usize>);

/// The lanes by kind, since each kind has its statement. The kind of the most urgent lane comes
/// last, so that a stack yields it first.
pub(super) fn by_kind(operations: &[Operation]) -> Vec<Vec<LaneOf>> {
    let mut places: HashMap<Lane, usize> = HashMap::new();
    let mut groups: Vec<(EntityKind, Vec<LaneOf>)> = Vec::new();
    for (position, operation) in operations.iter().enumerate() {
        let lane = operation.lane();
        let group = match groups.iter().position(|(kind, _)| *kind == lane.kind) {
            Some(known) => &mut groups[known].1,
            None => &mut groups.push_mut((lane.kind, Vec::new())).1,
        };
        let place = *places.entry(lane).or_insert_with(|| {
            group.push((lane, Vec::new()));
            group.len() - 1
        });
        group[place].1.push(position);
    }
    groups.into_iter().rev().map(|(_, lanes)| lanes).collect()
}

/// Lanes in one order for everybody, so that batches do not lock each other's rows crosswise.
pub(super) fn in_order(lanes: &[LaneOf]) -> Vec<&LaneOf> {
    let mut lanes: Vec<&LaneOf> = lanes.iter().collect();
    lanes.sort_by_key(|(lane, _)| lane.id);
    lanes
}

/// What an operation is refused with if it is alone to blame for an error; `None` if it cannot be.
pub(super) fn blame(error: StoreError) -> Option<Refusal> {
    let state = match error {
        StoreError::Refused(state) => state.0,
        StoreError::Unreachable
        | StoreError::Broken
        | StoreError::TimedOut
        | StoreError::Late
        | StoreError::Contended
        | StoreError::Shape => *b"SHAPE",
    };
    match error.class() {
        Class::Data => Some(Refusal::Data(state)),
        Class::Internal => Some(Refusal::Internal(state)),
        Class::Transient => Some(Refusal::Busy),
        Class::Unavailable | Class::Unknown | Class::Schema | Class::Auth => None,
    }
}

/// What is left of a group that met an error.
pub(super) enum Split {
    /// Two halves, to be tried one after the other, the last first.
    Halves([Vec<LaneOf>; 2]),
    /// The position of the one operation there was.
    Alone(usize),
}

/// Halves a group: by lanes, then by the operations of the one lane, the first to come being last
/// so that a stack yields it first.
pub(super) fn split(group: Vec<LaneOf>) -> Split {
    let mut group = group;
    if group.len() > 1 {
        let second = group.split_off(group.len() / 2);
        return Split::Halves([second, group]);
    }
    match group.pop() {
        Some((lane, mut positions)) if positions.len() > 1 => {
            let second = positions.split_off(positions.len() / 2);
            Split::Halves([vec![(lane, second)], vec![(lane, positions)]])
        }
        Some((_, positions)) => Split::Alone(positions.first().copied().unwrap_or_default()),
        None => Split::Halves([Vec::new(), Vec::new()]),
    }
}
