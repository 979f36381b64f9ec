//! The world that a section measures in: all that the harness has, set up as it would be for load.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::plan::Plan;
use super::sql;
use crate::wait::wait_until;
use crate::world::{Builder, World};

/// Longer than any settling or replay here takes, also on a machine that does other things as well.
pub(super) const LONG: Duration = Duration::from_secs(600);
/// For what takes a moment.
pub(super) const SETTLE: Duration = Duration::from_secs(60);
/// For `pgbench` with 128 clients beside api, worker and the other server.
const MAX_CONNECTIONS: u32 = 400;

/// How api and worker are set up, over the harness's own settings.
pub(super) const SETTINGS: [(&str, &str); 6] = [
    ("RATE_LIMIT_RPS", "0"),
    ("RUST_LOG", "warn"),
    // No quota is to be met: few users send what many would.
    ("BUFFER_MAX_SIZE", "100000000"),
    ("BUFFER_MAX_BYTES", "100000000000"),
    ("BUFFER_USER_SHARE", "100000000"),
    ("BUFFER_USER_BYTES", "100000000000"),
];

/// Databases of the private PostgreSQL beside the product's own.
pub(super) const PEER_DATABASE: &str = "peer";
/// The one that `pgbench` writes to.
pub(super) const PGBENCH_DATABASE: &str = "pgbench";

fn builder() -> Builder {
    SETTINGS
        .iter()
        .fold(World::builder().without_lines(), |builder, (name, value)| builder.env(*name, *value))
}

/// Everything up; the databases of the others made.
pub(super) async fn with_postgres(plan: &Plan) -> anyhow::Result<World> {
    let mut world = builder().without_api().without_worker().start().await;
    let port = world.postgres.port();
    let setting = format!("ALTER SYSTEM SET max_connections = {MAX_CONNECTIONS}");
    sql::run(plan, port, "holdfast", &setting).await?;
    world.postgres.stop_fast().await;
    world.postgres.start_again().await;
    for database in [PEER_DATABASE, PGBENCH_DATABASE] {
        // The cluster has no other database to copy.
        let create = format!("CREATE DATABASE {database} TEMPLATE holdfast");
        sql::run(plan, port, "holdfast", &create).await?;
        sql::run(plan, port, database, sql::PLAIN_TABLE).await?;
    }
    world.worker.start().await?;
    wait_until(SETTLE, "it is migrated", async || world.is_migrated().await).await;
    world.api.start().await?;
    wait_until(SETTLE, "it is healthy", async || world.is_healthy().await).await;
    Ok(world)
}

/// PostgreSQL was never there, and nothing of the product runs yet.
pub(super) async fn without_postgres() -> World {
    builder().without_postgres().without_api().without_worker().start().await
}

/// Kills PostgreSQL and waits until the api has noticed, as it does when it is asked to write.
pub(super) async fn break_down(world: &mut World) {
    world.postgres.kill().await;
    let client = world.client(Uuid::new_v4());
    let title = json!({ "title": "Water the plants" });
    wait_until(SETTLE, "the outage is noticed", async || {
        client.post("/api/v1/tasks", &title).await.status == 202
            && health(world, "/data/postgres").await == "down"
    })
    .await;
}

/// One value of the api's `/health`.
pub(super) async fn health(world: &World, pointer: &str) -> serde_json::Value {
    world.anonymous().get("/health").await.at(pointer).clone()
}

/// Operations that wait in the buffer.
pub(super) async fn pending(world: &World) -> u64 {
    health(world, "/data/buffer/pending").await.as_u64().unwrap_or(u64::MAX)
}
