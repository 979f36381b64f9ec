//! Tasks and profiles cached in Redis: whatever breaks, nobody reads one as it was before a change that
//! was answered.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tests::{Answer, Client, World, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::connections::metric;
use crate::story::{DRAIN, create, drained, user};
use crate::two_nodes::second_node;

pub fn path(task: &str) -> String {
    format!("/api/v1/tasks/{task}")
}

pub async fn read(client: &Client, task: &str) -> Answer {
    client.get(&path(task)).await.expect(200)
}

async fn retitle(client: &Client, task: &str, title: &str, status: u16) {
    client.patch(&path(task), &json!({ "title": title })).await.expect(status);
}

/// Waits until a task is read from the cache. It must have this title all the while.
pub async fn cached(client: &Client, task: &str, title: &str) {
    wait_until(DRAIN, "the task is cached", async || {
        let answer = read(client, task).await;
        assert_eq!(answer.text("/data/title"), title);
        answer.text("/meta/source") == "cache"
    })
    .await;
}

/// Reads a task twenty times: it has this title, and never comes from the cache.
async fn not_cached(client: &Client, task: &str, title: &str) {
    for _ in 0..20 {
        let answer = read(client, task).await;
        let seen = (answer.text("/data/title"), answer.text("/meta/source"));
        assert_eq!(seen, (title, "database"));
    }
}

