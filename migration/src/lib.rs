//! The schema of Holdfast in PostgreSQL, as migrations that are never edited once landed.
//!
//! Several processes may migrate at once: each takes the same advisory lock first, [`up`] for its
//! one transaction and the command line for its one connection, so that one of them does the work
//! and the others find it done.

mod m20261120_000001_create_tables;
mod m20261120_000002_erased_users;
mod m20261127_000003_hosts;

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseBackend, DatabaseConnection, Statement,
    TransactionTrait,
};

/// The key of the advisory lock that migrating processes take ("holdfast" in ASCII).
const LOCK: i64 = 0x686f_6c64_6661_7374;

/// All migrations, oldest first.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261120_000001_create_tables::Migration),
            Box::new(m20261120_000002_erased_users::Migration),
            Box::new(m20261127_000003_hosts::Migration),
        ]
    }
}

/// Applies all pending migrations in one transaction. A schema that has all of ours is left alone,
/// also if a newer program has added to it.
///
/// # Errors
/// What PostgreSQL or the connection says; nothing is changed then.
pub async fn up(database: &DatabaseConnection) -> Result<(), DbErr> {
    let transaction = database.begin().await?;
    transaction.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({LOCK})")).await?;
    if !is_current(&transaction).await? {
        Migrator::up(&transaction, None).await?;
    }
    transaction.commit().await
}

/// True if all our migrations have been applied. Takes no lock.
///
/// # Errors
/// What PostgreSQL or the connection says.
pub async fn is_current(database: &impl ConnectionTrait) -> Result<bool, DbErr> {
    let postgres = DatabaseBackend::Postgres;
    let table = "SELECT to_regclass('seaql_migrations') IS NOT NULL AS found";
    let found = database.query_one_raw(Statement::from_string(postgres, table)).await?;
    if !found.map_or(Ok(false), |row| row.try_get("", "found"))? {
        return Ok(false);
    }
    let versions = "SELECT version FROM seaql_migrations";
    let rows = database.query_all_raw(Statement::from_string(postgres, versions)).await?;
    let applied =
        rows.iter().map(|row| row.try_get("", "version")).collect::<Result<Vec<String>, _>>()?;
    let ours = Migrator::migrations();
    Ok(ours.iter().all(|migration| applied.iter().any(|name| name == migration.name())))
}

/// Connects once, and holds the lock of migrating processes until that connection ends.
///
/// # Errors
/// What PostgreSQL or the connection says.
pub async fn connect_alone(options: ConnectOptions) -> Result<DatabaseConnection, DbErr> {
    let mut options = options;
    options.max_connections(1).min_connections(1).idle_timeout(None).max_lifetime(None);
    let database = Database::connect(options).await?;
    database.execute_unprepared(&format!("SELECT pg_advisory_lock({LOCK})")).await?;
    Ok(database)
}
