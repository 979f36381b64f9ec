//! Connections that are kept between statements. The pool tests a connection with a round trip each
//! time it is given back, which PostgreSQL has to wake up for; under load the next statement would
//! find out just as well. So a few connections are held back from the pool and used again at once.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::{AssertSqlSafe, Error as SqlxError, Postgres, query_with};
use sea_orm::{DatabaseConnection, DbErr, QueryResult, RuntimeErr, Value, Values};
use sea_query_sqlx::SqlxValues;
use tokio::runtime::Handle;

use super::StoreError;

/// A connection that nobody has used for so long goes back to the pool, and is tested.
const IDLE: Duration = Duration::from_secs(5);
/// One that has been held for so long as well: the pool also ends what has grown too old.
const HOLD: Duration = Duration::from_secs(60);
/// Connections that are held at the most.
const HELD: u32 = 4;

/// A pool, and the connections that are held back from it.
#[derive(Debug)]
pub(super) struct Connections {
    pool: DatabaseConnection,
    most: usize,
    held: Mutex<Vec<Held>>,
    runtime: Handle,
}

#[derive(Debug)]
struct Held {
    connection: PoolConnection<Postgres>,
    since: Instant,
    used: Instant,
}

impl Connections {
    /// Holds none yet; at most half of the `size` connections of the pool. Called from the runtime
    /// that the pool was made on.
    pub(super) fn of(pool: DatabaseConnection, size: u32) -> Self {
        let most = usize::try_from(HELD.min(size / 2)).unwrap_or(0);
        Self { pool, most, held: Mutex::default(), runtime: Handle::current() }
    }

    /// The pool itself.
    pub(super) fn pool(&self) -> &DatabaseConnection {
        &self.pool
    }

    /// Runs a statement. Its connection is kept only if all went well: after an error, or when the
    /// caller stops waiting, it goes back to the pool, which tests it.
    pub(super) async fn query(
        &self,
        sql: impl Into<String>,
        values: Vec<Value>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let mut held = match self.take() {
            Some(held) => held,
            None => self.acquire().await?,
        };
        let query = query_with(AssertSqlSafe(sql.into()), SqlxValues(Values(values)));
        let rows = query.fetch_all(&mut *held.connection).await;
        let rows = rows.map_err(|error| DbErr::Query(RuntimeErr::SqlxError(error.into())))?;
        self.keep(held);
        Ok(rows.into_iter().map(QueryResult::from).collect())
    }

    fn take(&self) -> Option<Held> {
        let newest = self.held.lock().unwrap_or_else(PoisonError::into_inner).pop();
        newest.filter(|held| held.used.elapsed() < IDLE)
    }

    async fn acquire(&self) -> Result<Held, StoreError> {
        let connection = self.pool.get_postgres_connection_pool().acquire().await.map_err(
            |error| match error {
                SqlxError::PoolTimedOut | SqlxError::PoolClosed => StoreError::Unreachable,
                error => DbErr::Conn(RuntimeErr::SqlxError(error.into())).into(),
            },
        )?;
        let now = Instant::now();
        Ok(Held { connection, since: now, used: now })
    }

    fn keep(&self, held: Held) {
        let now = Instant::now();
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < self.most && now.duration_since(held.since) < HOLD {
            all.push(Held { used: now, ..held });
        }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        // A connection goes back to the pool on a task, which can be begun on the runtime alone.
        let _context = self.runtime.enter();
        self.held.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
