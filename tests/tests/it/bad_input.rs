//! Everything that cannot be accepted is answered with a 4xx in the envelope, and nothing is stored:
//! online and in an outage.

use reqwest::Method;
use serde_json::{Value, json};
use tests::token::{Algorithm, EncodingKey, claims, now, unsigned};
use tests::{Answer, Client, World};
use uuid::Uuid;

use crate::story::{create, user};

/// A request that is refused, and how.
struct Bad {
    what: &'static str,
    method: Method,
    path: String,
    content_type: &'static str,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
    field: Option<&'static str>,
}

fn post(what: &'static str, body: impl Into<Vec<u8>>, code: &'static str) -> Bad {
    Bad {
        what,
        method: Method::POST,
        path: "/api/v1/tasks".to_owned(),
        content_type: "application/json",
        body: body.into(),
        status: 400,
        code,
        field: None,
    }
}

fn field(what: &'static str, body: &Value, field: &'static str) -> Bad {
    Bad { field: Some(field), ..post(what, body.to_string(), "INVALID_FIELD") }
}

fn bodies() -> Vec<Bad> {
    let long = "x".repeat(256);
    vec![
        field("no title", &json!({}), "title"),
        field("an empty title", &json!({ "title": "" }), "title"),
        field("a blank title", &json!({ "title": " \t " }), "title"),
        field("a title of 256 characters", &json!({ "title": long }), "title"),
        field("a title with NUL", &json!({ "title": "a\u{0}b" }), "title"),
        field("a title that is a number", &json!({ "title": 7 }), "title"),
        field("a title that is null", &json!({ "title": null }), "title"),
        field(
            "a description that is a list",
            &json!({ "title": "a", "description": [] }),
            "description",
        ),
        field(
            "a long description",
            &json!({ "title": "a", "description": "x".repeat(10_001) }),
            "description",
        ),
        field("an unknown status", &json!({ "title": "a", "status": "done" }), "status"),
        field("an unknown field", &json!({ "title": "a", "color": "red" }), "color"),
        field("somebody's id", &json!({ "title": "a", "user_id": Uuid::nil() }), "user_id"),
        field("a list", &json!([]), "body"),
        field("null", &json!(null), "body"),
        post("no body", "", "MALFORMED_JSON"),
        post("broken JSON", "{\"title\": \"a\"", "MALFORMED_JSON"),
        post("two values", "{\"title\":\"a\"} {}", "MALFORMED_JSON"),
        post("a lone surrogate", "{\"title\":\"\\ud800\"}", "MALFORMED_JSON"),
        post("invalid UTF-8", b"{\"title\":\"\xff\xfe\"}".to_vec(), "MALFORMED_JSON"),
        Bad { status: 413, ..post("200,000 levels", "[".repeat(200_000), "BODY_TOO_LARGE") },
        post("60,000 levels", "[".repeat(60_000), "INVALID_FIELD"),
        post("levels in a field", format!("{{\"title\":{}", "[".repeat(60_000)), "INVALID_FIELD"),
        Bad {
            status: 413,
            ..post("1 MiB", format!("{{\"title\":\"{}\"}}", "x".repeat(1 << 20)), "BODY_TOO_LARGE")
        },
        Bad {
            content_type: "text/plain",
            status: 415,
            ..post("text", "{\"title\":\"a\"}", "UNSUPPORTED_MEDIA_TYPE")
        },
        Bad {
            content_type: "application/xml",
            status: 415,
            ..post("XML", "<a/>", "UNSUPPORTED_MEDIA_TYPE")
        },
    ]
}

