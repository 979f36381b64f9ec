//! Reading: pending operations first, then the cache (all but lists), then PostgreSQL, so that a client
//! reads its own writes.
//!
//! With PostgreSQL away, what pending operations and the cache tell is answered and marked stale.

mod error;
mod gather;
mod list;
mod profile;
mod task;
mod totals;

pub use error::ReadError;
pub use gather::{Known, Reader, TaskReader};
pub use list::{Listed, task_list};
pub use profile::profile;
pub use task::{after, pending_create, task};
pub use totals::Totals;

use serde::de::DeserializeOwned;
use shared::buffer::{Buffer, BufferError};
use shared::cache::{EntityCache, Look};
use shared::domain::{EntityKind, Lane, Operation};
use uuid::Uuid;

use crate::shapes::Source;

/// Something that was read, and where from.
#[derive(Clone, Debug)]
pub struct Found<V> {
    /// What was read.
    pub view: V,
    /// Where it comes from.
    pub source: Source,
    /// True if PostgreSQL could not be asked.
    pub stale: bool,
}

/// The pending operations of each of some entities, and what is cached of them, looked at in this order:
/// nothing is read from the cache while an operation waits that says that it is to be emptied.
async fn pending_and_cached<T: DeserializeOwned>(
    buffer: &Buffer,
    cache: &EntityCache,
    kind: EntityKind,
    ids: &[Uuid],
) -> Result<(Vec<Vec<Operation>>, Option<Look<T>>), BufferError> {
    let lanes = ids.iter().map(|id| Lane { kind, id: *id });
    let mut waiting = buffer.lanes(lanes.chain([Lane::CACHE]).collect()).await?;
    let trusted = waiting.pop().is_none_or(|of_cache| of_cache.number == 0);
    let look = if trusted { cache.look(kind, ids).await } else { None };
    Ok((waiting.into_iter().map(|lane| lane.operations).collect(), look))
}

/// Where an entity comes from that has these pending operations.
fn source(pending: &[Operation], cached: bool) -> Source {
    match (pending, cached) {
        ([_, ..], _) => Source::Overlay,
        ([], true) => Source::Cache,
        ([], false) => Source::Database,
    }
}
