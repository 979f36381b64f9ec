//! PostgreSQL takes no writes of ours, for whatever reason: not there, not writable, not letting us in,
//! of another schema. Writes go to the buffer, nothing is held against them, and all of it is
//! replayed once the trouble is over.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tests::{Account, Programs, World, wait_for, wait_until};

use super::{
    Log, api_finds_postgres, applied, nothing_was_given_up, pause_replay, pending_and_unblamed,
    resume_replay, start,
};
use crate::story::{DRAIN, create, drained, user};

/// Connections that are tried in vain before a trouble is over, by api and worker together.
const PROBES: u64 = 8;
const TRUST_ALL_BUT_APP: &str = "host all app 127.0.0.1/32 scram-sha-256\n\
    host all all 127.0.0.1/32 trust\n";
const LET_APP_IN_NO_MORE: &str = "host all app 127.0.0.1/32 reject\n\
    host all all 127.0.0.1/32 trust\n";
const SEND_APP_AWAY: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE usename = 'app'";
const RELOAD: &str = "SELECT pg_reload_conf()";

/// A trouble that SQL brings about, and ends.
struct Trouble {
    what: &'static str,
    class: &'static str,
    /// What both processes must tell.
    error: &'static str,
    begin: &'static [&'static str],
    end: &'static [&'static str],
    /// Shows that it has begun, and that it is over: `t`.
    seen: &'static str,
}

