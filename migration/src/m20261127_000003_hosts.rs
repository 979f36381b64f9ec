//! Hosts that share a PostgreSQL know of each other: which buffer files there are, when each was last
//! heard of, and how old the oldest operation is that it may still bring.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: &str = r"
CREATE TABLE hosts (
    node text NOT NULL,
    file integer NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    oldest_pending_at timestamptz,
    generation bigint NOT NULL,
    PRIMARY KEY (node, file)
);
";

const DOWN: &str = "DROP TABLE hosts;";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(UP).await.map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(DOWN).await.map(drop)
    }
}
