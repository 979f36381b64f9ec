//! PostgreSQL is killed, or hangs, under load: nobody is turned away, nothing is lost, nothing is
//! applied twice, and all of it is there when PostgreSQL is.

use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tests::{Client, World, wait_until};

use crate::load::{Create, Load};
use crate::story::{
    DRAIN, create, drained, each_accepted_exactly_once, epoch, ledger_in_lane_order, user,
};

const CONNECTIONS: usize = 32;
/// Operations that are to be replayed.
const BACKLOG: usize = 1000;

/// The median of how long these took.
fn median(creates: &[&Create]) -> Duration {
    let mut took: Vec<Duration> = creates.iter().map(|create| create.took).collect();
    took.sort_unstable();
    took[took.len() / 2]
}

/// The promises for everything that was asked for since `broken`: accepted, and in time.
fn nobody_was_turned_away(creates: &[Create], broken: Instant, limit: Duration) {
    let in_outage: Vec<&Create> =
        creates.iter().filter(|create| create.sent + create.took >= broken).collect();
    assert!(in_outage.iter().any(|create| create.status == 202), "the outage was not noticed");
    for create in creates {
        assert!(create.accepted(), "turned away: {create:?}");
    }
    let slowest = in_outage.iter().map(|create| create.took).max().unwrap();
    let later: Vec<&Create> = in_outage
        .iter()
        .copied()
        .filter(|create| create.sent > broken + Duration::from_secs(2))
        .collect();
    eprintln!(
        "in the outage: {} answers, slowest {slowest:?}, median of later ones {:?}",
        in_outage.len(),
        median(&later)
    );
    assert!(slowest <= limit, "the slowest answer took {slowest:?}");
    assert!(median(&later) <= Duration::from_millis(100), "later ones: {:?}", median(&later));
}

/// Load before and into an outage that `fault` brings about, until `BACKLOG` creates are buffered.
async fn load_into(
    world: &mut World,
    fault: impl AsyncFnOnce(&mut World),
) -> (Vec<Create>, Instant) {
    let users: Vec<Client> = (0..CONNECTIONS).map(|_| world.client(user())).collect();
    let load = Load::start(CONNECTIONS, |number| users[number].clone());
    wait_until(DRAIN, "load is committed online", async || load.accepted() >= 200).await;
    let broken = Instant::now();
    fault(world).await;
    wait_until(DRAIN, "a backlog is buffered, for over two seconds", async || {
        load.buffered() >= BACKLOG && broken.elapsed() > Duration::from_secs(3)
    })
    .await;
    (load.stop().await, broken)
}

/// Reads, changes and deletes of what is only buffered; what is pending at the end.
async fn work_in_an_outage(client: &Client) -> (String, String, String) {
    let kept = create(client, "kept", 202).await;
    let deleted = create(client, "deleted", 202).await;
    let path = format!("/api/v1/tasks/{kept}");
    assert_eq!(client.get(&path).await.expect(200).text("/data/title"), "kept");
    let change = json!({ "title": "changed", "description": null, "status": "completed" });
    let changed = client.put(&path, &change).await.expect(202);
    assert_eq!(changed.text("/data/title"), "changed");
    let operation = changed.text("/meta/sync/operation_id").to_owned();
    assert_eq!(changed.header("location"), format!("/api/v1/operations/{operation}"));
    client.delete(&format!("/api/v1/tasks/{deleted}")).await.expect(202);
    client.get(&format!("/api/v1/tasks/{deleted}")).await.expect(404);
    still_seen(client, &kept, &operation).await;
    (kept, deleted, operation)
}

async fn still_seen(client: &Client, kept: &str, operation: &str) {
    let read = client.get(&format!("/api/v1/tasks/{kept}")).await.expect(200);
    assert_eq!(read.text("/data/title"), "changed");
    assert_eq!((read.text("/meta/source"), read.at("/meta/stale")), ("overlay", &json!(true)));
    let list = client.get("/api/v1/tasks").await.expect(200);
    assert_eq!(list.at("/meta/total"), 1);
    assert_eq!(list.text("/data/0/id"), kept);
    assert_eq!(list.at("/meta/complete"), &json!(false));
    let pending = client.get(&format!("/api/v1/operations/{operation}")).await.expect(200);
    assert_eq!(pending.text("/data/state"), "pending");
}

