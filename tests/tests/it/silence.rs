//! Whatever clients send and settings hold: none of it is found in logs, metrics, failures, the
//! published status or the audit log, however much the logs are asked to tell.

use reqwest::Method;
use serde_json::json;
use tests::token::{Algorithm, claims};
use tests::{Answer, Client, Launch, World, binaries, wait_until};
use uuid::Uuid;

use crate::story::{DRAIN, create, drained, user};

/// In everything that must not be found again.
const CANARY: &str = "canary7f3e";
const OWN: &str = "canary7f3e-own-0123456789-abcdefghijk";
const PROVIDERS: &str = "canary7f3e-theirs-0123456789-abcdefgh";

/// A trigger that repeats every title in a warning.
const TALKATIVE: &str = "
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN RAISE WARNING ''%'', NEW.title; RETURN NEW; END';
CREATE TRIGGER tell BEFORE INSERT OR UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION tell()";

/// What libraries and databases would say of an error, and no client is to read.
const INSIDE: [&str; 14] = [
    "sqlstate",
    "select ",
    "insert ",
    "src/",
    ".rs",
    "/tmp",
    "redb",
    "sqlx",
    "postgres",
    "panicked",
    "struct ",
    "enum ",
    "::",
    "data/buffer",
];

/// What was asked for and refused, and what the refusals said.
async fn refusals(client: &Client, anonymous: &Client) -> Vec<Answer> {
    let long = CANARY.repeat(30);
    let tasks = "/api/v1/tasks";
    let bodies = [
        json!({ "title": long }).to_string(),
        json!({ "title": { CANARY: CANARY } }).to_string(),
        json!({ "title": "a", "description": [CANARY] }).to_string(),
        json!({ "title": "a", "status": CANARY }).to_string(),
        format!("{{\"title\": \"{CANARY}"),
        CANARY.to_owned(),
        format!("\"{CANARY}\""),
    ];
    let mut answers = Vec::new();
    for body in bodies {
        let request = client.request(Method::POST, tasks);
        let request = request.header("content-type", "application/json").body(body);
        answers.push(Answer::to(request).await.unwrap());
    }
    for body in [json!({ "preferences": CANARY }), json!({ "preferences": [CANARY] })] {
        answers.push(client.patch("/api/v1/profile", &body).await);
    }
    for path in [
        format!("{tasks}?status={CANARY}"),
        format!("{tasks}?page={CANARY}"),
        format!("{tasks}?cursor={CANARY}"),
        format!("{tasks}/{CANARY}"),
        format!("/{CANARY}"),
        format!("/api/v1/operations/{CANARY}"),
    ] {
        answers.push(client.get(&path).await);
    }
    let keyed = client.request(Method::POST, tasks).header("Idempotency-Key", CANARY.repeat(100));
    answers.push(Answer::to(keyed.json(&json!({ "title": "a" }))).await.unwrap());
    let matched = client.request(Method::PATCH, &format!("{tasks}/{}", Uuid::now_v7()));
    let matched = matched.header("If-Match", format!("\"{CANARY}\""));
    answers.push(Answer::to(matched.json(&json!({ "title": "a" }))).await.unwrap());
    for (path, field) in [("login", "assertion"), ("refresh", "refresh_token")] {
        for value in [json!(CANARY), json!([CANARY]), json!(long.repeat(40))] {
            let body = json!({ field: value });
            answers.push(anonymous.post(&format!("/api/v1/auth/{path}"), &body).await);
        }
    }
    answers
}

/// Failures have a code and a request's id, and tell nothing of what was sent or of the inside.
fn are_silent(answers: &[Answer]) {
    for answer in answers {
        assert!((400..500).contains(&answer.status), "{answer:#?}");
        assert!(answer.at("/error/code").is_string(), "{answer:#?}");
        assert_eq!(answer.text("/meta/request_id"), answer.header("x-request-id"));
        let text = answer.body.to_string().to_lowercase();
        for inside in INSIDE.into_iter().chain([CANARY]) {
            assert!(!text.contains(inside), "{inside}: {answer:#?}");
        }
    }
}

/// All the things that a client does, each with something to hide; the titles' tasks are made.
async fn work(client: &Client, status: u16) {
    let tasks = "/api/v1/tasks";
    let body = json!({ "title": CANARY, "description": CANARY });
    let request =
        client.request(Method::POST, tasks).header("Idempotency-Key", format!("{CANARY}-{status}"));
    let request = request.header("X-Whatever", CANARY).header("traceparent", CANARY);
    let made = Answer::to(request.json(&body)).await.unwrap().expect(status);
    let task = format!("{tasks}/{}", made.text("/data/id"));
    let later = if status == 201 { 200 } else { 202 };
    client.patch(&task, &json!({ "description": format!("{CANARY} again") })).await.expect(later);
    let preferences = json!({ "preferences": { CANARY: [CANARY] } });
    client.put("/api/v1/profile", &preferences).await.expect(later);
    client.get(&task).await.expect(200);
    client.get("/api/v1/profile").await.expect(200);
    client.get(&format!("{tasks}?limit=7&page=1")).await.expect(200);
}

async fn audit(world: &World) -> String {
    let launch = Launch::new(binaries().join("holdfast-worker"), world.folder().join("cli.log"))
        .args(["buffer", "audit", "--json"])
        .env("BUFFER_PATH", world.buffer_path().to_string_lossy().into_owned());
    launch.output().await.unwrap()
}

