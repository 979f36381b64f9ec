//! Reading: pending operations first, then the cache (all but lists), then PostgreSQL, so that a client
//! reads its own writes.
//!
//! With PostgreSQL away, what pending operations and the cache tell is answered and marked stale.

mod gather;
mod list;
mod profile;
mod task;
mod view;

pub use gather::{Known, Reader, TaskReader};
pub use list::{Listed, task_list};
pub use profile::profile;
pub use task::{after, pending_create, task};
pub use view::{Found, ProfileView, TaskView};

use shared::domain::Operation;

use crate::http::Source;

/// Where an entity comes from that has these pending operations.
fn source(pending: &[Operation], cached: bool) -> Source {
    match (pending, cached) {
        ([_, ..], _) => Source::Overlay,
        ([], true) => Source::Cache,
        ([], false) => Source::Database,
    }
}
