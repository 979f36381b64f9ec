//! A buffer file that is damaged on its disk: what its records say is brought to PostgreSQL all the same.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use tests::{Client, Launch, World, binaries};

use crate::story::{create, drained, user};

const PAGE: usize = 4096;
const END: Duration = Duration::from_secs(10);

/// A world with so many tasks that are only in the buffer, whose api and worker have ended in order.
async fn stopped_with_tasks(number: usize) -> (World, Vec<String>) {
    let mut world = World::start().await;
    let client = world.client(user());
    world.postgres_line.cut().await;
    let tasks = create_many(&client, number).await;
    world.api.terminate(END).await.unwrap();
    world.worker.terminate(END).await.unwrap();
    (world, tasks)
}

async fn create_many(client: &Client, number: usize) -> Vec<String> {
    let create = |number| async move { create(client, &format!("task {number}"), 202).await };
    futures::stream::iter(0..number).map(create).buffered(8).collect().await
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

/// Whether a page of a buffer file is one of an index that names lanes: no title is there.
fn is_index(page: &[u8], ids: &[u128]) -> bool {
    let has = |needle: &[u8]| page.windows(needle.len()).any(|window| window == needle);
    ids.iter().any(|id| has(&id.to_be_bytes())) && !has(b"title")
}

fn ids(tasks: &[String]) -> Vec<u128> {
    tasks.iter().map(|id| id.parse::<uuid::Uuid>().unwrap().as_u128()).collect()
}

/// Changes pages of a file where they stand: a process that has it open sees neither a shorter file nor
/// older bytes in other pages.
fn change(path: &Path, change: impl FnOnce(&mut [u8])) {
    let before = std::fs::read(path).unwrap();
    let mut after = before.clone();
    change(&mut after);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    for (number, (before, after)) in before.chunks(PAGE).zip(after.chunks(PAGE)).enumerate() {
        if before != after {
            file.write_all_at(after, (number * PAGE) as u64).unwrap();
        }
    }
}

#[tokio::test]
async fn i1_pages_of_indexes_that_are_lost_while_nobody_runs_lose_nothing() {
    let (mut world, tasks) = stopped_with_tasks(20).await;
    let (ids, mut lost) = (ids(&tasks), 0);
    change(&world.buffer_path(), |bytes| {
        for page in bytes.chunks_mut(PAGE).filter(|page| is_index(page, &ids)) {
            page.fill(0);
            lost += 1;
        }
    });
    assert!(lost > 0);
    // Who only looks does not repair, and is told who does.
    let refused = try_command(&world, &["buffer", "stats"]).await.unwrap_err().to_string();
    assert!(refused.contains("buffer repair"), "{refused}");
    let unsound = try_command(&world, &["buffer", "verify"]).await.unwrap_err().to_string();
    assert!(unsound.contains("lanes: pages cannot be read"), "{unsound}");
    assert!(unsound.contains("buffer repair"), "{unsound}");
    let told = command(&world, &["buffer", "repair", "--dry-run"]).await;
    assert!(told.contains("would have 20 pending"), "{told}");
    is_made_anew_when_processes_start(&mut world, tasks).await;
}

async fn is_made_anew_when_processes_start(world: &mut World, tasks: Vec<String>) {
    world.api.start().await.unwrap();
    world.worker.start().await.unwrap();
    world.postgres_line.heal().await;
    all_are_stored(world, tasks).await;
    let logs = world.api.log() + &world.worker.log();
    assert!(logs.contains("made anew from its records"));
    let verified = command(world, &["buffer", "verify"]).await;
    assert!(verified.contains(" 0 problems"), "{verified}");
}

/// Has the index by which replay finds what is next name another lane than that of a task. Who reads the
/// page with redb alone is not told.
fn misname_lane(world: &World, task: &String) {
    let (id, mut changed) = (ids(std::slice::from_ref(task))[0], 0);
    change(&world.buffer_path(), |bytes| {
        // Its keys come first: a priority, and a place.
        let place = |key: &[u8]| u64::from_le_bytes(*key[1..].first_chunk().unwrap());
        let is_ready = |page: &[u8]| {
            is_index(page, &[id]) && page[4..22].chunks(9).all(|key| place(key) < 1000)
        };
        for page in bytes.chunks_mut(PAGE).filter(|page| is_ready(page)) {
            let at = page.windows(16).position(|window| window == id.to_be_bytes()).unwrap();
            page[at + 15] ^= 1;
            changed += 1;
        }
    });
    assert!(changed > 0);
}

async fn a_lane_is_misnamed(number: usize, is_refused: bool) {
    let (mut world, tasks) = stopped_with_tasks(number).await;
    misname_lane(&world, &tasks[number / 2]);
    assert_eq!(try_command(&world, &["buffer", "stats"]).await.is_err(), is_refused);
    try_command(&world, &["buffer", "verify"]).await.unwrap_err();
    is_made_anew_when_processes_start(&mut world, tasks).await;
}

#[tokio::test]
async fn i1_an_index_that_names_another_lane_is_made_anew_when_the_file_is_opened() {
    a_lane_is_misnamed(20, true).await;
}

#[tokio::test]
async fn i1_an_index_of_many_pages_that_names_another_lane_is_made_anew_by_the_worker() {
    // So many that it has leaves, which are not looked at when the file is opened.
    a_lane_is_misnamed(200, false).await;
}

#[tokio::test]
async fn i1_a_lane_that_replay_does_not_find_any_more_is_found_when_it_stands_still() {
    let mut world = World::builder().env("REPLAY_STALL_SECONDS", "2").start().await;
    let client = world.client(user());
    world.postgres_line.cut().await;
    let mut tasks = create_many(&client, 200).await;
    let mut is_sound = true;
    // The worker has looked before. What it gets to see is what the api makes of the damaged page; if the
    // worker comes first, nothing is left of the damage.
    while is_sound {
        tasks.push(create(&client, "misnamed", 202).await);
        world.api.terminate(END).await.unwrap();
        misname_lane(&world, tasks.last().unwrap());
        world.api.start().await.unwrap();
        tasks.push(create(&client, "behind", 202).await);
        world.api.terminate(END).await.unwrap();
        is_sound = try_command(&world, &["buffer", "verify"]).await.is_ok();
        world.api.start().await.unwrap();
        assert!(tasks.len() < 220, "the damage is never seen");
    }
    assert!(!world.worker.log().contains("made anew from its records"));
    world.postgres_line.heal().await;
    all_are_stored(&world, tasks).await;
    assert!(world.worker.log().contains("made anew from its records"));
}

#[tokio::test]
async fn what_is_left_of_a_file_that_cannot_be_opened_is_taken_into_a_new_one() {
    let (mut world, tasks) = stopped_with_tasks(20).await;
    change(&world.buffer_path(), |bytes| bytes[..PAGE].fill(0));
    world.api.spawn().unwrap();
    assert!(!world.api.wait(END).await.unwrap().success(), "refused");
    let refused = world.api.log();
    assert!(refused.contains("buffer salvage") && refused.contains("BUFFER_RECREATE"), "{refused}");
    let file = world.buffer_path().to_string_lossy().into_owned();
    // After an orderly end all is in the file itself, which may have been taken elsewhere.
    let alone = world.folder().join("alone").to_string_lossy().into_owned();
    std::fs::copy(&file, &alone).unwrap();
    assert_eq!(command(&world, &["buffer", "salvage", &alone]).await.lines().count(), 20);
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