async fn set_passwords(world: &mut World) {
    let client = redis::Client::open(world.redis.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("requirepass").arg(format!("{CANARY}redis"));
    let () = set.query_async(&mut redis).await.unwrap();
    let redis = format!("redis://:{CANARY}redis@127.0.0.1:{}/0", world.redis_line.port());
    let role = format!("postgres://holdfast:{CANARY}pg@127.0.0.1");
    let database = format!("{role}:{}/holdfast", world.postgres_line.port());
    for process in [&mut world.api, &mut world.worker] {
        process.launch_mut().set_env("REDIS_URL", redis.clone());
        process.launch_mut().set_env("DATABASE_URL", database.clone());
    }
}

#[tokio::test]
async fn nothing_that_is_sent_or_set_is_told_again() {
    let mut world = World::builder()
        .without_api()
        .without_worker()
        .env("RUST_LOG", "trace,sqlx=trace,sqlx::query=trace,redis=trace,hyper=trace,h2=trace")
        .env("JWT_SECRET", OWN)
        .env("PROVIDER_JWT_SECRET", PROVIDERS)
        .start()
        .await;
    set_passwords(&mut world).await;
    world.api.restart().await;
    world.worker.restart().await;
    wait_until(DRAIN, "healthy", async || world.is_healthy().await).await;
    // Somebody's trigger that tells, which the driver's log would tell again.
    world.postgres.psql(TALKATIVE).await;
    let own = tests::token::EncodingKey::from_secret(OWN.as_bytes());
    let providers = tests::token::EncodingKey::from_secret(PROVIDERS.as_bytes());
    let client_as = |id: Uuid, role: &str| {
        world.client_with(&world.token(&claims(id, role), &own, Algorithm::HS256))
    };
    let (bad, id) = (user(), user());
    let (client, suspended) = (client_as(id, "user"), client_as(bad, "user"));
    let (admin, anonymous) = (client_as(user(), "admin"), world.anonymous());

    let mut word = claims(id, "user");
    word["iss"] = json!(World::PROVIDER_ISSUER);
    word["aud"] = json!(World::PROVIDER_AUDIENCE);
    let word = world.token(&word, &providers, Algorithm::HS256);
    let granted = anonymous.post("/api/v1/auth/login", &json!({ "assertion": word })).await;
    let refresh = granted.expect(200).text("/data/refresh_token").to_owned();
    let body = json!({ "refresh_token": refresh });
    let renewed = anonymous.post("/api/v1/auth/refresh", &body).await.expect(200);
    let newest = renewed.text("/data/refresh_token").to_owned();
    anonymous.post("/api/v1/auth/refresh", &body).await.expect(401);
    let mut secrets: Vec<String> = [&refresh, &newest]
        .into_iter()
        .flat_map(|token| token.split('.').skip(1).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    secrets.extend([word, renewed.text("/data/access_token").to_owned()]);

    work(&client, 201).await;
    create(&suspended, CANARY, 201).await;
    are_silent(&refusals(&client, &anonymous).await);
    world.postgres.kill().await;
    work(&client, 202).await;
    let dead = suspended.post("/api/v1/tasks", &json!({ "title": CANARY })).await.expect(202);
    are_silent(&refusals(&client, &anonymous).await);
    let standing = json!({ "status": "suspended" });
    admin.patch(&format!("/api/v1/users/{bad}"), &standing).await.expect(202);
    world.postgres.start_again().await;
    drained(&world).await;
    let letter = format!("/api/v1/buffer/dead/{}", dead.text("/meta/sync/operation_id"));
    admin.get("/api/v1/buffer/dead").await.expect(200);
    admin.post(&format!("{letter}/retry"), &json!({})).await.expect(200);
    wait_until(DRAIN, "dead again", async || admin.delete(&letter).await.status == 200).await;
    world.redis.kill();
    client.get("/api/v1/tasks").await.expect(200);

    // A database that does not let us in, with the wrong password.
    let hba = "SELECT setting FROM pg_settings WHERE name = 'hba_file'";
    let hba = world.postgres.psql(hba).await;
    std::fs::write(hba, "local all all trust\nhost all all all scram-sha-256\n").unwrap();
    world.postgres.psql("SELECT pg_reload_conf()").await;
    world.worker.restart().await;
    wait_until(DRAIN, "the api is not let in", async || {
        world.api.restart().await;
        anonymous.get("/health").await.at("/data/postgres") == "down"
    })
    .await;
    work(&client, 202).await;

    let mut told = world.api.log() + &world.worker.log() + &audit(&world).await;
    for url in [world.api_url(), world.worker_url()] {
        for path in ["/metrics", "/health"] {
            let answer = world.http().get(format!("{url}{path}")).send().await.unwrap();
            told.push_str(&answer.text().await.unwrap());
        }
    }
    told.push_str(&admin.get("/api/v1/buffer").await.expect(200).body.to_string());
    assert!(told.contains("TRACE") || told.contains("DEBUG"), "nothing was asked for");
    assert!(!told.contains("panicked"));
    secrets.push(CANARY.to_owned());
    let lines = told.lines().filter(|line| secrets.iter().any(|secret| line.contains(secret)));
    let found: Vec<&str> = lines.map(|line| &line[..line.len().min(600)]).take(20).collect();
    assert!(found.is_empty(), "{found:#?}");
}