const TROUBLES: &[Trouble] = &[
    Trouble {
        what: "read-only",
        class: "unavailable",
        error: "SQLSTATE 25006",
        begin: &["ALTER SYSTEM SET default_transaction_read_only = on", RELOAD],
        end: &["ALTER SYSTEM RESET default_transaction_read_only", RELOAD],
        seen: "SELECT current_setting('transaction_read_only')::bool",
    },
    Trouble {
        what: "too many connections",
        class: "unavailable",
        // The pool asks again until its time is up.
        error: "cannot be reached",
        begin: &["ALTER ROLE app CONNECTION LIMIT 0", SEND_APP_AWAY],
        end: &["ALTER ROLE app CONNECTION LIMIT -1"],
        seen: "SELECT rolconnlimit = 0 FROM pg_roles WHERE rolname = 'app'",
    },
    Trouble {
        what: "a wrong password",
        class: "auth",
        error: "SQLSTATE 28P01",
        begin: &["ALTER ROLE app PASSWORD 'another'", SEND_APP_AWAY],
        end: &["ALTER ROLE app PASSWORD 'right'"],
        seen: "SELECT true",
    },
    Trouble {
        what: "privileges withdrawn",
        class: "auth",
        error: "SQLSTATE 42501",
        begin: &["REVOKE INSERT ON operations FROM app"],
        end: &["GRANT INSERT ON operations TO app"],
        seen: "SELECT NOT has_table_privilege('app', 'operations', 'INSERT')",
    },
    Trouble {
        what: "a missing column",
        class: "schema",
        error: "SQLSTATE 42703",
        begin: &["ALTER TABLE tasks RENAME COLUMN description TO explanation"],
        end: &["ALTER TABLE tasks RENAME COLUMN explanation TO description"],
        seen: "SELECT EXISTS (SELECT FROM information_schema.columns \
            WHERE table_name = 'tasks' AND column_name = 'explanation')",
    },
    Trouble {
        what: "a missing table",
        class: "schema",
        error: "SQLSTATE 42P01",
        begin: &["ALTER TABLE operations RENAME TO elsewhere"],
        end: &["ALTER TABLE elsewhere RENAME TO operations"],
        seen: "SELECT to_regclass('operations') IS NULL",
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_whatever_keeps_us_from_writing_writes_are_kept_and_replayed_unblamed() {
    let mut world = world_of_app().await;
    for trouble in TROUBLES {
        let Trouble { what, class, error, begin, end, seen } = trouble;
        let begin = async |world: &mut World| {
            run(world, begin).await;
            assert_eq!(world.postgres.psql(seen).await, "t", "{what} has begun");
        };
        let end = async |world: &mut World| run(world, end).await;
        kept_and_replayed(&mut world, what, class, error, begin, end).await;
        if *what == "too many connections" {
            let refused = world.postgres.log().contains("too many connections for role \"app\"");
            assert!(refused, "PostgreSQL turned nobody away");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_a_line_that_is_cut_a_door_that_is_shut_and_a_standby_are_outages_like_any_other() {
    let mut world = world_of_app().await;
    kept_and_replayed(
        &mut world,
        "connections refused",
        "unavailable",
        "cannot be reached",
        async |world| world.postgres_line.cut().await,
        async |world| world.postgres_line.heal().await,
    )
    .await;
    kept_and_replayed(
        &mut world,
        "a role that is not let in",
        "auth",
        "SQLSTATE 28000",
        async |world| {
            let_in(world, LET_APP_IN_NO_MORE).await;
            world.postgres.psql(SEND_APP_AWAY).await;
        },
        async |world| let_in(world, TRUST_ALL_BUT_APP).await,
    )
    .await;
    kept_and_replayed(
        &mut world,
        "a failover to a standby that is still in recovery",
        "unavailable",
        "SQLSTATE 25006",
        async |world| {
            world.postgres.stop_fast().await;
            let signal = data_folder(world).join("standby.signal");
            std::fs::write(&signal, "").unwrap();
            if let Some(account) = Account::to_step_down_to().unwrap() {
                account.own(&signal).unwrap();
            }
            world.postgres.start_again().await;
            assert_eq!(world.postgres.psql("SELECT pg_is_in_recovery()").await, "t");
        },
        async |world| {
            assert_eq!(world.postgres.psql("SELECT pg_is_in_recovery()").await, "t");
            assert_eq!(world.postgres.psql("SELECT pg_promote()").await, "t");
        },
    )
    .await;
}

/// The database lets nobody in: an SQLSTATE that says nothing about connections when a statement is
/// answered with it, and met while connecting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_a_database_that_is_closed_for_maintenance_is_an_outage_like_any_other() {
    let mut world = world_of_app().await;
    let over = data_folder(&world).join("maintenance_is_over");
    // Nobody can come in to open it again, so whoever closes it stays inside meanwhile.
    let closed = "DO $$ BEGIN
        UPDATE pg_database SET datallowconn = false WHERE datname = 'holdfast';
        COMMIT;
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app';
        WHILE pg_stat_file('maintenance_is_over', true) IS NULL LOOP PERFORM pg_sleep(0.02); END LOOP;
        UPDATE pg_database SET datallowconn = true WHERE datname = 'holdfast';
        END $$";
    let mut maintenance = tokio::task::JoinSet::new();
    let not_let_in = "is not currently accepting connections";
    kept_and_replayed(
        &mut world,
        "closed for maintenance",
        "unavailable",
        "cannot be reached",
        async |world| {
            let url = world.postgres.url();
            maintenance.spawn(async move {
                let psql = Programs::newest().unwrap().program("psql");
                let mut psql = tokio::process::Command::new(psql);
                psql.args(["-Xq", &url, "-c", closed]).kill_on_drop(true).output().await.unwrap()
            });
            wait_until(DRAIN, "the database is closed", async || {
                let refused = world.postgres.try_psql("SELECT 1").await;
                refused.is_err_and(|error| error.to_string().contains(not_let_in))
            })
            .await;
        },
        async |_| std::fs::write(&over, "").unwrap(),
    )
    .await;
    let done = maintenance.join_next().await.unwrap().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn i14_a_host_name_that_means_nothing_is_an_outage_like_any_other() {
    const NOWHERE: &str = "postgres://holdfast@nowhere.invalid:5432/holdfast";
    let builder = World::builder().without_api().without_worker();
    let mut world = start(builder).await;
    assert!(tokio::net::lookup_host("nowhere.invalid:5432").await.is_err());
    let right = format!("postgres://holdfast@127.0.0.1:{}/holdfast", world.postgres_line.port());
    for process in [&mut world.api, &mut world.worker] {
        process.launch_mut().set_env("DATABASE_URL", NOWHERE);
        process.start().await.unwrap();
    }
    let client = world.client(user());
    let answer = client.post("/api/v1/tasks", &json!({ "title": "early" })).await.expect(202);
    assert!(answer.took < Duration::from_secs(1), "{:?}", answer.took);
    let operations = [answer.text("/meta/sync/operation_id").to_owned()];
    let told = Log { from: 0 };
    for process in [&world.api, &world.worker] {
        wait_until(DRAIN, "it is told", async || {
            told.tells(process, "unavailable", "cannot be reached")
        })
        .await;
    }
    pending_and_unblamed(&client, &operations).await;
    for process in [&mut world.api, &mut world.worker] {
        process.launch_mut().set_env("DATABASE_URL", right.clone());
        process.restart().await;
    }
    drained(&world).await;
    applied(&client, &operations).await;
}

/// A trouble from its beginning to its end. Replay meets it in mid-work: operations wait when it
/// begins, and the link is up.
async fn kept_and_replayed(
    world: &mut World,
    what: &str,
    class: &str,
    error: &str,
    begin: impl AsyncFnOnce(&mut World),
    end: impl AsyncFnOnce(&mut World),
) {
    eprintln!("{what}");
    let client = world.client(user());
    let task = create(&client, "before", 201).await;
    let path = format!("/api/v1/tasks/{task}");
    let doomed = format!("/api/v1/tasks/{}", create(&client, "to be deleted", 201).await);
    pause_replay(world).await;
    world.postgres_line.cut().await;
    let change = client.patch(&path, &json!({ "title": "while cut" })).await.expect(202);
    let mut operations = vec![change.text("/meta/sync/operation_id").to_owned()];
    world.postgres_line.heal().await;
    api_finds_postgres(world, "up").await;

    let (api, worker) = (Log::of(&world.api), Log::of(&world.worker));
    begin(world).await;
    let met = wait_for(DRAIN, "a write meets it", async || {
        let answer = client.post("/api/v1/tasks", &json!({ "title": "meanwhile" })).await;
        assert!(matches!(answer.status, 201 | 202), "{what}: {answer:#?}");
        assert!(answer.took < Duration::from_secs(2), "{what}: {:?}", answer.took);
        (answer.status == 202).then_some(answer)
    })
    .await;
    let meanwhile = met.text("/data/id").to_owned();
    for answer in [
        met,
        client.patch(&path, &json!({ "title": "after" })).await.expect(202),
        client
            .put("/api/v1/profile", &json!({ "preferences": { "what": what } }))
            .await
            .expect(202),
        client.delete(&doomed).await.expect(202),
    ] {
        operations.push(answer.text("/meta/sync/operation_id").to_owned());
    }
    resume_replay(world).await;
    for (process, log) in [(&world.api, &api), (&world.worker, &worker)] {
        wait_until(DRAIN, &format!("{what} is told by {}", process.name()), async || {
            log.tells(process, class, error)
        })
        .await;
    }
    tried_in_vain(world).await;
    pending_and_unblamed(&client, &operations).await;

    end(world).await;
    drained(world).await;
    applied(&client, &operations).await;
    nothing_was_given_up(world).await;
    let seen = client.get(&path).await.expect(200);
    assert_eq!((seen.text("/data/title"), seen.text("/meta/source")), ("after", "database"));
    client.get(&format!("/api/v1/tasks/{meanwhile}")).await.expect(200);
    client.get(&doomed).await.expect(404);
    let profile = client.get("/api/v1/profile").await.expect(200);
    assert_eq!(profile.text("/data/preferences/what"), what);
}

/// Waits until PostgreSQL was asked again a number of times; on a line that is cut nobody can count.
async fn tried_in_vain(world: &World) {
    if tokio::net::TcpStream::connect(("127.0.0.1", world.postgres_line.port())).await.is_err() {
        return;
    }
    let before = world.postgres_line.counts().connections;
    wait_until(DRAIN, "it is tried in vain", async || {
        world.postgres_line.counts().connections >= before + PROBES
    })
    .await;
}

/// A world whose api and worker log in as `app`, which is no superuser and has a password.
async fn world_of_app() -> World {
    let mut world = start(World::builder().without_api().without_worker()).await;
    for statement in [
        "CREATE ROLE app LOGIN PASSWORD 'right'",
        "ALTER DATABASE holdfast OWNER TO app",
        "GRANT CREATE ON SCHEMA public TO app",
    ] {
        world.postgres.psql(statement).await;
    }
    let_in(&world, TRUST_ALL_BUT_APP).await;
    let url = format!("postgres://app:right@127.0.0.1:{}/holdfast", world.postgres_line.port());
    for process in [&mut world.worker, &mut world.api] {
        process.launch_mut().set_env("DATABASE_URL", url.clone());
        process.start().await.unwrap();
    }
    wait_until(DRAIN, "it is migrated", async || world.is_migrated().await).await;
    wait_until(DRAIN, "it is healthy", async || world.is_healthy().await).await;
    world
}

async fn let_in(world: &World, rules: &str) {
    std::fs::write(data_folder(world).join("pg_hba.conf"), rules).unwrap();
    world.postgres.psql(RELOAD).await;
}

fn data_folder(world: &World) -> PathBuf {
    world.folder().join("postgres")
}

async fn run(world: &World, statements: &[&str]) {
    for statement in statements {
        world.postgres.psql(statement).await;
    }
}