fn routes(task: &str) -> Vec<Bad> {
    let route = |what, method, path: &str, status, code| Bad {
        method,
        path: path.to_owned(),
        status,
        ..post(what, "{}", code)
    };
    let own = format!("/api/v1/tasks/{task}");
    vec![
        route("a bad id", Method::GET, "/api/v1/tasks/17", 400, "INVALID_PARAMETER"),
        route("a bad id", Method::PUT, "/api/v1/tasks/not-a-uuid", 400, "INVALID_PARAMETER"),
        route("a bad id", Method::DELETE, "/api/v1/tasks/%00", 400, "INVALID_PARAMETER"),
        route("a bad id", Method::GET, "/api/v1/operations/x", 400, "INVALID_PARAMETER"),
        route("an unknown route", Method::GET, "/api/v1/nothing", 404, "ROUTE_NOT_FOUND"),
        route("an unknown route", Method::POST, "/", 404, "ROUTE_NOT_FOUND"),
        route(
            "a path that climbs",
            Method::GET,
            "/api/v1/tasks/../../../etc/passwd",
            404,
            "ROUTE_NOT_FOUND",
        ),
        route("an unknown method", Method::DELETE, "/api/v1/tasks", 405, "METHOD_NOT_ALLOWED"),
        route(
            "an unknown method",
            Method::from_bytes(b"BREW").unwrap(),
            "/api/v1/tasks",
            405,
            "METHOD_NOT_ALLOWED",
        ),
        route("an empty change", Method::PATCH, &own, 400, "INVALID_FIELD"),
        Bad {
            field: Some("title"),
            ..route("a replace without fields", Method::PUT, &own, 400, "INVALID_FIELD")
        },
        Bad {
            field: Some("description"),
            body: json!({ "title": "a", "status": "pending" }).to_string().into_bytes(),
            ..route("a replace without a description", Method::PUT, &own, 400, "INVALID_FIELD")
        },
        Bad {
            field: Some("status"),
            body: json!({ "status": null }).to_string().into_bytes(),
            ..route("a null status", Method::PATCH, &own, 400, "INVALID_FIELD")
        },
        Bad {
            field: Some("preferences"),
            body: json!({ "preferences": { "k": "x".repeat(8192) } }).to_string().into_bytes(),
            ..route("long preferences", Method::PUT, "/api/v1/profile", 400, "INVALID_FIELD")
        },
        Bad {
            field: Some("preferences"),
            body: json!({ "preferences": [] }).to_string().into_bytes(),
            ..route(
                "preferences that are a list",
                Method::PUT,
                "/api/v1/profile",
                400,
                "INVALID_FIELD",
            )
        },
    ]
}

/// Every failure has the same shape, and says nothing about the inside.
fn in_the_envelope(answer: &Answer, what: &str) {
    assert!(answer.at("/error/code").is_string(), "{what}: {answer:#?}");
    assert!(answer.at("/error/message").is_string(), "{what}: {answer:#?}");
    assert!(answer.at("/error/details").is_array(), "{what}: {answer:#?}");
    assert_eq!(answer.text("/meta/request_id"), answer.header("x-request-id"), "{what}");
    let text = answer.body.to_string().to_lowercase();
    for inside in ["sqlstate", "select ", "src/", "panicked", "postgres", "redb"] {
        assert!(!text.contains(inside), "{what}: {text}");
    }
}

async fn is_refused(client: &Client, bad: &Bad) {
    let request = client
        .request(bad.method.clone(), &bad.path)
        .header("content-type", bad.content_type)
        .body(bad.body.clone());
    let answer = Answer::to(request).await.unwrap();
    assert_eq!(answer.status, bad.status, "{}: {answer:#?}", bad.what);
    in_the_envelope(&answer, bad.what);
    assert_eq!(answer.text("/error/code"), bad.code, "{}: {answer:#?}", bad.what);
    if let Some(field) = bad.field {
        assert_eq!(answer.text("/error/details/0/field"), field, "{}: {answer:#?}", bad.what);
    }
}

#[tokio::test]
async fn what_cannot_be_accepted_is_refused_with_a_clear_code_and_stores_nothing() {
    let mut world = World::start().await;
    let client = world.client(user());
    let task = create(&client, "the one task", 201).await;
    for bad in bodies().iter().chain(&routes(&task)) {
        is_refused(&client, bad).await;
    }
    let stored = "SELECT (SELECT count(*) FROM tasks), (SELECT count(*) FROM operations)";
    assert_eq!(world.postgres.psql(stored).await, "1|1");

    world.postgres.kill().await;
    create(&client, "the one pending task", 202).await;
    for bad in bodies().iter().chain(&routes(&task)) {
        is_refused(&client, bad).await;
    }
    let health = world.anonymous().get("/health").await;
    assert_eq!(health.at("/data/buffer/pending"), 1);
}

