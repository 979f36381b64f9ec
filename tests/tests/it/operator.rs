//! The operator: sees and acts over HTTP and from the command line, on the live file; what cannot be
//! done is said clearly and changes nothing; every act is in the audit log with who did it.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Client, Launch, World, binaries, wait_until};
use uuid::Uuid;

use crate::story::{DRAIN, create, drained, user};

/// Runs the worker's command line on a world's buffer; what it printed, or what it said on failure.
async fn command(world: &mut World, arguments: &[&str]) -> Result<String, String> {
    let path = world.buffer_path();
    command_on(world, &path, arguments).await
}

async fn command_on(
    world: &mut World,
    path: &std::path::Path,
    arguments: &[&str],
) -> Result<String, String> {
    let launch = Launch::new(binaries().join("holdfast-worker"), world.folder().join("cli.log"))
        .args(arguments.iter().copied())
        .env("DATABASE_URL", world.postgres.url())
        .env("REDIS_URL", world.redis.url())
        .env("BUFFER_PATH", path.to_string_lossy().into_owned());
    let output = tokio::time::timeout(Duration::from_secs(60), launch.output());
    output.await.expect("the command ends").map_err(|error| format!("{error:#}"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// A world with a dead letter (an update of a task that is nowhere), PostgreSQL being up; and the
/// operation's id.
async fn with_a_dead_letter() -> (World, Client, String) {
    let mut world = World::builder().env("MISSING_RETRY_SECONDS", "0").start().await;
    let client = world.client(user());
    world.postgres.kill().await;
    let path = format!("/api/v1/tasks/{}", Uuid::now_v7());
    let answer = client.patch(&path, &json!({ "title": "canary-title" })).await.expect(202);
    let id = answer.text("/meta/sync/operation_id").to_owned();
    world.postgres.start_again().await;
    drained(&world).await;
    (world, client, id)
}

#[tokio::test]
async fn an_operator_sees_and_acts_over_http_and_a_user_does_not() {
    let (mut world, client, id) = with_a_dead_letter().await;
    let (boss, name) = (user(), "/api/v1/buffer");
    let operator = world.client_as(boss, "operator");
    let dead = operator.get(&format!("{name}/dead")).await.expect(200);
    assert_eq!((dead.text("/data/0/id"), dead.text("/data/0/reason")), (id.as_str(), "not_found"));
    assert_eq!(dead.at("/data/0/payload"), &Value::Null);
    let shown = operator.get(&format!("{name}/dead?payload=true")).await.expect(200);
    assert_eq!(shown.text("/data/0/payload/task_patch/patch/title"), "canary-title");
    for filter in ["state=expired", "reason=other", "user_id=00000000-0000-0000-0000-000000000000"]
    {
        let none = operator.get(&format!("{name}/dead?{filter}")).await.expect(200);
        assert_eq!(none.at("/data"), &json!([]), "{filter}");
    }

    operator.post(&format!("{name}/pause"), &json!({})).await.expect(200);
    let twice = operator.post(&format!("{name}/pause"), &json!({})).await.expect(409);
    assert_eq!(twice.text("/error/code"), "ALREADY_PAUSED");
    operator.post(&format!("{name}/dead/{id}/retry"), &json!({})).await.expect(200);
    let again = operator.post(&format!("{name}/dead/{id}/retry"), &json!({})).await.expect(409);
    assert_eq!(again.text("/error/code"), "OPERATION_PENDING");
    let stats = operator.get(name).await.expect(200);
    assert_eq!((stats.at("/data/pending"), stats.at("/data/dead")), (&json!(1), &json!(0)));
    assert_eq!(stats.at("/data/pending_by_priority"), &json!([0, 0, 1, 0, 0]));
    assert_eq!(stats.text("/data/paused_by"), boss.to_string());
    let health = world.anonymous().get("/health").await.expect(503);
    assert_eq!(health.text("/data/worker"), "paused");
    let pending = operator.get(&format!("{name}/operations?action=patch&priority=3")).await;
    assert_eq!(pending.expect(200).text("/data/0/id"), id);
    operator.post(&format!("{name}/resume"), &json!({})).await.expect(200);
    let twice = operator.post(&format!("{name}/resume"), &json!({})).await.expect(409);
    assert_eq!(twice.text("/error/code"), "NOT_PAUSED");
    wait_until(DRAIN, "dead again", async || {
        operator.get(&format!("{name}/dead")).await.at("/data/0/id") == &json!(id)
    })
    .await;

    operator.delete(&format!("{name}/dead/{id}")).await.expect(200);
    let gone = operator.delete(&format!("{name}/dead/{id}")).await.expect(409);
    assert_eq!(gone.text("/error/code"), "ALREADY_DISCARDED");
    operator.delete(&format!("{name}/dead/{}", Uuid::now_v7())).await.expect(404);
    let state = client.get(&format!("/api/v1/operations/{id}")).await.expect(200);
    assert_eq!((state.text("/data/state"), state.text("/data/reason")), ("discarded", "not_found"));
    let audit = lines(&command(&mut world, &["buffer", "audit", "--json"]).await.unwrap());
    let acts: Vec<&str> = audit.iter().map(|act| act["kind"].as_str().unwrap()).collect();
    assert_eq!(acts, ["discard", "resume", "retry", "pause"]);
    assert!(audit.iter().all(|act| act["by"] == json!(boss)), "{audit:?}");

    for (method, path) in [
        (reqwest::Method::GET, name.to_owned()),
        (reqwest::Method::GET, format!("{name}/operations")),
        (reqwest::Method::GET, format!("{name}/dead")),
        (reqwest::Method::POST, format!("{name}/pause")),
        (reqwest::Method::POST, format!("{name}/dead/{id}/retry")),
        (reqwest::Method::DELETE, format!("{name}/dead/{id}")),
    ] {
        let answer = client.send(method.clone(), &path, None).await.unwrap().expect(403);
        assert_eq!(answer.text("/error/code"), "FORBIDDEN", "{method} {path}");
    }
}

#[tokio::test]
async fn lists_are_filtered_and_come_in_parts() {
    let mut world = World::builder().without_postgres().without_worker().start().await;
    let (one, two) = (user(), user());
    for number in 0..5 {
        let client = world.client(if number % 2 == 0 { one } else { two });
        let id = create(&client, &format!("task {number}"), 202).await;
        if number == 0 {
            client.delete(&format!("/api/v1/tasks/{id}")).await.expect(202);
        }
    }
    let operator = world.client_as(user(), "admin");
    let mut cursor = String::new();
    let mut seen = Vec::new();
    loop {
        let path = format!("/api/v1/buffer/operations?limit=2{cursor}");
        let part = operator.get(&path).await.expect(200);
        let data = part.at("/data").as_array().unwrap().clone();
        assert!(data.len() <= 2);
        seen.extend(data.iter().map(|o| o["action"].as_str().unwrap().to_owned()));
        match part.at("/meta/next_cursor").as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["create", "delete", "create", "create", "create", "create"]);
    for (filter, count) in [
        (format!("user_id={one}"), 4),
        (format!("user_id={two}"), 2),
        ("priority=4".to_owned(), 1),
        ("action=create".to_owned(), 5),
        (format!("user_id={one}&action=delete"), 1),
    ] {
        let found = operator.get(&format!("/api/v1/buffer/operations?{filter}")).await.expect(200);
        assert_eq!(found.at("/data").as_array().unwrap().len(), count, "{filter}");
    }
    for bad in ["limit=0", "limit=501", "action=x", "cursor=x", "priority=x", "user_id=x"] {
        let answer = operator.get(&format!("/api/v1/buffer/operations?{bad}")).await.expect(400);
        assert_eq!(answer.text("/error/code"), "INVALID_PARAMETER", "{bad}");
    }
    operator.get("/api/v1/buffer/dead?state=applied").await.expect(400);
    let exported = lines(&command(&mut world, &["buffer", "export"]).await.unwrap());
    assert_eq!(exported.len(), 6);
    assert_eq!(exported[0]["payload"]["task_create"]["fields"]["title"], "task 0");
    let table = command(&mut world, &["buffer", "list", "--limit", "3"]).await.unwrap();
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(!table.contains("task 0"), "a payload that nobody asked for: {table}");
}

#[tokio::test]
async fn an_operator_acts_from_the_command_line_on_the_live_file() {
    let (mut world, client, id) = with_a_dead_letter().await;
    let stats = command(&mut world, &["buffer", "stats", "--json"]).await.unwrap();
    let stats = &lines(&stats)[0];
    assert_eq!((&stats["dead"], &stats["pending"]), (&json!(1), &json!(0)));
    let shown = command(&mut world, &["buffer", "show", &id]).await.unwrap();
    assert!(shown.contains("not_found") && !shown.contains("canary"), "{shown}");
    let shown = command(&mut world, &["buffer", "show", &id, "--payload"]).await.unwrap();
    assert!(shown.contains("canary-title"), "{shown}");
    let dead = command(&mut world, &["buffer", "list", "--dead", "--json"]).await.unwrap();
    assert_eq!(lines(&dead)[0]["id"], json!(id));
    let verified = command(&mut world, &["buffer", "verify", "--json"]).await.unwrap();
    assert_eq!(lines(&verified)[0]["problems"], json!([]));

    command(&mut world, &["pause"]).await.unwrap();
    command(&mut world, &["buffer", "retry", &id]).await.unwrap();
    let unknown = Uuid::now_v7().to_string();
    for (arguments, said) in [
        (vec!["pause"], "paused already"),
        (vec!["drain"], "paused"),
        (vec!["buffer", "retry", &id], "pending"),
        (vec!["buffer", "discard", &id], "pending"),
        (vec!["buffer", "retry", &unknown], "no such operation"),
        (vec!["buffer", "discard", &unknown], "no such operation"),
        (vec!["buffer", "show", &unknown], "no operation"),
        (vec!["buffer", "show", "not-a-uuid"], "invalid value"),
        (vec!["buffer", "list", "--action", "x"], "must be one of"),
    ] {
        let refused = command(&mut world, &arguments).await.unwrap_err();
        assert!(refused.contains(said), "{arguments:?}: {refused}");
        assert!(!refused.contains("panicked"), "{arguments:?}: {refused}");
    }
    let pending = command(&mut world, &["buffer", "stats", "--json"]).await.unwrap();
    assert_eq!(lines(&pending)[0]["pending"], json!(1));
    command(&mut world, &["resume"]).await.unwrap();
    wait_until(DRAIN, "dead again", async || {
        let state = client.get(&format!("/api/v1/operations/{id}")).await;
        state.at("/data/state") == "rejected"
    })
    .await;
    command(&mut world, &["buffer", "discard", &id]).await.unwrap();
    let twice = command(&mut world, &["buffer", "discard", &id]).await.unwrap_err();
    assert!(twice.contains("discarded already"), "{twice}");
    let audit = command(&mut world, &["buffer", "audit"]).await.unwrap();
    assert!(audit.lines().skip(1).all(|line| line.contains("account ")), "{audit}");
}

#[tokio::test]
async fn drain_replays_what_is_pending_when_no_worker_does() {
    let mut world = World::builder().without_worker().start().await;
    let client = world.client(user());
    for number in 0..20 {
        create(&client, &format!("task {number}"), 202).await;
    }
    let drained = command(&mut world, &["drain", "--json"]).await.unwrap();
    assert_eq!(lines(&drained)[0]["drained"], json!(20));
    assert_eq!(world.postgres.psql("SELECT count(*) FROM tasks").await, "20");
    let none = command(&mut world, &["drain"]).await.unwrap();
    assert!(none.contains("drained 0 operations"), "{none}");
}

#[tokio::test]
async fn a_file_that_is_no_buffer_is_refused_and_left_as_it_is() {
    let mut world = World::builder().without_postgres().without_worker().start().await;
    create(&world.client(user()), "in the buffer", 202).await;
    let folder = world.folder().join("data");
    let original = std::fs::read(world.buffer_path()).unwrap();
    let mut truncated = original.clone();
    truncated.truncate(original.len() / 2);
    let mut zeroed = original.clone();
    zeroed[4096..].fill(0);
    for (name, content) in [
        ("text.redb", b"this is no database, however long it may be".repeat(300)),
        ("truncated.redb", truncated),
        ("zeroed.redb", zeroed),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, &content).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).unwrap();
        for arguments in [vec!["buffer", "stats"], vec!["buffer", "verify"], vec!["pause"]] {
            let refused = command_on(&mut world, &path, &arguments).await.unwrap_err();
            assert!(refused.contains("BUFFER_PATH"), "{name} {arguments:?}: {refused}");
        }
        assert_eq!(std::fs::read(&path).unwrap().len(), content.len(), "{name}");
    }
    let missing = folder.join("missing.redb");
    let refused = command_on(&mut world, &missing, &["buffer", "stats"]).await.unwrap_err();
    assert!(refused.contains("BUFFER_PATH"), "{refused}");
    assert!(!missing.exists());
}
