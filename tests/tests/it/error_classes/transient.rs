//! PostgreSQL could not do it just now, and may well do it next time: locks, deadlocks, writers that
//! met, statements that were cancelled. Tried again at once; then buffered and tried again later.
//! The link stays up, others go on, and nothing is held against the operation.

use std::time::Duration;

use serde_json::json;
use tests::{Client, World, wait_until};

use super::{
    Log, api_finds_postgres, applied, nothing_was_given_up, operation, pause_replay,
    pending_and_unblamed, postgres_said, resume_replay, start, while_holding,
};
use crate::story::{DRAIN, create, drained, user};

/// How often one request tries before its write is buffered.
const ROUNDS: u32 = 4;

/// A world in which a request waits for several locks in vain, and sessions see a deadlock at once
/// and writers that met instead of waiting for each other's end.
async fn world() -> World {
    let builder =
        World::builder().without_api().without_worker().env("DB_WRITE_TIMEOUT_MS", "3000");
    let mut world = start(builder).await;
    for setting in
        ["deadlock_timeout = '30ms'", "default_transaction_isolation = 'repeatable read'"]
    {
        world.postgres.psql(&format!("ALTER DATABASE holdfast SET {setting}")).await;
    }
    for process in [&mut world.worker, &mut world.api] {
        process.start().await.unwrap();
    }
    wait_until(DRAIN, "it is migrated", async || world.is_migrated().await).await;
    wait_until(DRAIN, "it is healthy", async || world.is_healthy().await).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_i8_a_row_that_somebody_locks_keeps_only_its_own_lane_waiting() {
    const TIMED_OUT: &str = "canceling statement due to lock timeout";
    let world = world().await;
    let client = world.client(user());
    let locked = create(&client, "locked", 201).await;
    let path = format!("/api/v1/tasks/{locked}");
    let away = Log::of(&world.api);
    let lock = format!("SELECT FROM tasks WHERE id = '{locked}' FOR UPDATE");
    let operations = while_holding(&world, &lock, async || {
        let change = client.patch(&path, &json!({ "title": "online" })).await.expect(202);
        assert!(postgres_said(&world, TIMED_OUT) >= 4, "tried at once, and again");
        create(&client, "another, online", 201).await;
        assert_eq!(away.count(&world.api, "PostgreSQL is away", ""), 0, "the link is up");
        let mut operations = vec![change.text("/meta/sync/operation_id").to_owned()];

        pause_replay(&world).await;
        world.postgres_line.cut().await;
        let change = client.patch(&path, &json!({ "status": "completed" })).await.expect(202);
        operations.push(change.text("/meta/sync/operation_id").to_owned());
        let other = client.post("/api/v1/tasks", &json!({ "title": "another" })).await.expect(202);
        world.postgres_line.heal().await;
        api_finds_postgres(&world, "up").await;
        let before = postgres_said(&world, TIMED_OUT);
        resume_replay(&world).await;
        let other = other.text("/meta/sync/operation_id").to_owned();
        wait_until(Duration::from_secs(15), "the other lane goes on", async || {
            let found = client.get(&format!("/api/v1/operations/{other}")).await;
            found.status == 200 && found.text("/data/state") == "applied"
        })
        .await;
        wait_until(Duration::from_secs(15), "replay tries again and again", async || {
            postgres_said(&world, TIMED_OUT) >= before + 12
        })
        .await;
        pending_and_unblamed(&client, &operations).await;
        operations
    })
    .await;
    drained(&world).await;
    applied(&client, &operations).await;
    nothing_was_given_up(&world).await;
    let seen = client.get(&path).await.expect(200);
    assert_eq!((seen.text("/data/title"), seen.text("/data/status")), ("online", "completed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_a_table_that_is_locked_makes_writes_wait_in_the_buffer_and_not_in_requests() {
    let world = world().await;
    let client = world.client(user());
    let lock = "LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE";
    let operations = while_holding(&world, lock, async || {
        let mut operations = Vec::new();
        for title in ["first", "second", "third"] {
            let answer = client.post("/api/v1/tasks", &json!({ "title": title })).await.expect(202);
            assert!(answer.took < Duration::from_secs(2), "{:?}", answer.took);
            operations.push(answer.text("/meta/sync/operation_id").to_owned());
        }
        let said = |world: &World| postgres_said(world, "canceling statement due to lock timeout");
        let before = said(&world);
        wait_until(Duration::from_secs(15), "replay tries", async || said(&world) >= before + 8)
            .await;
        pending_and_unblamed(&client, &operations).await;
        operations
    })
    .await;
    drained(&world).await;
    applied(&client, &operations).await;
    nothing_was_given_up(&world).await;
}

/// Two real conflicts, each of which PostgreSQL settles at the cost of our statement: a second try
/// is enough, and the client notices nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_and_a_serialization_failure_are_tried_again_at_once() {
    let world = world().await;
    let client = world.client(user());

    // We hold 1 and want 2; the other holds 2, and wanted 1 before.
    world
        .postgres
        .psql(
            "CREATE FUNCTION collide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                PERFORM pg_advisory_xact_lock(1);
                WHILE NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 1
                    AND NOT granted) LOOP
                    EXIT WHEN nextval('patience') > 500;
                    PERFORM pg_sleep(0.005);
                END LOOP;
                PERFORM pg_advisory_xact_lock(2);
                RETURN NEW;
            END $$;
            CREATE SEQUENCE patience;
            CREATE TRIGGER collide BEFORE INSERT ON tasks FOR EACH ROW
                WHEN (NEW.title = 'crosswise') EXECUTE FUNCTION collide()",
        )
        .await;
    let other = "SET LOCAL deadlock_timeout = '20s';
        SELECT pg_advisory_xact_lock(2);
        DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 1)
            LOOP PERFORM pg_sleep(0.005); END LOOP; END $$;
        SELECT pg_advisory_xact_lock(1);
        SELECT setval('patience', 501)";
    let body = json!({ "title": "crosswise" });
    let (_, answer) = tokio::join!(world.postgres.psql(other), client.post("/api/v1/tasks", &body));
    answer.expect(201);
    assert_eq!(postgres_said(&world, "deadlock detected"), 1);

    let task = create(&client, "contested", 201).await;
    let other = format!(
        "UPDATE tasks SET updated_at = now() WHERE id = '{task}';
        DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted)
            LOOP PERFORM pg_sleep(0.005); END LOOP; END $$"
    );
    let (path, body) = (format!("/api/v1/tasks/{task}"), json!({ "title": "changed" }));
    let changed = async {
        let writing = "SELECT count(*) FROM pg_stat_activity \
            WHERE query LIKE 'UPDATE tasks SET updated_at%' AND wait_event = 'PgSleep'";
        wait_until(DRAIN, "the row is being written", async || {
            world.postgres.psql(writing).await == "1"
        })
        .await;
        client.patch(&path, &body).await
    };
    let (_, answer) = tokio::join!(world.postgres.psql(&other), changed);
    assert_eq!(answer.expect(200).text("/data/title"), "changed");
    assert_eq!(postgres_said(&world, "could not serialize access due to concurrent update"), 1);
    nothing_was_given_up(&world).await;
}

