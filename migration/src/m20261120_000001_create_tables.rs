//! Users, tasks and the ledger of operations, with the version of every mutable field.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: &str = r"
CREATE TABLE users (
    id uuid PRIMARY KEY,
    role text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'operator', 'admin')),
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive', 'suspended')),
    preferences jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(preferences) = 'object'),
    role_version uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    status_version uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    preferences_version uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tasks (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id),
    title varchar(255) NOT NULL,
    description text,
    status text NOT NULL CHECK (status IN ('pending', 'in_progress', 'completed', 'cancelled')),
    title_version uuid NOT NULL,
    description_version uuid NOT NULL,
    status_version uuid NOT NULL,
    deleted_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CHECK (deleted_at IS NOT NULL OR title <> ''),
    CHECK (deleted_at IS NULL OR (title = '' AND description IS NULL))
);
CREATE INDEX tasks_of_user ON tasks (user_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX tasks_of_user_by_status ON tasks (user_id, status, created_at DESC, id DESC)
    WHERE deleted_at IS NULL;
CREATE INDEX tombstones ON tasks (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE operations (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    entity text NOT NULL,
    entity_id uuid NOT NULL,
    action text NOT NULL,
    outcome text NOT NULL,
    reason text,
    accepted_at timestamptz NOT NULL,
    applied_at timestamptz NOT NULL,
    node text NOT NULL
);
CREATE INDEX operations_applied ON operations (applied_at);
";

const DOWN: &str = "DROP TABLE operations; DROP TABLE tasks; DROP TABLE users;";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(UP).await.map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(DOWN).await.map(drop)
    }
}