/// Waits until what was buffered has been replayed, and checks all that must be true then.
async fn recovered(
    world: &World,
    client: &Client,
    (kept, deleted, operation): (String, String, String),
    creates: &[Create],
) {
    drained(world).await;
    let applied = client.get(&format!("/api/v1/operations/{operation}")).await.expect(200);
    assert_eq!(applied.text("/data/state"), "applied");
    let read = client.get(&format!("/api/v1/tasks/{kept}")).await.expect(200);
    assert_eq!((read.text("/data/title"), read.text("/meta/source")), ("changed", "database"));
    client.get(&format!("/api/v1/tasks/{deleted}")).await.expect(404);
    let tombstone = format!(
        "SELECT title, description, deleted_at > created_at FROM tasks WHERE id = '{deleted}'"
    );
    assert_eq!(world.postgres.psql(&tombstone).await, "||t");
    world.postgres.psql(&format!("DELETE FROM tasks WHERE id IN ('{kept}', '{deleted}')")).await;
    each_accepted_exactly_once(world, creates).await;
    ledger_in_lane_order(world).await;
    assert_eq!(
        world.postgres.psql("SELECT count(*) FROM operations WHERE outcome <> 'applied'").await,
        "0"
    );
}

/// Starts PostgreSQL and measures: from the moment it accepts connections to the first replayed
/// operation, and to the last of at least `BACKLOG`.
async fn replay_is_prompt(world: &mut World) {
    let before: usize =
        world.anonymous().get("/health").await.at("/data/buffer/pending").as_u64().unwrap()
            as usize;
    assert!(before >= BACKLOG, "{before} pending");
    let restarting = epoch(SystemTime::now());
    let accepts_since = world.postgres.start_again().await.elapsed().as_secs_f64();
    let accepts = epoch(SystemTime::now()) - accepts_since;
    drained(world).await;
    let nth = |n: usize| {
        format!(
            "SELECT extract(epoch FROM applied_at) FROM operations \
             WHERE applied_at > to_timestamp({restarting}) ORDER BY applied_at OFFSET {n} LIMIT 1"
        )
    };
    let first: f64 = world.postgres.psql(&nth(0)).await.parse().unwrap();
    let thousandth: f64 = world.postgres.psql(&nth(BACKLOG - 1)).await.parse().unwrap();
    let (begin, drain) = (first - accepts, thousandth - first);
    eprintln!(
        "replay of {before} began {begin:.3} s after PostgreSQL; {BACKLOG} took {drain:.3} s"
    );
    assert!(begin <= 1.0, "replay began {begin:.3} s after PostgreSQL accepted connections");
    assert!(drain <= 3.0, "{BACKLOG} operations took {drain:.3} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i1_i2_i3_postgresql_killed_under_load_loses_nothing_and_turns_nobody_away() {
    let mut world = World::builder().without_lines().start().await;
    let (creates, broken) = load_into(&mut world, async |world| world.postgres.kill().await).await;
    nobody_was_turned_away(&creates, broken, Duration::from_millis(1500));
    let client = world.client(user());
    let work = work_in_an_outage(&client).await;
    let (kept, _, operation) = &work;

    world.api.kill();
    world.api.restart().await;
    still_seen(&client, kept, operation).await;

    replay_is_prompt(&mut world).await;
    recovered(&world, &client, work, &creates).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_i13_a_worker_killed_in_mid_replay_comes_to_the_same_end() {
    let mut world = World::start().await;
    let (creates, _) = load_into(&mut world, async |world| world.postgres.kill().await).await;
    let client = world.client(user());
    let work = work_in_an_outage(&client).await;
    world.postgres.start_again().await;
    let mut kills = 0;
    while world.anonymous().get("/health").await.at("/data/buffer/pending") != 0 && kills < 5 {
        let before = world.postgres.psql("SELECT count(*) FROM operations").await;
        world.worker.restart().await;
        wait_until(DRAIN, "replay goes on", async || {
            world.postgres.psql("SELECT count(*) FROM operations").await != before
                || world.anonymous().get("/health").await.at("/data/buffer/pending") == 0
        })
        .await;
        world.worker.kill();
        kills += 1;
    }
    assert!(kills >= 1, "the worker was killed in mid-replay");
    world.worker.restart().await;
    recovered(&world, &client, work, &creates).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_i11_postgresql_that_hangs_is_an_outage_like_any_other() {
    let mut world = World::start().await;
    let (creates, broken) = load_into(&mut world, async |world| world.postgres.suspend()).await;
    nobody_was_turned_away(&creates, broken, Duration::from_secs(2));
    let client = world.client(user());
    let work = work_in_an_outage(&client).await;
    world.postgres.resume();
    recovered(&world, &client, work, &creates).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_i11_a_line_that_swallows_everything_is_an_outage_like_any_other() {
    let mut world = World::start().await;
    let (creates, broken) =
        load_into(&mut world, async |world| world.postgres_line.stall().await).await;
    nobody_was_turned_away(&creates, broken, Duration::from_secs(2));
    let client = world.client(user());
    let work = work_in_an_outage(&client).await;
    world.postgres_line.heal().await;
    recovered(&world, &client, work, &creates).await;
}
