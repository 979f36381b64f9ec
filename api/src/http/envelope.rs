//! The envelope of every answer: `data` and `meta`.

use chrono::{DateTime, Utc};
use poem_openapi::{Enum, Object};
use serde::Serialize;
use shared::domain::{Version, time_as_text};
use uuid::Uuid;

use crate::shapes::{Nullable, Source};

/// About an answer.
#[derive(Clone, Debug, Serialize, Object)]
pub struct Meta {
    /// The request's id: the client's `X-Request-ID` if that is a UUID, else a new one.
    pub request_id: Uuid,
    /// When the answer was made.
    #[serde(serialize_with = "time_as_text")]
    pub timestamp: DateTime<Utc>,
}

impl Meta {
    /// About an answer made now.
    #[must_use]
    pub fn now(request_id: Uuid) -> Self {
        Self { request_id, timestamp: Utc::now() }
    }
}

/// Where a write is: `committed` in PostgreSQL, or `buffered`, synced to the disk of this host.
#[derive(Clone, Copy, Debug, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum SyncState {
    /// Committed in PostgreSQL.
    Committed,
    /// Durable in the buffer of this host; replay will bring it to PostgreSQL.
    Buffered,
}

/// Where a write is, and how to follow it.
#[derive(Clone, Copy, Debug, Serialize, Object)]
pub struct Sync {
    /// Where the write is.
    pub state: SyncState,
    /// The id of the write's operation. `GET /api/v1/operations/{id}` says what became of it.
    pub operation_id: Uuid,
}

/// About the answer to a write.
#[derive(Clone, Debug, Serialize, Object)]
pub struct WriteMeta {
    /// The request's id: the client's `X-Request-ID` if that is a UUID, else a new one.
    pub request_id: Uuid,
    /// When the answer was made.
    #[serde(serialize_with = "time_as_text")]
    pub timestamp: DateTime<Utc>,
    /// Where the write is.
    pub sync: Sync,
}

impl WriteMeta {
    /// About the answer to a write, made now.
    #[must_use]
    pub fn now(request_id: Uuid, state: SyncState, operation: Version) -> Self {
        let sync = Sync { state, operation_id: operation.as_uuid() };
        Self { request_id, timestamp: Utc::now(), sync }
    }
}

/// About the answer to a read.
#[derive(Clone, Debug, Serialize, Object)]
pub struct ReadMeta {
    /// The request's id: the client's `X-Request-ID` if that is a UUID, else a new one.
    pub request_id: Uuid,
    /// When the answer was made.
    #[serde(serialize_with = "time_as_text")]
    pub timestamp: DateTime<Utc>,
    /// Where the data comes from.
    pub source: Source,
    /// True if PostgreSQL could not be asked, so that there may be newer data.
    pub stale: bool,
}

impl ReadMeta {
    /// About the answer to a read, made now.
    #[must_use]
    pub fn now(request_id: Uuid, source: Source, stale: bool) -> Self {
        Self { request_id, timestamp: Utc::now(), source, stale }
    }
}

/// About a page of a list.
#[derive(Clone, Debug, Serialize, Object)]
pub struct ListMeta {
    /// The request's id: the client's `X-Request-ID` if that is a UUID, else a new one.
    pub request_id: Uuid,
    /// When the answer was made.
    #[serde(serialize_with = "time_as_text")]
    pub timestamp: DateTime<Utc>,
    /// Where the data comes from.
    pub source: Source,
    /// True if PostgreSQL could not be asked, so that there may be newer data.
    pub stale: bool,
    /// False if PostgreSQL could not be asked, so that entries may be missing.
    pub complete: bool,
    /// The number of the page, from 1.
    pub page: u64,
    /// The most entries that a page has.
    pub limit: u64,
    /// Entries on all pages. If `complete` is false, those that this host knows.
    pub total: u64,
    /// The number of pages.
    pub total_pages: u64,
    /// The `cursor` of the next page. Null on the last page.
    pub next_cursor: Nullable<String>,
}

/// About a part of a list.
#[derive(Serialize, Object)]
pub struct PartMeta {
    /// The request's id: the client's `X-Request-ID` if that is a UUID, else a new one.
    pub request_id: Uuid,
    /// When the answer was made.
    #[serde(serialize_with = "time_as_text")]
    pub timestamp: DateTime<Utc>,
    /// The most entries that a part has.
    pub limit: u64,
    /// The `cursor` of the next part. Null at the end. A part with fewer entries may have a next one.
    pub next_cursor: Nullable<String>,
}

impl PartMeta {
    /// About a part, answered now.
    #[must_use]
    pub fn now(request_id: Uuid, limit: u64, next: Option<String>) -> Self {
        Self { request_id, timestamp: Utc::now(), limit, next_cursor: next.into() }
    }
}
