//! The parameters of the list of tasks, parsed into a query.

use chrono::DateTime;
use shared::domain::{TaskStatus, Title};
use shared::store::{ListOrder, ListPosition, PageStart, TaskFilter, TaskQuery};
use uuid::Uuid;

use super::error::ApiError;
use super::parameters::in_range;

/// Entries of a page if the client does not say.
const DEFAULT_LIMIT: u64 = 20;
/// Entries of a page at the most.
const MAX_LIMIT: u64 = 100;
/// The furthest page that may be asked for by number.
const MAX_PAGE: u64 = 1_000_000;
/// The year 10000 in Unix microseconds: what both chrono and PostgreSQL can hold.
const MAX_MICROS: i64 = 253_402_300_800_000_000;

/// What a client asked for.
pub(super) struct Parameters {
    pub(super) user_id: Uuid,
    pub(super) page: Option<u64>,
    pub(super) limit: Option<u64>,
    pub(super) order: Option<String>,
    pub(super) status: Option<String>,
    pub(super) q: Option<String>,
    pub(super) cursor: Option<String>,
}

/// Reads the parameters; what does not fit is named.
pub(super) fn parse(asked: Parameters) -> Result<TaskQuery, ApiError> {
    let limit = in_range("limit", asked.limit.unwrap_or(DEFAULT_LIMIT), MAX_LIMIT)?;
    let start = match asked.cursor.as_deref() {
        Some(cursor) => PageStart::After(position(cursor)?),
        None => {
            let page = in_range("page", asked.page.unwrap_or(1), MAX_PAGE)?;
            PageStart::Offset((page - 1) * limit)
        }
    };
    let order = match asked.order.as_deref() {
        None | Some("desc") => ListOrder::Descending,
        Some("asc") => ListOrder::Ascending,
        Some(_) => return Err(ApiError::parameter("order", "must be asc or desc")),
    };
    let status = asked.status.as_deref().map(TaskStatus::parse).transpose();
    let status = status.map_err(|invalid| ApiError::parameter("status", invalid.to_string()))?;
    // What no title can be, no title can contain.
    let title = asked.q.map(|text| Title::try_from(text).map(|title| title.as_str().to_owned()));
    let title =
        title.transpose().map_err(|invalid| ApiError::parameter("q", invalid.to_string()))?;
    let filter = TaskFilter { status, title };
    Ok(TaskQuery { user_id: asked.user_id, filter, order, start, limit })
}

/// A place in the list, as clients hand it back.
pub(super) fn cursor((at, id): ListPosition) -> String {
    format!("{}_{id}", at.timestamp_micros())
}

fn position(cursor: &str) -> Result<ListPosition, ApiError> {
    let read = || {
        let (at, id) = cursor.split_once('_')?;
        let at = at.parse().ok().filter(|at| (0..MAX_MICROS).contains(at))?;
        let at = DateTime::from_timestamp_micros(at)?;
        Some((at, Uuid::try_parse(id).ok()?))
    };
    read().ok_or_else(|| ApiError::parameter("cursor", "must be a next_cursor of this list"))
}
