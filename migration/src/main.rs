//! The migration command: `holdfast-migration up | down | status | fresh | refresh | reset`, on the
//! database that `DATABASE_URL` or `--database-url` names.

use sea_orm_migration::prelude::*;

#[tokio::main]
async fn main() {
    cli::run_cli_with_connection(migration::Migrator, migration::connect_alone).await;
}
