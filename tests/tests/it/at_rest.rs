//! The buffer at rest: with keys nothing that a client wrote stands in the file, keys are exchanged
//! while everything runs, and a wrong key loses nothing.

use serde_json::{Value, json};
use shared::buffer::Buffer;
use shared::settings::BufferSettings;
use tests::{Client, Launch, World, binaries, wait_until};

use crate::story::{DRAIN, create, drained, is_readable, user};

const VARIABLE: &str = "BUFFER_KEYS";
const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "new:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
/// Another key under the id of [`OLD`].
const WRONG: &str = "old:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
const MARKER: &str = "canary-4e7";

/// Runs the worker's command line with these keys; what it printed, or what it said on failure.
async fn command(world: &mut World, keys: &str, arguments: &[&str]) -> Result<String, String> {
    let launch = Launch::new(binaries().join("holdfast-worker"), world.folder().join("cli.log"))
        .args(arguments.iter().copied())
        .env("DATABASE_URL", world.postgres.url())
        .env("BUFFER_PATH", world.buffer_path().to_string_lossy().into_owned())
        .env(VARIABLE, keys);
    let output = tokio::time::timeout(DRAIN, launch.output());
    output.await.expect("the command ends").map_err(|error| format!("{error:#}"))
}

async fn create_marked(client: &Client, numbers: std::ops::Range<u32>) {
    for number in numbers {
        create(client, &format!("{MARKER} {number}"), 202).await;
    }
}

async fn stored(world: &World) -> String {
    let marked = format!("SELECT count(*) FROM tasks WHERE title LIKE '{MARKER} %'");
    world.postgres.psql(&marked).await
}

async fn restart_with(world: &mut World, keys: &str) {
    for process in [&mut world.api, &mut world.worker] {
        process.launch_mut().set_env(VARIABLE, keys);
        process.restart().await;
    }
}

async fn health(world: &World, pointer: &str) -> Value {
    world.anonymous().get("/health").await.at(pointer).clone()
}

#[tokio::test]
async fn what_is_written_in_an_outage_is_not_readable_in_the_file_and_is_replayed() {
    let mut world = World::builder().env(VARIABLE, OLD).start().await;
    let client = world.client(user());
    world.postgres.kill().await;
    create_marked(&client, 0..20).await;
    let profile = json!({ "preferences": { "note": MARKER } });
    client.put("/api/v1/profile", &profile).await.expect(202);
    assert!(!is_readable(&world, MARKER));
    let listed = client.get("/api/v1/tasks").await.expect(200);
    assert_eq!(listed.at("/data").as_array().unwrap().len(), 20, "its user sees it all the same");
    let exported = command(&mut world, OLD, &["buffer", "export"]).await.unwrap();
    assert_eq!(exported.matches(MARKER).count(), 21);
    command(&mut world, OLD, &["buffer", "verify"]).await.unwrap();

    world.postgres.start_again().await;

    drained(&world).await;
    assert_eq!(stored(&world).await, "20");
    assert!(!is_readable(&world, MARKER));
    for log in [world.api.log(), world.worker.log()] {
        assert!(!log.contains(OLD) && !log.contains(MARKER));
    }
}

#[tokio::test]
async fn keys_are_exchanged_while_api_and_worker_run_and_nothing_is_lost() {
    let mut world = World::builder().start().await;
    world.postgres.kill().await;
    let client = world.client(user());
    create_marked(&client, 0..10).await;
    assert!(is_readable(&world, MARKER), "without keys there would be nothing to hide");
    let refused = command(&mut world, "", &["buffer", "rekey"]).await.unwrap_err();
    assert!(refused.contains(VARIABLE), "{refused}");
    restart_with(&mut world, OLD).await;
    create_marked(&client, 10..20).await;
    let both = format!("{NEW},{OLD}");
    restart_with(&mut world, &both).await;
    create_marked(&client, 20..30).await;

    let rekeyed = command(&mut world, &both, &["buffer", "rekey", "--json"]).await.unwrap();

    let counts: Value = serde_json::from_str(&rekeyed).unwrap();
    assert_eq!((&counts["seen"], &counts["pending"]), (&json!(30), &json!(20)), "{counts}");
    assert_eq!((&counts["dead"], &counts["unreadable"]), (&json!(0), &json!(0)));
    assert!(!is_readable(&world, MARKER), "what was not sealed before is overwritten");
    restart_with(&mut world, NEW).await;
    create_marked(&client, 30..40).await;
    command(&mut world, NEW, &["buffer", "verify"]).await.unwrap();
    let audit = command(&mut world, NEW, &["buffer", "audit"]).await.unwrap();
    assert!(audit.contains("rekey") && audit.contains("account "), "{audit}");
    world.postgres.start_again().await;
    drained(&world).await;
    assert_eq!(stored(&world).await, "40");
    assert_eq!(health(&world, "/data/buffer/quarantined").await, json!(0));
}