/// Each SQLSTATE of the class, raised by a trigger as often as a sequence says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_a_write_that_fails_again_and_again_is_buffered_and_replayed_unblamed() {
    let world = world().await;
    world
        .postgres
        .psql(
            "CREATE SEQUENCE failures MINVALUE 0;
            CREATE TABLE fault (state text, times bigint);
            INSERT INTO fault VALUES ('', 0);
            CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE f fault;
            BEGIN
                SELECT * INTO f FROM fault;
                IF nextval('failures') <= f.times THEN
                    RAISE EXCEPTION 'not now' USING ERRCODE = f.state;
                END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER fail BEFORE INSERT ON tasks FOR EACH ROW
                WHEN (NEW.title = 'marked') EXECUTE FUNCTION fail()",
        )
        .await;
    let client = world.client(user());
    for state in ["40001", "40P01", "55P03", "57014"] {
        // The last try of the request, the first of replay, and one of replay's later ones.
        for (times, status) in [(ROUNDS - 1, 201), (ROUNDS, 202), (3 * ROUNDS + 1, 202)] {
            fails(&world, &client, state, times, status).await;
        }
    }
    nothing_was_given_up(&world).await;
}

async fn fails(world: &World, client: &Client, state: &str, times: u32, status: u16) {
    let fault = format!(
        "UPDATE fault SET state = '{state}', times = {times}; SELECT setval('failures', 0)"
    );
    world.postgres.psql(&fault).await;
    let (away, said) = (Log::of(&world.api), postgres_said(world, "not now"));
    pause_replay(world).await;
    let answer = client.post("/api/v1/tasks", &json!({ "title": "marked" })).await.expect(status);
    assert_eq!(away.count(&world.api, "PostgreSQL is away", ""), 0, "{state}: the link is up");
    if status == 202 {
        let id = answer.text("/meta/sync/operation_id").to_owned();
        pending_and_unblamed(client, std::slice::from_ref(&id)).await;
        resume_replay(world).await;
        wait_until(DRAIN, &format!("{state} is over"), async || {
            let found = operation(client, &id).await;
            let blamed = found.at("/data/attempts").as_u64().unwrap_or(0);
            assert_eq!(blamed, 0, "{state}: {found:#?}");
            found.text("/data/state") == "applied"
        })
        .await;
    } else {
        resume_replay(world).await;
    }
    let failed = postgres_said(world, "not now") - said;
    assert_eq!(failed, times as usize, "{state}: failed as often as was meant");
    let count = format!("SELECT count(*) FROM tasks WHERE id = '{}'", answer.text("/data/id"));
    assert_eq!(world.postgres.psql(&count).await, "1", "{state}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_a_statement_that_is_cancelled_is_tried_again_and_then_buffered() {
    const CANCELLED: &str = "canceling statement due to user request";
    let world = world().await;
    world
        .postgres
        .psql(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                PERFORM pg_sleep(0.15);
                RETURN NEW;
            END $$;
            CREATE TRIGGER slow BEFORE INSERT ON tasks FOR EACH ROW
                WHEN (NEW.title = 'slow') EXECUTE FUNCTION slow()",
        )
        .await;
    // Cancels whatever of ours sleeps, until so many were.
    let cancel = |times: u32| {
        format!(
            "DO $$ DECLARE n int := 0; asleep int; BEGIN
            WHILE n < {times} LOOP
                PERFORM pg_stat_clear_snapshot();
                SELECT pid INTO asleep FROM pg_stat_activity
                    WHERE application_name IN ('holdfast-api', 'holdfast-worker')
                    AND wait_event = 'PgSleep' LIMIT 1;
                IF FOUND AND pg_cancel_backend(asleep) THEN n := n + 1; END IF;
                PERFORM pg_sleep(0.02);
            END LOOP; END $$"
        )
    };
    let (once, often) = (cancel(1), cancel(16));
    let client = world.client(user());
    let asked = async { client.post("/api/v1/tasks", &json!({ "title": "slow" })).await };
    let (_, answer) = tokio::join!(world.postgres.psql(&once), asked);
    answer.expect(201);
    let asked = async {
        let answer = client.post("/api/v1/tasks", &json!({ "title": "slow" })).await.expect(202);
        let id = answer.text("/meta/sync/operation_id").to_owned();
        wait_until(DRAIN, "replay is cancelled, too", async || {
            postgres_said(&world, CANCELLED) >= 10
        })
        .await;
        pending_and_unblamed(&client, std::slice::from_ref(&id)).await;
        id
    };
    let (_, id) = tokio::join!(world.postgres.psql(&often), asked);
    drained(&world).await;
    applied(&client, &[id]).await;
    nothing_was_given_up(&world).await;
}