#[tokio::test]
async fn a_body_without_a_length_is_limited_too_and_a_compressed_one_refused() {
    let world = World::start().await;
    let client = world.client(user());
    let chunks = (0..64).map(|_| Ok::<_, std::io::Error>(vec![b'['; 4096]));
    let chunked = client
        .request(Method::POST, "/api/v1/tasks")
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(futures::stream::iter(chunks)));
    let answer = Answer::to(chunked).await.unwrap().expect(413);
    assert_eq!(answer.text("/error/code"), "BODY_TOO_LARGE");
    let compressed = client
        .request(Method::POST, "/api/v1/tasks")
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .body("{}");
    Answer::to(compressed).await.unwrap().expect(415);
}

#[tokio::test]
async fn only_a_valid_token_of_a_known_issuer_is_let_in() {
    let mut world = World::start().await;
    let subject = user();
    let good = claims(subject, "user");
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed
    };
    let without = |name: &str| {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().remove(name);
        changed
    };
    let (own, stranger) = (world.key(), EncodingKey::from_secret(&[7; 32]));
    let own_token = |claims: &Value| world.token(claims, &own, Algorithm::HS256);
    let valid = own_token(&good);
    let mut garbled = valid.clone();
    garbled.replace_range(
        valid.len() - 6..valid.len() - 5,
        if valid.as_bytes()[valid.len() - 6] == b'A' { "B" } else { "A" },
    );
    let bad = vec![
        ("garbled", garbled),
        ("no token at all", "x".repeat(50)),
        ("empty", String::new()),
        ("expired", own_token(&with("exp", json!(now() - 120)))),
        ("not yet valid", own_token(&with("nbf", json!(now() + 600)))),
        ("without an end", own_token(&without("exp"))),
        ("without a subject", own_token(&without("sub"))),
        ("without an issuer", own_token(&without("iss"))),
        ("without an audience", own_token(&without("aud"))),
        ("of another issuer", own_token(&with("iss", json!("somebody")))),
        ("for another audience", own_token(&with("aud", json!("somebody")))),
        ("with a subject that is no UUID", own_token(&with("sub", json!("root")))),
        ("with an unknown role", own_token(&with("role", json!("root")))),
        ("signed by a stranger", world.token(&good, &stranger, Algorithm::HS256)),
        ("of another algorithm", world.token(&good, &own, Algorithm::HS512)),
        (
            "ours, signed with the provider's key",
            world.token(&good, &world.provider_key(), Algorithm::HS256),
        ),
        ("unsigned", unsigned(&good)),
    ];
    let clients: Vec<(&str, Client)> =
        bad.iter().map(|(what, token)| (*what, world.client_with(token))).collect();
    for outage in [false, true] {
        if outage {
            world.postgres.kill().await;
        }
        for (what, client) in
            clients.iter().map(|(w, c)| (*w, c.clone())).chain([("missing", world.anonymous())])
        {
            for (method, path) in [
                (Method::POST, "/api/v1/tasks"),
                (Method::GET, "/api/v1/tasks"),
                (Method::GET, "/api/v1/profile"),
            ] {
                let request = client.request(method, path).json(&json!({ "title": "a" }));
                let answer = Answer::to(request).await.unwrap();
                assert_eq!(answer.status, 401, "{what} {path}: {answer:#?}");
                assert_eq!(answer.text("/error/code"), "UNAUTHORIZED", "{what}");
                assert_eq!(answer.header("www-authenticate"), "Bearer", "{what}");
                in_the_envelope(&answer, what);
            }
        }
    }
    assert_eq!(world.anonymous().get("/health").await.at("/data/buffer/pending"), 0);
    world.postgres.start_again().await;
    assert_eq!(world.postgres.psql("SELECT count(*) FROM tasks").await, "0");
}

#[tokio::test]
async fn a_token_of_the_identity_provider_is_let_in() {
    let world = World::start().await;
    let mut claims = claims(user(), "user");
    claims["iss"] = json!(World::PROVIDER_ISSUER);
    claims["aud"] = json!([World::PROVIDER_AUDIENCE, "others"]);
    let token = world.token(&claims, &world.provider_key(), Algorithm::HS256);
    create(&world.client_with(&token), "by way of the provider", 201).await;
}