#[tokio::test]
async fn a_wrong_key_sets_everything_aside_and_the_right_one_brings_it_back() {
    let mut world = World::builder().without_worker().env(VARIABLE, OLD).start().await;
    let owner = user();
    let client = world.client(owner);
    world.postgres.kill().await;
    let mut operations = Vec::new();
    for number in 0..5 {
        let body = json!({ "title": format!("{MARKER} {number}") });
        let answer = client.post("/api/v1/tasks", &body).await.expect(202);
        operations.push(answer.text("/meta/sync/operation_id").to_owned());
    }
    world.postgres.start_again().await;
    world.worker.launch_mut().set_env(VARIABLE, WRONG);
    world.worker.start().await.unwrap();

    wait_until(DRAIN, "all of it is in quarantine", async || {
        health(&world, "/data/buffer/quarantined").await == json!(5)
    })
    .await;

    assert_eq!(stored(&world).await, "0");
    for id in &operations {
        let state = client.get(&format!("/api/v1/operations/{id}")).await.expect(200);
        assert_eq!(state.text("/data/reason"), "quarantined");
        let refused = command(&mut world, WRONG, &["buffer", "retry", id]).await.unwrap_err();
        assert!(refused.contains("quarantine"), "{refused}");
    }
    world.worker.launch_mut().set_env(VARIABLE, OLD);
    world.worker.restart().await;
    let operator = world.client_as(user(), "operator");
    for (number, id) in operations.iter().enumerate() {
        if number == 0 {
            let retry = format!("/api/v1/buffer/dead/{id}/retry");
            operator.post(&retry, &json!({})).await.expect(200);
        } else {
            command(&mut world, OLD, &["buffer", "retry", id]).await.unwrap();
        }
    }
    drained(&world).await;
    assert_eq!(stored(&world).await, "5");
    assert_eq!(health(&world, "/data/buffer/quarantined").await, json!(0));
}

#[tokio::test]
async fn a_user_is_erased_from_the_file_while_the_api_serves_on() {
    let mut world = World::builder().without_worker().start().await;
    world.postgres.kill().await;
    let (gone, stays) = (user(), user());
    let client = world.client(gone);
    for number in 0..30 {
        create(&client, &format!("{MARKER} {number}"), 202).await;
        create(&world.client(stays), &format!("other {number}"), 202).await;
    }
    let answer = client.post("/api/v1/tasks", &json!({ "title": MARKER })).await.expect(202);
    let operation = answer.header("location").to_owned();
    assert!(is_readable(&world, MARKER));
    let settings = BufferSettings { buffer_path: world.buffer_path(), ..BufferSettings::default() };
    let buffer = Buffer::open_existing(&settings).unwrap();

    let (erased, ()) = tokio::join!(buffer.erase_user(gone, "the test"), async {
        for number in 30..40 {
            create(&world.client(stays), &format!("other {number}"), 202).await;
        }
    });

    assert_eq!(erased.unwrap().pending, 31);
    assert!(!is_readable(&world, MARKER));
    let state = client.get(&operation).await.expect(200);
    assert_eq!((state.text("/data/state"), state.text("/data/reason")), ("discarded", "erased"));
    command(&mut world, "", &["buffer", "verify"]).await.unwrap();
    world.postgres.start_again().await;
    world.worker.start().await.unwrap();
    drained(&world).await;
    assert_eq!(stored(&world).await, "0");
    assert_eq!(world.postgres.psql("SELECT count(*) FROM tasks").await, "40");
}
