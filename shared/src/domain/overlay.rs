//! An entity as one user sees it: pending operations are laid over what was read, so that users read
//! their own writes. The rules are those of `fold`: the newest write of a field counts, whatever the
//! order of the operations.
//!
//! [`Overlay`] holds what differs from one kind of entity to another; how much is known of an entity, and
//! what a user may see of it, is the same for all of them.

use uuid::Uuid;

use super::{Operation, Outcome, Task, TaskPart};

/// What is known of an entity apart from pending operations.
#[derive(Clone, Debug)]
pub enum Base<T = Task> {
    /// PostgreSQL could not be asked.
    Unknown,
    /// PostgreSQL was asked; `None`: the entity is not there.
    Read(Option<T>),
}

/// An entity as one user sees it.
#[derive(Clone, Debug)]
pub enum Seen<T = Task, P = TaskPart> {
    /// This node cannot tell.
    Unknown,
    /// Not there, deleted, or somebody else's: to this user that is all the same.
    Absent,
    /// All of it.
    Whole(T),
    /// What pending operations say of an entity that cannot be read, or that is not there yet.
    Part(P),
}

/// What is known of an entity while operations are laid over it.
enum Known<T, P> {
    /// PostgreSQL could not be asked.
    Unknown,
    /// PostgreSQL does not have it.
    NotThere,
    /// It was deleted.
    Deleted,
    Whole(T),
    Part(P),
}

/// How operations are laid over entities of one kind.
pub(super) struct Overlay<T, P> {
    /// Applies an operation to an entity of which all is known.
    pub(super) apply: fn(&mut Option<T>, &Operation) -> Outcome,
    /// What is known of an entity after an operation, when nothing but the part was known before, or
    /// nothing at all; `None` if it is deleted then.
    pub(super) add: fn(Option<P>, &Operation) -> Option<P>,
    /// Whether a user sees an entity: it is theirs, and not deleted.
    pub(super) is_seen_by: fn(&T, Uuid) -> bool,
}

impl<T, P> Overlay<T, P> {
    /// Lays an entity's pending operations, oldest first, over what is known of it, for `viewer`.
    pub(super) fn see(&self, base: Base<T>, pending: &[Operation], viewer: Uuid) -> Seen<T, P> {
        let mut known = match base {
            Base::Unknown => Known::Unknown,
            Base::Read(None) => Known::NotThere,
            Base::Read(Some(entity)) => Known::Whole(entity),
        };
        for operation in pending {
            let is_own = operation.actor.user_id == viewer;
            known = match known {
                Known::Deleted => Known::Deleted,
                Known::Whole(entity) => self.whole(Some(entity), operation),
                Known::Part(part) if is_own => self.part(Some(part), operation),
                Known::Part(part) => Known::Part(part),
                Known::Unknown => self.first_word(Known::Unknown, operation, is_own),
                Known::NotThere => self.first_word(Known::NotThere, operation, is_own),
            };
        }
        match known {
            Known::Unknown => Seen::Unknown,
            Known::NotThere | Known::Deleted => Seen::Absent,
            Known::Whole(entity) if (self.is_seen_by)(&entity, viewer) => Seen::Whole(entity),
            Known::Whole(_) => Seen::Absent,
            Known::Part(part) => Seen::Part(part),
        }
    }

    /// What the first pending operation tells of an entity of which nothing else is known, or that is not
    /// there: an edit of it then waits for a create that another node still holds.
    fn first_word(&self, before: Known<T, P>, operation: &Operation, is_own: bool) -> Known<T, P> {
        // A create with a key may repeat one that was committed before, and then changes nothing.
        let may_repeat = matches!(before, Known::Unknown) && operation.is_repeatable_create();
        match operation.creates() {
            Some(_) if is_own && may_repeat => self.part(None, operation),
            Some(_) => self.whole(None, operation),
            None if is_own => self.part(None, operation),
            None => before,
        }
    }

    fn whole(&self, entity: Option<T>, operation: &Operation) -> Known<T, P> {
        let mut entity = entity;
        (self.apply)(&mut entity, operation);
        entity.map_or(Known::NotThere, Known::Whole)
    }

    fn part(&self, part: Option<P>, operation: &Operation) -> Known<T, P> {
        (self.add)(part, operation).map_or(Known::Deleted, Known::Part)
    }
}
