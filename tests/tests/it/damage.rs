//! A buffer file that is damaged on its disk: what its records say is brought to PostgreSQL all the same.

use std::path::Path;
use std::time::Duration;

use tests::{Launch, World, binaries};

use crate::story::{create, drained, user};

const PAGE: usize = 4096;
const END: Duration = Duration::from_secs(10);

/// A world with tasks that are only in the buffer, whose api and worker have ended in order.
async fn stopped_with_tasks() -> (World, Vec<String>) {
    let mut world = World::start().await;
    let client = world.client(user());
    world.postgres_line.cut().await;
    let mut tasks = Vec::new();
    for number in 0..20 {
        tasks.push(create(&client, &format!("task {number}"), 202).await);
    }
    world.api.terminate(END).await.unwrap();
    world.worker.terminate(END).await.unwrap();
    (world, tasks)
}

async fn all_are_stored(world: &World, mut tasks: Vec<String>) {
    drained(world).await;
    let stored = world.postgres.psql("SELECT id FROM tasks").await;
    let mut stored: Vec<String> = stored.lines().map(str::to_owned).collect();
    stored.sort_unstable();
    tasks.sort_unstable();
    assert_eq!(stored, tasks);
}

/// Runs a command of the worker on a world's buffer; what it printed.
async fn command(world: &World, arguments: &[&str]) -> String {
    try_command(world, arguments).await.unwrap()
}

/// As [`command`]; an error if it fails.
async fn try_command(world: &World, arguments: &[&str]) -> anyhow::Result<String> {
    let launch = Launch::new(binaries().join("holdfast-worker"), world.folder().join("cli.log"))
        .args(arguments.iter().copied())
        .env("DATABASE_URL", world.postgres.url())
        .env("REDIS_URL", world.redis.url())
        .env("BUFFER_PATH", world.buffer_path().to_string_lossy().into_owned());
    let output = tokio::time::timeout(Duration::from_secs(60), launch.output());
    output.await.expect("the command ends")
}

fn change(path: &Path, change: impl FnOnce(&mut [u8])) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn i1_pages_of_indexes_that_are_lost_while_nobody_runs_lose_nothing() {
    let (mut world, tasks) = stopped_with_tasks().await;
    let ids: Vec<u128> =
        tasks.iter().map(|id| id.parse::<uuid::Uuid>().unwrap().as_u128()).collect();
    let mut lost = 0;
    change(&world.buffer_path(), |bytes| {
        for page in bytes.chunks_mut(PAGE) {
            let has = |needle: &[u8]| page.windows(needle.len()).any(|window| window == needle);
            // Lanes are named there, and no title is.
            let is_index = ids.iter().any(|id| has(&id.to_be_bytes())) && !has(b"title");
            if is_index {
                page.fill(0);
                lost += 1;
            }
        }
    });
    assert!(lost > 0);
    // Who only looks does not repair, and is told who does.
    let refused = try_command(&world, &["buffer", "stats"]).await.unwrap_err().to_string();
    assert!(refused.contains("buffer repair"), "{refused}");
    let unsound = try_command(&world, &["buffer", "verify"]).await.unwrap_err().to_string();
    assert!(unsound.contains("buffer repair"), "{unsound}");
    let told = command(&world, &["buffer", "repair", "--dry-run"]).await;
    assert!(told.contains("would have 20 pending"), "{told}");
    world.api.start().await.unwrap();
    world.worker.start().await.unwrap();
    world.postgres_line.heal().await;
    all_are_stored(&world, tasks).await;
    let logs = world.api.log() + &world.worker.log();
    assert!(logs.contains("made anew from its records"));
    let verified = command(&world, &["buffer", "verify"]).await;
    assert!(verified.contains(" 0 problems"), "{verified}");
}

#[tokio::test]
async fn what_is_left_of_a_file_that_cannot_be_opened_is_taken_into_a_new_one() {
    let (mut world, tasks) = stopped_with_tasks().await;
    change(&world.buffer_path(), |bytes| bytes[..PAGE].fill(0));
    world.api.spawn().unwrap();
    assert!(!world.api.wait(END).await.unwrap().success(), "refused");
    let refused = world.api.log();
    assert!(refused.contains("buffer salvage") && refused.contains("BUFFER_RECREATE"), "{refused}");
    let file = world.buffer_path().to_string_lossy().into_owned();
    let salvaged = world.folder().join("salvaged.jsonl");
    std::fs::write(&salvaged, command(&world, &["buffer", "salvage", &file]).await).unwrap();
    for process in [&mut world.api, &mut world.worker] {
        process.launch_mut().set_env("BUFFER_RECREATE", "true");
    }
    world.api.start().await.unwrap();
    world.worker.start().await.unwrap();
    let salvaged = salvaged.to_string_lossy().into_owned();
    for expected in ["took in 20; 0 were there", "took in 0; 20 were there"] {
        let imported = command(&world, &["buffer", "import", &salvaged]).await;
        assert!(imported.contains(expected), "{imported}");
    }
    world.postgres_line.heal().await;
    all_are_stored(&world, tasks).await;
}
