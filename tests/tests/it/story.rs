//! What the stories of outages have in common: what is written in them, and what must be true when
//! they are over.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tests::{Client, Probe, Process, World, free_port, wait_until};
use uuid::Uuid;

use crate::load::Create;

/// Long enough for any drain of these tests, on a machine that is busy with something else.
pub const DRAIN: Duration = Duration::from_secs(60);

/// A user of their own for each test.
pub fn user() -> Uuid {
    Uuid::new_v4()
}

/// A create that must be accepted with `status`; the task's id.
pub async fn create(client: &Client, title: &str, status: u16) -> String {
    let answer = client.post("/api/v1/tasks", &json!({ "title": title })).await.expect(status);
    answer.text("/data/id").to_owned()
}

/// Another api on the buffer file of a world, and its address.
pub async fn second_api(world: &mut World) -> (Process, String) {
    let port = free_port();
    let log = world.folder().join("second.log");
    let launch = world.api.launch_mut().clone();
    let launch = launch.env("SERVER_PORT", port.to_string()).logging_to(log);
    let mut second = Process::new("second", launch, Probe::Live(port));
    second.start().await.unwrap();
    (second, format!("http://127.0.0.1:{port}"))
}

/// Waits until the buffer is empty and `/health` says healthy.
pub async fn drained(world: &World) {
    wait_until(DRAIN, "the buffer is empty", async || {
        world.anonymous().get("/health").await.at("/data/buffer/pending") == 0
    })
    .await;
    wait_until(DRAIN, "healthy", async || world.is_healthy().await).await;
}

/// A metric of the worker that has no labels; 0 if it has none of that name yet.
pub async fn metric(world: &World, name: &str) -> f64 {
    let metrics = world.http().get(format!("{}/metrics", world.worker_url()));
    let text = metrics.send().await.unwrap().text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// Whether a text stands in any file of the buffer's folder.
pub fn is_readable(world: &World, text: &str) -> bool {
    let folder = world.buffer_path().parent().unwrap().to_owned();
    std::fs::read_dir(folder).unwrap().any(|file| {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

/// Every accepted create is in PostgreSQL, with exactly one ledger row that says so; nothing else
/// is, save for at most those whose answer was lost.
pub async fn each_accepted_exactly_once(world: &World, creates: &[Create]) {
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let tasks = lines(world.postgres.psql("SELECT id FROM tasks").await);
    let ledger =
        lines(world.postgres.psql("SELECT id FROM operations WHERE outcome = 'applied'").await);
    let stored: HashSet<&String> = tasks.iter().collect();
    let applied: HashSet<&String> = ledger.iter().collect();
    assert_eq!(stored.len(), tasks.len());
    assert_eq!(applied.len(), ledger.len());
    let mut unanswered = 0;
    for create in creates {
        if !create.accepted() {
            unanswered += 1;
            continue;
        }
        assert!(stored.contains(create.task.as_ref().unwrap()), "lost: {create:?}");
        assert!(
            applied.contains(create.operation.as_ref().unwrap()),
            "not in the ledger: {create:?}"
        );
    }
    let accepted = creates.len() - unanswered;
    let extra = tasks.len() - accepted.min(tasks.len());
    assert!(extra <= unanswered, "{extra} tasks that nobody asked for");
}

/// In each lane the ledger's order is the order of acceptance (a version's order within a lane).
pub async fn ledger_in_lane_order(world: &World) {
    let disorder = "SELECT count(*) FROM (SELECT id, lag(id) OVER \
        (PARTITION BY entity, entity_id ORDER BY applied_at, id) AS before FROM operations) o \
        WHERE before > id";
    assert_eq!(world.postgres.psql(disorder).await, "0", "ledger rows out of lane order");
}

/// Seconds since 1970, as PostgreSQL's `extract(epoch FROM ..)` has them.
pub fn epoch(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
