//! The words of Holdfast as types. A value is parsed once, at the edge, and is never validated again.
//! Nothing here performs I/O.
//!
//! Two nodes change one task. Whichever change arrives first, the newer one wins its fields:
//!
//! ```
//! use chrono::Utc;
//! use shared::domain::{
//!     Actor, Change, Clock, Operation, Outcome, Role, TaskChange, TaskFields, TaskPatch, TaskStatus,
//!     Title, apply_to_task,
//! };
//! use uuid::Uuid;
//!
//! let (clock, task_id) = (Clock::default(), Uuid::now_v7());
//! let actor = Actor { user_id: Uuid::new_v4(), role: Role::User, session_id: None };
//! // An operation's id is the version of the fields that it sets.
//! let operation = |change| Operation {
//!     id: clock.next(),
//!     actor,
//!     change: Change::Task(change),
//!     accepted_at: Utc::now(),
//!     request_id: Uuid::new_v4(),
//!     traceparent: None,
//! };
//! let title = |text: &str| Title::try_from(text.to_owned());
//! let rename = |text: &str| {
//!     let patch = TaskPatch { title: Some(title(text)?), ..TaskPatch::default() };
//!     Ok::<_, shared::domain::Invalid>(TaskChange::Patch { task_id, patch, if_match: None })
//! };
//!
//! let fields = TaskFields { title: title("rope")?, description: None, status: TaskStatus::Pending };
//! let create = operation(TaskChange::Create { task_id, fields });
//! let (older, newer) = (operation(rename("rope, 30 m")?), operation(rename("rope, 60 m")?));
//! assert!(older.id < newer.id);
//!
//! let mut task = None;
//! assert_eq!(apply_to_task(&mut task, &create), Outcome::Applied);
//! assert_eq!(apply_to_task(&mut task, &newer), Outcome::Applied);
//! assert_eq!(apply_to_task(&mut task, &older), Outcome::Superseded);
//! let title = task.and_then(|task| task.title);
//! assert_eq!(title.as_ref().map(Title::as_str), Some("rope, 60 m"));
//! # Ok::<(), shared::domain::Invalid>(())
//! ```

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
mod task_overlay;
mod text;
mod time;
mod verdict;

pub use change::{CacheChange, Change, ProfileChange, SessionChange, UserChange};
pub use clock::{Clock, HybridTime, MAX_AHEAD_MS, Version};
pub use fold::{apply_to_profile, apply_to_task};
pub use lane::{EntityKind, Lane};
pub use operation::{Action, Actor, MAX_PRIORITY, Operation, OperationState, Priority};
pub use outcome::{Outcome, Refusal};
pub use overlay::{Base, Seen};
pub use profile::{Preferences, Profile, ProfileVersions, Role, Standing};
pub use retry::{Tries, aged_priority, backoff};
pub use task::{Task, TaskChange, TaskFields, TaskPatch, TaskStatus, TaskVersions};
pub use task_overlay::{TaskPart, see_task};
pub use text::{Description, Invalid, Title};
pub use time::time_as_text;
pub use verdict::{Fate, RetryRules, judge};
