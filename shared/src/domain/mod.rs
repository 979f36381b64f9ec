//! The words of Holdfast as types: what is inside them has been parsed once, at the edge, and is
//! never validated again. Nothing here performs I/O.

mod change;
mod clock;
mod fold;
mod lane;
mod operation;
mod outcome;
mod overlay;
mod profile;
mod retry;
mod task;
mod text;
mod time;
mod verdict;

pub use change::{CacheChange, Change, ProfileChange, SessionChange, UserChange};
pub use clock::{Clock, HybridTime, MAX_AHEAD_MS, Version};
pub use fold::{apply_to_profile, apply_to_task};
pub use lane::{EntityKind, Lane};
pub use operation::{Action, Actor, MAX_PRIORITY, Operation, OperationState, Priority};
pub use outcome::{Outcome, Refusal};
pub use overlay::{Base, Seen, TaskPart, see_task};
pub use profile::{Preferences, Profile, ProfileVersions, Role, Standing};
pub use retry::{Tries, aged_priority, backoff};
pub use task::{Task, TaskChange, TaskFields, TaskPatch, TaskStatus, TaskVersions};
pub use text::{Description, Invalid, Title};
pub use time::time_as_text;
pub use verdict::{Fate, RetryRules, judge};
