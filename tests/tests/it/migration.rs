//! The schema: the command's verbs, and several migrating at once.

use std::time::Duration;

use tests::{Launch, World, binaries};
use tokio::task::JoinSet;

use crate::story::{create, drained, user};

const TABLES: &str = "SELECT count(*) FROM pg_tables WHERE tablename IN \
    ('users', 'tasks', 'operations')";

const NEWEST: &str = "SELECT count(*) FROM pg_tables WHERE tablename = 'hosts'";

async fn migration(world: &World, verb: &str) -> String {
    let program = binaries().join("holdfast-migration");
    let launch = Launch::new(program, world.folder().join("migration.log"))
        .args([verb])
        .env("DATABASE_URL", world.postgres.url());
    let output = tokio::time::timeout(Duration::from_secs(30), launch.output());
    output.await.expect("the command ends").expect("the command succeeds")
}

async fn world_of_postgres() -> World {
    World::builder().without_api().without_worker().without_redis().start().await
}

#[tokio::test]
async fn each_verb_of_the_command_works_there_and_back() {
    let world = world_of_postgres().await;
    let schema = async || (world.postgres.psql(TABLES).await, world.postgres.psql(NEWEST).await);
    assert!(migration(&world, "status").await.contains("Pending"));
    for (verb, expected) in [
        ("up", ("3", "1")),
        ("up", ("3", "1")),
        ("down", ("3", "0")),
        ("up", ("3", "1")),
        ("refresh", ("3", "1")),
        ("fresh", ("3", "1")),
        ("reset", ("0", "0")),
    ] {
        migration(&world, verb).await;
        let (tables, newest) = schema().await;
        assert_eq!((tables.as_str(), newest.as_str()), expected, "after {verb}");
    }
    migration(&world, "up").await;
    assert!(migration(&world, "status").await.contains("Applied"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_commands_and_workers_may_migrate_at_once() {
    let world = std::sync::Arc::new(world_of_postgres().await);
    let mut commands = JoinSet::new();
    for _ in 0..4 {
        let world = std::sync::Arc::clone(&world);
        commands.spawn(async move { migration(&world, "up").await });
    }
    commands.join_all().await;
    assert_eq!(world.postgres.psql(TABLES).await, "3");
    assert_eq!(world.postgres.psql("SELECT count(*) FROM seaql_migrations").await, "3");
}

#[tokio::test]
async fn a_schema_that_a_newer_program_has_added_to_is_good_enough() {
    let mut world = World::start().await;
    let newer = "INSERT INTO seaql_migrations VALUES ('m29991231_000001_newer', 0)";
    world.postgres.psql(newer).await;
    world.worker.restart().await;
    world.postgres.kill().await;
    create(&world.client(user()), "in the outage", 202).await;
    world.postgres.start_again().await;
    drained(&world).await;
}
