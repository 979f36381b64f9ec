//! Each class of errors from PostgreSQL, provoked for real: what clients are told, and what becomes
//! of the operations in replay.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Client, Process, World, wait_until};

use crate::story::{DRAIN, user};

mod data;
mod transient;
mod unavailable;

/// A world in which troubles end soon, and its operator.
async fn start(builder: tests::Builder) -> World {
    builder.env("PROBE_INTERVAL_MS", "50").env("RETRY_BASE_MS", "50").start().await
}

async fn pause_replay(world: &World) {
    operator(world).post("/api/v1/buffer/pause", &json!({})).await.expect(200);
}

async fn resume_replay(world: &World) {
    operator(world).post("/api/v1/buffer/resume", &json!({})).await.expect(200);
}

fn operator(world: &World) -> Client {
    world.client_as(user(), "operator")
}

/// Waits until the api believes that PostgreSQL is `state`.
async fn api_finds_postgres(world: &World, state: &str) {
    wait_until(DRAIN, &format!("the api finds PostgreSQL {state}"), async || {
        world.anonymous().get("/health").await.text("/data/postgres") == state
    })
    .await;
}

/// What an accepted operation has come to, as its user sees it.
async fn operation(client: &Client, id: &str) -> tests::Answer {
    client.get(&format!("/api/v1/operations/{id}")).await.expect(200)
}

/// Insists that operations wait in the buffer and that nothing was held against them (I7).
async fn pending_and_unblamed(client: &Client, operations: &[String]) {
    for id in operations {
        let found = operation(client, id).await;
        assert_eq!(found.text("/data/state"), "pending", "{found:#?}");
        assert_eq!(found.at("/data/attempts"), &json!(0), "{found:#?}");
    }
}

async fn applied(client: &Client, operations: &[String]) {
    for id in operations {
        let found = operation(client, id).await;
        assert_eq!(found.text("/data/state"), "applied", "{found:#?}");
    }
}

async fn nothing_was_given_up(world: &World) {
    assert_eq!(world.anonymous().get("/health").await.at("/data/buffer/dead"), 0);
}

/// What a process logs from now on.
struct Log {
    from: usize,
}

impl Log {
    fn of(process: &Process) -> Self {
        Self { from: process.log().len() }
    }

    /// Whether an error of this class, with this text, was told at error level.
    fn tells(&self, process: &Process, class: &str, error: &str) -> bool {
        self.lines(process).any(|line| {
            let told = line["fields"]["error"].as_str().unwrap_or_default();
            line["level"] == "ERROR" && line["fields"]["class"] == class && told.contains(error)
        })
    }

    /// How often this was logged.
    fn count(&self, process: &Process, message: &str, error: &str) -> usize {
        let said = |line: &Value, field: &str, wanted: &str| {
            line["fields"][field].as_str().unwrap_or_default().contains(wanted)
        };
        self.lines(process)
            .filter(|line| said(line, "message", message) && said(line, "error", error))
            .count()
    }

    fn lines(&self, process: &Process) -> impl Iterator<Item = Value> {
        let log = process.log().split_off(self.from);
        let lines: Vec<Value> =
            log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.into_iter()
    }
}

/// How often PostgreSQL has logged this text.
fn postgres_said(world: &World, text: &str) -> usize {
    world.postgres.log().matches(text).count()
}

/// Runs `story` while a session of the test's own holds the locks that `sql` takes.
async fn while_holding<T>(world: &World, sql: &str, story: impl AsyncFnOnce() -> T) -> T {
    const HOLDER: &str = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%the-holder%' \
        AND pid <> pg_backend_pid() AND wait_event = 'PgSleep'";
    let script = format!("{sql}; SELECT pg_sleep(25) /* the-holder */");
    let hold = world.postgres.try_psql(&script);
    let told = async {
        wait_until(Duration::from_secs(10), "the lock is held", async || {
            !world.postgres.psql(HOLDER).await.is_empty()
        })
        .await;
        let told = story().await;
        world.postgres.psql(&format!("SELECT pg_terminate_backend(({HOLDER}))")).await;
        told
    };
    let (held, told) = tokio::join!(hold, told);
    let ended = held.expect_err("the holder was sent away").to_string();
    assert!(ended.contains("terminating connection"), "{ended}");
    told
}
