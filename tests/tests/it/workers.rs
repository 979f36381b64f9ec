//! The processes beside one another: two apis on one file, a worker asked to end in mid-batch, a
//! replay that stalls, and how a drain treats those who are online.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use shared::buffer::Buffer;
use shared::domain::{
    Actor, Change, Clock, Operation, Role, TaskChange, TaskFields, TaskStatus, Title,
};
use shared::settings::BufferSettings;
use tests::{Client, World, wait_until};
use uuid::Uuid;

use crate::load::Load;
use crate::story::{
    DRAIN, create, drained, each_accepted_exactly_once, ledger_in_lane_order, second_api, user,
};

/// Fills a world's buffer with creates, as fast as the file takes them.
async fn fill(world: &World, count: usize) {
    let settings = BufferSettings {
        buffer_path: world.buffer_path(),
        buffer_user_share: u64::MAX,
        buffer_user_bytes: u64::MAX,
        ..BufferSettings::default()
    };
    let buffer = tokio::task::spawn_blocking(move || Buffer::open(&settings)).await;
    let (buffer, clock) = (buffer.unwrap().unwrap(), Arc::new(Clock::default()));
    let users: Vec<Uuid> = (0..50).map(|_| user()).collect();
    let numbers: Vec<usize> = (0..count).collect();
    for chunk in numbers.chunks(1000) {
        let appending = chunk.iter().map(|number| {
            let title = Title::try_from(format!("task {number}")).unwrap();
            let fields = TaskFields { title, description: None, status: TaskStatus::Pending };
            let operation = Operation {
                id: clock.next(),
                actor: Actor {
                    user_id: users[number % users.len()],
                    role: Role::User,
                    session_id: None,
                },
                change: Change::Task(TaskChange::Create {
                    task_id: clock.next().as_uuid(),
                    fields,
                }),
                accepted_at: chrono::Utc::now(),
                request_id: Uuid::nil(),
                traceparent: None,
            };
            buffer.append(operation, None)
        });
        for appended in join_all(appending).await {
            appended.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_i3_i4_two_apis_on_one_file_keep_all_promises() {
    let mut world = World::start().await;
    let (_second, url) = second_api(&mut world).await;
    let users: Vec<Uuid> = (0..16).map(|_| user()).collect();
    let through = |world: &World, number: usize| {
        let first = world.client(users[number % users.len()]);
        if number.is_multiple_of(2) {
            return first;
        }
        let token = first.token().unwrap().to_owned();
        Client::new(world.http().clone(), url.clone(), Some(token))
    };
    let load = Load::start(16, |number| through(&world, number));
    wait_until(DRAIN, "online", async || load.accepted() >= 100).await;
    world.postgres.kill().await;
    wait_until(DRAIN, "buffered", async || load.buffered() >= 300).await;
    // One task, changed by way of both in turn: each sees what the other has just done.
    let one = world.client(users[0]);
    let token = one.token().map(str::to_owned);
    let other = Client::new(world.http().clone(), url.clone(), token);
    let id = create(&one, "from the first", 202).await;
    let path = format!("/api/v1/tasks/{id}");
    for round in 0..20 {
        let (writer, reader) = if round % 2 == 0 { (&other, &one) } else { (&one, &other) };
        let title = format!("round {round}");
        writer.patch(&path, &json!({ "title": title })).await.expect(202);
        assert_eq!(reader.get(&path).await.expect(200).text("/data/title"), title);
    }
    world.postgres.start_again().await;
    wait_until(DRAIN, "goes on after the outage", async || {
        world.postgres.try_psql("SELECT count(*) FROM tasks").await.is_ok()
    })
    .await;
    let creates = load.stop().await;
    drained(&world).await;
    assert_eq!(one.get(&path).await.expect(200).text("/data/title"), "round 19");
    world.postgres.psql(&format!("DELETE FROM tasks WHERE id = '{id}'")).await;
    for create in &creates {
        assert!(create.accepted(), "{create:?}");
    }
    each_accepted_exactly_once(&world, &creates).await;
    ledger_in_lane_order(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_asked_to_end_in_mid_batch_ends_within_five_seconds_and_loses_nothing() {
    let mut world = World::builder().without_worker().without_api().start().await;
    fill(&world, 5000).await;
    let mut ended_early = 0;
    for _ in 0..5 {
        world.worker.start().await.unwrap();
        let count = async || -> u64 {
            let rows = world.postgres.try_psql("SELECT count(*) FROM operations").await;
            rows.ok().and_then(|rows| rows.parse().ok()).unwrap_or(0)
        };
        let before = count().await;
        wait_until(DRAIN, "replay is under way", async || count().await > before).await;
        let asked = Instant::now();
        let status = world.worker.terminate(Duration::from_secs(5)).await.unwrap();
        assert!(status.success(), "{status:?} after {:?}", asked.elapsed());
        let now: u64 =
            world.postgres.psql("SELECT count(*) FROM operations").await.parse().unwrap();
        if now >= 5000 {
            break;
        }
        ended_early += 1;
    }
    assert!(ended_early >= 1, "it was never in mid-drain");
    world.worker.start().await.unwrap();
    wait_until(DRAIN, "all are there", async || {
        world.postgres.psql("SELECT count(*) FROM operations").await == "5000"
    })
    .await;
    assert_eq!(world.postgres.psql("SELECT count(*) FROM tasks").await, "5000");
}

#[tokio::test]
async fn a_batch_that_neither_progresses_nor_fails_is_let_go_and_comes_again() {
    let mut world = World::builder()
        .env("REPLAY_TIMEOUT_MS", "3600000")
        .env("REPLAY_STALL_SECONDS", "2")
        .start()
        .await;
    let client = world.client(user());
    world.worker.kill();
    world.postgres.kill().await;
    create(&client, "to be stalled", 202).await;
    world.postgres.start_again().await;
    // Its backend stops just as it writes: the connection lives, and nothing ever comes.
    let trap = "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS \
        $$ BEGIN PERFORM pg_sleep(3600); RETURN NEW; END $$; \
        CREATE TRIGGER dawdle BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION dawdle()";
    world.postgres.psql(trap).await;
    world.worker.restart().await;
    wait_until(DRAIN, "the stall is noticed", async || world.worker.log().contains("stalled"))
        .await;
    // What dawdles holds a lock that the drop waits for, and what comes again waits behind the drop.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DROP%' \
        AND wait_event_type = 'Lock'";
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    tokio::join!(world.postgres.psql("DROP TRIGGER dawdle ON tasks"), async {
        wait_until(DRAIN, "the drop waits", async || world.postgres.psql(waits).await == "1").await;
        world.postgres.psql(end).await;
    });
    drained(&world).await;
    assert_eq!(world.postgres.psql("SELECT count(*) FROM tasks").await, "1");
}

/// The median time of creates by one client, one after another, that are committed online; they go
/// on until `enough` says so.
async fn median_online(client: &Client, mut enough: impl AsyncFnMut(usize) -> bool) -> Duration {
    let (started, mut took) = (Instant::now(), Vec::new());
    while !enough(took.len()).await {
        assert!(started.elapsed() < 15 * DRAIN, "it never was enough");
        let answer = client.post("/api/v1/tasks", &json!({ "title": "online" })).await.expect(201);
        took.push(answer.took);
    }
    took.sort_unstable();
    took[took.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_of_a_hundred_thousand_leaves_room_for_those_online() {
    let mut world = World::builder().without_worker().start().await;
    world.worker.start().await.unwrap();
    wait_until(DRAIN, "healthy", async || world.is_healthy().await).await;
    let client = world.client(user());
    median_online(&client, async |done| done >= 100).await;
    let quiet = median_online(&client, async |done| done >= 300).await;
    world.worker.kill();
    let filling = Instant::now();
    fill(&world, 100_000).await;
    let filled = filling.elapsed();
    let anyone = world.anonymous();
    let pending = async || -> u64 {
        anyone.get("/health").await.at("/data/buffer/pending").as_u64().unwrap()
    };
    assert_eq!(pending().await, 100_000);
    let draining = Instant::now();
    world.worker.start().await.unwrap();
    let busy = median_online(&client, async |done| done % 50 == 49 && pending().await == 0).await;
    let rate = 100_000.0 / draining.elapsed().as_secs_f64();
    eprintln!(
        "quiet median {quiet:?}, in the drain {busy:?}; filled in {filled:?}, drained at {rate:.0}/s"
    );
    assert!(busy <= 3 * quiet, "quiet {quiet:?}, in the drain {busy:?}");
    assert_eq!(
        world.postgres.psql("SELECT count(*) FROM operations WHERE outcome <> 'applied'").await,
        "0"
    );
}