/// Has Redis carry out a command, whatever the line does.
async fn tell_redis(world: &World, command: &str) {
    let mut redis = TcpStream::connect(("127.0.0.1", world.redis.port())).await.unwrap();
    redis.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 5];
    redis.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"+OK\r\n", "{command}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i10_a_task_is_cached_until_it_changes_and_for_its_owner_only() {
    let world = World::start().await;
    let (client, other) = (world.client(user()), world.client(user()));
    let task = create(&client, "first", 201).await;
    let answer = read(&client, &task).await;
    assert_eq!(
        (answer.text("/meta/source"), answer.header("x-data-source")),
        ("database", "database")
    );
    cached(&client, &task, "first").await;
    let answer = read(&client, &task).await;
    assert_eq!((answer.text("/meta/source"), answer.header("x-data-source")), ("cache", "cache"));
    assert_eq!(answer.at("/meta/stale"), false);
    let of_the_cache = answer.header("etag").to_owned();
    other.get(&path(&task)).await.expect(404);

    retitle(&client, &task, "second", 200).await;
    let answer = read(&client, &task).await;
    assert_eq!((answer.text("/data/title"), answer.text("/meta/source")), ("second", "database"));
    assert_ne!(answer.header("etag"), of_the_cache);
    cached(&client, &task, "second").await;

    client.delete(&path(&task)).await.expect(204);
    client.get(&path(&task)).await.expect(404);
    let hits = metric(&world, "cache_requests_total{result=\"hit\"}").await;
    assert!(hits >= 3.0, "{hits}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_an_outage_what_is_cached_is_answered_with_what_is_pending_laid_over_it() {
    let world = World::start().await;
    let client = world.client(user());
    let (known, unknown) = (create(&client, "known", 201).await, create(&client, "-", 201).await);
    cached(&client, &known, "known").await;
    let nautical = json!({ "preferences": { "theme": "nautical" } });
    client.put("/api/v1/profile", &nautical).await.expect(200);
    wait_until(DRAIN, "the profile is cached", async || {
        let answer = client.get("/api/v1/profile").await.expect(200);
        assert_eq!(answer.text("/data/preferences/theme"), "nautical");
        answer.text("/meta/source") == "cache"
    })
    .await;
    world.postgres_line.cut().await;
    wait_until(DRAIN, "the outage is noticed", async || {
        let answer = read(&client, &known).await;
        assert_eq!((answer.text("/data/title"), answer.text("/meta/source")), ("known", "cache"));
        answer.at("/meta/stale") == true
    })
    .await;
    let answer = client.get(&path(&unknown)).await.expect(503);
    assert_eq!(answer.text("/error/code"), "DATABASE_UNAVAILABLE");
    client.patch(&path(&known), &json!({ "status": "completed" })).await.expect(202);
    let answer = read(&client, &known).await;
    assert_eq!((answer.text("/meta/source"), answer.at("/meta/stale")), ("overlay", &json!(true)));
    assert_eq!((answer.text("/data/title"), answer.text("/data/status")), ("known", "completed"));
    let profile = client.get("/api/v1/profile").await.expect(200);
    assert_eq!((profile.text("/meta/source"), profile.at("/meta/stale")), ("cache", &json!(true)));
    assert_eq!(profile.text("/data/preferences/theme"), "nautical");
    client
        .patch("/api/v1/profile", &json!({ "preferences": { "theme": "dark" } }))
        .await
        .expect(202);
    let profile = client.get("/api/v1/profile").await.expect(200);
    assert_eq!((profile.text("/meta/source"), profile.text("/data/role")), ("overlay", "user"));
    assert_eq!(profile.text("/data/preferences/theme"), "dark");
    world.client(user()).get("/api/v1/profile").await.expect(503);
    world.postgres_line.heal().await;
    drained(&world).await;
    let answer = read(&client, &known).await;
    assert_eq!((answer.text("/data/title"), answer.text("/data/status")), ("known", "completed"));
    let profile = client.get("/api/v1/profile").await.expect(200);
    assert_eq!(profile.text("/data/preferences/theme"), "dark");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_while_redis_is_away_is_not_read_as_it_was_when_redis_is_back() {
    let mut world = World::start().await;
    let client = world.client(user());
    let task = create(&client, "before", 201).await;
    cached(&client, &task, "before").await;
    world.worker.kill();
    for title in ["first", "second", "third", "last"] {
        world.redis_line.cut().await;
        retitle(&client, &task, title, 200).await;
        world.redis_line.heal().await;
        not_cached(&client, &task, title).await;
    }
    let pending = world.anonymous().get("/health").await.at("/data/buffer/pending").clone();
    assert_eq!(pending, 2, "however much changes, two operations say so");
    world.worker.restart().await;
    cached(&client, &task, "last").await;
    drained(&world).await;
    let ledger = "SELECT DISTINCT entity, action, outcome FROM operations WHERE entity = 'cache'";
    assert_eq!(world.postgres.psql(ledger).await, "cache|delete|applied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_while_neither_redis_nor_the_buffer_takes_note_is_not_read_as_it_was() {
    let mut world = World::start().await;
    let client = world.client(user());
    let task = create(&client, "before", 201).await;
    cached(&client, &task, "before").await;
    world.worker.kill();
    let (buffer, away) = (world.buffer_path(), world.folder().join("away"));
    std::fs::rename(&buffer, away).unwrap();
    std::fs::create_dir(&buffer).unwrap();
    world.redis_line.cut().await;
    retitle(&client, &task, "after", 200).await;
    world.redis_line.heal().await;
    not_cached(&client, &task, "after").await;
    assert_eq!(metric(&world, "cache_invalidations_lost_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_with_what_it_had_saved_long_ago_is_not_believed() {
    let mut world = World::start().await;
    let client = world.client(user());
    let task = create(&client, "before", 201).await;
    cached(&client, &task, "before").await;
    tell_redis(&world, "SAVE").await;
    retitle(&client, &task, "after", 200).await;
    world.redis.kill();
    world.redis.start_again().await;
    for _ in 0..20 {
        assert_eq!(read(&client, &task).await.text("/data/title"), "after");
    }
    world.api.restart().await;
    cached(&client, &task, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whose_share_of_the_buffer_is_used_up_does_not_keep_the_cache_from_being_emptied() {
    let world = World::builder().env("BUFFER_USER_SHARE", "0").start().await;
    let client = world.client(user());
    let task = create(&client, "before", 201).await;
    cached(&client, &task, "before").await;
    world.redis_line.cut().await;
    retitle(&client, &task, "after", 200).await;
    let pending = world.anonymous().get("/health").await.at("/data/buffer/pending").clone();
    assert_eq!(pending, 1);
    world.redis_line.heal().await;
    drained(&world).await;
    cached(&client, &task, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_while_redis_takes_no_writes_is_not_read_as_it_was() {
    let world = World::start().await;
    let client = world.client(user());
    let task = create(&client, "before", 201).await;
    cached(&client, &task, "before").await;
    tell_redis(&world, "CONFIG SET maxmemory 1").await;
    for title in ["first", "last"] {
        retitle(&client, &task, title, 200).await;
        not_cached(&client, &task, title).await;
    }
    tell_redis(&world, "CONFIG SET maxmemory 0").await;
    drained(&world).await;
    cached(&client, &task, "last").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cached_profile_shows_what_its_user_and_an_admin_set() {
    let world = World::start().await;
    let user = user();
    let (client, admin) = (world.client(user), world.client_as(Uuid::new_v4(), "admin"));
    let seen = async |role: &str, theme: &str| {
        let answer = client.get("/api/v1/profile").await.expect(200);
        let data = (answer.text("/data/role"), answer.text("/data/preferences/theme"));
        assert_eq!(data, (role, theme));
        answer.text("/meta/source") == "cache"
    };
    let cached = async |role: &str, theme: &str| {
        wait_until(DRAIN, "the profile is cached", async || seen(role, theme).await).await;
    };
    let set = |theme: &str| json!({ "preferences": { "theme": theme } });
    client.put("/api/v1/profile", &set("light")).await.expect(200);
    cached("user", "light").await;
    client.patch("/api/v1/profile", &set("dark")).await.expect(200);
    assert!(!seen("user", "dark").await);
    cached("user", "dark").await;
    let role = json!({ "role": "operator" });
    admin.patch(&format!("/api/v1/users/{user}"), &role).await.expect(200);
    assert!(!seen("operator", "dark").await);
    cached("operator", "dark").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replay_changes_is_not_read_as_it_was_on_any_node() {
    let first = World::start().await;
    let (second, _line) = second_node(&first, &[]).await;
    let user = user();
    let (here, there) = (first.client(user), second.client(user));
    let task = create(&here, "before", 201).await;
    cached(&there, &task, "before").await;
    first.postgres_line.cut().await;
    // Else it would be tried online first, and be taken out of the cache for that.
    wait_until(DRAIN, "the outage is noticed", async || {
        read(&here, &task).await.at("/meta/stale") == true
    })
    .await;
    retitle(&here, &task, "after", 202).await;
    assert_eq!(read(&here, &task).await.text("/data/title"), "after");
    // A read that Redis does not answer in time goes to the database, which is as it was as well.
    cached(&there, &task, "before").await;
    first.postgres_line.heal().await;
    drained(&first).await;
    for client in [&here, &there] {
        assert_eq!(read(client, &task).await.text("/data/title"), "after");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_answered_reads_what_they_wrote_among_many_readers_and_a_redis_that_comes_and_goes()
 {
    const CHANGES: u32 = 200;
    let world = World::start().await;
    let user = user();
    let client = world.client(user);
    let task = create(&client, "0", 201).await;
    let (over, newest) = (AtomicBool::new(false), std::sync::atomic::AtomicU32::new(0));
    let number = |answer: &Answer| answer.text("/data/title").parse::<u32>().unwrap();
    let reader = async || {
        let client = world.client(user);
        while !over.load(Ordering::Relaxed) {
            let answered = newest.load(Ordering::SeqCst);
            let seen = number(&read(&client, &task).await);
            assert!(seen >= answered, "{seen}, and {answered} was answered");
        }
    };
    let writer = async {
        for change in 1..=CHANGES {
            match change % 40 {
                10 => world.redis_line.cut().await,
                20 => world.redis_line.heal().await,
                30 => tell_redis(&world, "FLUSHALL").await,
                _ => {}
            }
            retitle(&client, &task, &change.to_string(), 200).await;
            newest.store(change, Ordering::SeqCst);
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(writer, reader(), reader(), reader(), reader(), reader(), reader());
    cached(&client, &task, &CHANGES.to_string()).await;
}

#[tokio::test]
async fn without_a_lifetime_nothing_is_cached() {
    let world = World::builder().env("CACHE_TTL_SECONDS", "0").start().await;
    let client = world.client(Uuid::new_v4());
    let task = create(&client, "never", 201).await;
    for _ in 0..3 {
        assert_eq!(read(&client, &task).await.text("/meta/source"), "database");
    }
}
