//! Users can be erased: their row stays, without any content, so that what other nodes still hold of
//! them is refused.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: &str = r"
ALTER TABLE users ADD COLUMN erased_at timestamptz,
    ADD CHECK (erased_at IS NULL OR (status = 'suspended' AND preferences = '{}'));
CREATE INDEX erased_users ON users (id) WHERE erased_at IS NOT NULL;
";

const DOWN: &str = "ALTER TABLE users DROP COLUMN erased_at;";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(UP).await.map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(DOWN).await.map(drop)
    }
}
