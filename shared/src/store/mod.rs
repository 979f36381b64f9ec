//! PostgreSQL: the one place where operations take effect, and the reads from there.
//!
//! [`Store::apply`] is the only path by which operations are written, online and at replay. What it
//! reports as applied is committed. [`Store::purge_ledger`] and [`Store::purge_tombstones`] remove rows
//! whose retention has ended. Connections are opened lazily, so a store can be made while PostgreSQL is
//! away. Every wait has a limit.

mod apply;
mod columns;
mod creates;
mod error;
mod held;
mod hosts;
mod lanes;
mod lineage;
mod link;
mod lookup;
mod page;
mod probe;
mod purge;
mod rows;
mod skew;
mod statements;

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::{ConnectOptions, Database, DatabaseConnection, QueryResult, Value};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

pub use apply::{Applied, Effect, Entity, Source};
pub use error::{Class, SqlState, StoreError};
pub use hosts::{HostReport, HostsKnown, OtherHosts};
pub use lineage::{Identity, Lineage, Seen};
pub use link::{Link, LinkState};
pub use lookup::LedgerEntry;
pub use page::{ListOrder, ListPosition, ListQuery, PageStart, TaskFilter, TaskQuery};
pub use skew::CLOCK_SKEW_US;

use crate::settings::{SettingsError, StoreSettings};
use creates::SeenUsers;
use held::Connections;
use skew::Skew;

/// How much later than meant a deadline may be, as this process cannot know PostgreSQL's clock exactly.
const CLOCK_ERROR: Duration = Duration::from_millis(500);

/// The tables whose rows users own.
const OWNED: [&str; 1] = ["tasks"];

/// How one process uses PostgreSQL.
#[derive(Clone, Debug)]
pub struct Usage {
    /// What PostgreSQL lists the connections as.
    pub application_name: &'static str,
    /// How long [`Store::apply`] may take in all.
    pub write_timeout: Duration,
    /// How long a statement waits for locks of others: short enough that a batch can be taken apart
    /// within the write timeout to find the one that waits.
    pub lock_timeout: Duration,
}

/// PostgreSQL, as one process sees it.
#[derive(Debug)]
pub struct Store {
    options: ConnectOptions,
    connections: RwLock<Arc<Connections>>,
    seen: SeenUsers,
    skew: Skew,
    lineage: Arc<Lineage>,
    node: String,
    write_timeout: Duration,
    read_timeout: Duration,
    statement_timeout: Duration,
}

impl Store {
    /// Prepares connections without opening one.
    ///
    /// # Errors
    /// If the address cannot be read.
    pub async fn new(settings: &StoreSettings, usage: Usage) -> Result<Self, SettingsError> {
        let url = settings.url();
        check_url(&url)?;
        let read_timeout = Duration::from_millis(settings.db_read_timeout_ms);
        let statement_timeout = usage.write_timeout.max(read_timeout);
        let mut options = ConnectOptions::new(url.expose_secret());
        options
            .connect_lazy(true)
            .max_connections(settings.db_max_connections.max(1))
            .acquire_timeout(Duration::from_millis(settings.db_connect_timeout_ms))
            .test_before_acquire_if_idle_for(Duration::from_secs(5))
            .statement_timeout(statement_timeout)
            .set_application_name(usage.application_name)
            .sqlx_logging(false)
            .map_sqlx_postgres_opts(move |options| with_session(options, usage.lock_timeout));
        let connections = Arc::new(connect(&options).await?);
        Ok(Self {
            options,
            connections: RwLock::new(connections),
            seen: SeenUsers::default(),
            skew: Skew::default(),
            lineage: Arc::default(),
            node: settings.node(),
            write_timeout: usage.write_timeout,
            read_timeout,
            statement_timeout,
        })
    }

    /// The connections, for migrating.
    #[must_use]
    pub fn connection(&self) -> DatabaseConnection {
        self.connections().pool().clone()
    }

    fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which PostgreSQL this process has met.
    #[must_use]
    pub fn lineage(&self) -> Arc<Lineage> {
        Arc::clone(&self.lineage)
    }

    /// How long after the call of [`Store::apply`] something of it may still be committed at the most,
    /// whatever becomes of this process: what begins before the deadline may run for as long as
    /// PostgreSQL lets a statement run.
    #[must_use]
    pub fn longest_write(&self) -> Duration {
        self.write_timeout.saturating_add(self.statement_timeout).saturating_add(CLOCK_ERROR)
    }

    /// The deadline of what is begun now, by PostgreSQL's clock.
    fn deadline(&self) -> DateTime<Utc> {
        let offset = TimeDelta::microseconds(self.clock_offset());
        let limit = TimeDelta::from_std(self.write_timeout).unwrap_or(TimeDelta::MAX);
        let deadline = Utc::now().checked_add_signed(limit);
        deadline.and_then(|at| at.checked_add_signed(offset)).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Runs a statement that applies operations; the entities that were written.
    async fn written(
        &self,
        sql: &'static str,
        mut values: Vec<Value>,
        deadline: DateTime<Utc>,
    ) -> Result<HashSet<Uuid>, StoreError> {
        values.push(deadline.into());
        let rows = self.rows(sql, values).await?;
        rows.iter().map(|row| column::<Option<Uuid>>(row, "id")?.ok_or(StoreError::Late)).collect()
    }

    async fn rows(
        &self,
        sql: impl Into<String>,
        values: Vec<Value>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        self.connections().query(sql, values).await
    }

    /// A read, within the time that reads have.
    async fn read(
        &self,
        sql: impl Into<String>,
        values: Vec<Value>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        within(self.read_timeout, self.rows(sql, values)).await
    }
}

/// Waits for a result, `limit` at the most.
async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(StoreError::TimedOut))
}

async fn connect(options: &ConnectOptions) -> Result<Connections, SettingsError> {
    // Lazy: opens nothing, and fails only if the address cannot be read.
    let pool = Database::connect(options.clone()).await.map_err(|_| unusable())?;
    Ok(Connections::of(pool, options.get_max_connections().unwrap_or(1)))
}

fn check_url(url: &SecretString) -> Result<(), SettingsError> {
    url.expose_secret().parse::<PgConnectOptions>().map(drop).map_err(|_| unusable())
}

fn unusable() -> SettingsError {
    SettingsError::Unusable {
        variable: "DATABASE_URL",
        problem: "expected postgres://user:password@host:port/database".to_owned(),
    }
}

/// Every statement of ours finds its rows by key. Plans that were made while a table was small and
/// are kept with the prepared statement must not read it from end to end once it has grown. So one
/// plan serves all sizes of a batch, and PostgreSQL need not weigh at each execution whether to plan
/// again, which takes longer than the statement. None is worth compiling, which a plan that seems
/// expensive would be, for longer than a write may take.
fn with_session(options: PgConnectOptions, lock_timeout: Duration) -> PgConnectOptions {
    options.options([
        ("lock_timeout", lock_timeout.as_millis().to_string().as_str()),
        ("jit", "off"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
    ])
}

/// The value of a column.
fn column<T: sea_orm::TryGetable>(row: &QueryResult, name: &str) -> Result<T, StoreError> {
    row.try_get("", name).map_err(|_| StoreError::Shape)
}
