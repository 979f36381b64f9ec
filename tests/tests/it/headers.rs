//! Headers for browsers: on every answer, whatever made it, and CORS.

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::json;
use tests::{Answer, Client, World};
use uuid::Uuid;

use crate::story::{create, user};

const ALLOWED: &str = "https://app.example";
const TASKS: &str = "/api/v1/tasks";
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

/// Insists on the headers of every answer.
pub fn are_protected(answer: &Answer, what: &str) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", NOTHING),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("server", ""),
        ("access-control-allow-credentials", ""),
    ] {
        assert_eq!(answer.header(name), value, "{what}: {name}: {answer:#?}");
    }
    assert!(Uuid::parse_str(answer.header("x-request-id")).is_ok(), "{what}: {answer:#?}");
}

/// A request, and the status and code it is answered with.
type Case = (&'static str, reqwest::RequestBuilder, u16, &'static str);

fn all_kinds(world: &World, client: &Client, outage: bool) -> Vec<Case> {
    let get = |path: &str| client.request(Method::GET, path);
    let post = || client.request(Method::POST, TASKS);
    let (written, unknown) = match outage {
        false => (201, (404, "TASK_NOT_FOUND")),
        true => (202, (503, "DATABASE_UNAVAILABLE")),
    };
    let health = if outage { 503 } else { 200 };
    let missing = format!("{TASKS}/{}", Uuid::new_v4());
    let preflight = |origin| {
        let request = client.request(Method::OPTIONS, TASKS).header("origin", origin);
        request.header("access-control-request-method", "POST")
    };
    let large = vec![b' '; 100_000];
    vec![
        ("a probe", get("/live"), 200, ""),
        ("health", get("/health"), health, ""),
        ("metrics", get("/metrics"), 200, ""),
        ("the interface", get("/openapi.json"), 200, ""),
        ("a list", get(TASKS), 200, ""),
        ("a write", post().json(&json!({ "title": "a" })), written, ""),
        ("an unknown task", get(&missing), unknown.0, unknown.1),
        ("an unknown route", get("/nothing"), 404, "ROUTE_NOT_FOUND"),
        ("beneath the page", get("/docs/nothing"), 404, "ROUTE_NOT_FOUND"),
        ("an unknown method", client.request(Method::DELETE, TASKS), 405, "METHOD_NOT_ALLOWED"),
        ("a bad id", get("/api/v1/tasks/1"), 400, "INVALID_PARAMETER"),
        ("a bad body", post().json(&json!([])), 400, "INVALID_FIELD"),
        ("text", post().body("a"), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (
            "a large body",
            post().header("content-type", "application/json").body(large),
            413,
            "BODY_TOO_LARGE",
        ),
        ("nobody", world.anonymous().request(Method::GET, TASKS), 401, "UNAUTHORIZED"),
        ("a user", get("/api/v1/buffer"), 403, "FORBIDDEN"),
        ("a stranger's page", get("/live").header("origin", "https://x.example"), 403, REFUSED),
        ("its preflight", preflight("https://x.example"), 403, REFUSED),
        ("a preflight", preflight(ALLOWED), 204, ""),
    ]
}

const REFUSED: &str = "ORIGIN_NOT_ALLOWED";

#[tokio::test]
async fn every_answer_has_the_headers_whatever_made_it() {
    let mut world = World::builder().env("CORS_ORIGINS", ALLOWED).start().await;
    let client = world.client(user());
    for outage in [false, true] {
        if outage {
            world.postgres.kill().await;
            create(&client, "buffered", 202).await;
        }
        for (what, request, status, code) in all_kinds(&world, &client, outage) {
            let secure = request.try_clone().unwrap().header("x-forwarded-proto", "https");
            let answer = Answer::to(request).await.unwrap();
            assert_eq!(answer.status, status, "{what}: {answer:#?}");
            assert_eq!(answer.at("/error/code").as_str().unwrap_or_default(), code, "{what}");
            are_protected(&answer, what);
            assert_eq!(answer.header("vary"), "Origin", "{what}");
            assert_eq!(answer.header("strict-transport-security"), "", "{what}");
            let secure = Answer::to(secure).await.unwrap();
            assert_eq!(secure.status, status, "{what}: {secure:#?}");
            let hsts = secure.header("strict-transport-security");
            assert_eq!(hsts, "max-age=31536000; includeSubDomains", "{what}");
        }
    }
}

#[tokio::test]
async fn the_page_of_the_interface_may_run_its_own_scripts_and_nothing_else() {
    let world = World::builder().without_postgres().without_redis().without_worker().start().await;
    for path in ["/docs", "/docs/"] {
        let page = world.anonymous().get(path).await.expect(200);
        let policy = page.header("content-security-policy");
        let scripts = policy.split("; ").find_map(|part| part.strip_prefix("script-src ")).unwrap();
        assert_eq!(scripts.split(' ').count(), 2, "{policy}");
        assert!(scripts.split(' ').all(|source| source.starts_with("'sha256-")), "{policy}");
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
        assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
    }
}

/// A request with these `Origin`s, and what it meets where `CORS_ORIGINS` are set: the origin that
/// is allowed, or none; and whether it is served at all.
type Call = (Vec<Vec<u8>>, Option<&'static str>, bool);

fn origins(own: &str) -> Vec<Call> {
    let one = |origin: &str| vec![origin.as_bytes().to_vec()];
    let long = format!("https://{}.example", "x".repeat(8 << 10));
    let twice = vec![ALLOWED.as_bytes().to_vec(), ALLOWED.as_bytes().to_vec()];
    let mut cases = vec![
        (Vec::new(), None, true),
        (one(ALLOWED), Some(ALLOWED), true),
        (one("http://localhost:3000"), Some("http://localhost:3000"), true),
        (one(own), None, true),
        (one(&own.replace("http:", "https:")), None, true),
        (twice, None, false),
        (vec![b"https://app.ex\xe4mple".to_vec()], None, false),
        (vec![b"\xff\xfe".to_vec()], None, false),
    ];
    cases.extend(
        [
            "null",
            "",
            "*",
            "https://app.example.evil.example",
            "https://evil.example/https://app.example",
            "https://app.example/",
            "https://app.example:443",
            "https://APP.EXAMPLE",
            "http://app.example",
            "http://localhost:3001",
            "https://app.example, https://evil.example",
            "https://",
            &long,
        ]
        .map(|origin| (one(origin), None, false)),
    );
    cases
}

async fn with_origins(client: &Client, method: Method, origins: &[Vec<u8>]) -> Answer {
    let mut request = client.request(method.clone(), TASKS);
    for origin in origins {
        request = request.header("origin", HeaderValue::from_bytes(origin).unwrap());
    }
    if method == Method::OPTIONS {
        request = request
            .header("access-control-request-method", "PATCH")
            .header("access-control-request-headers", "authorization,if-match");
    }
    Answer::to(request).await.unwrap()
}

#[tokio::test]
async fn only_pages_of_listed_origins_and_our_own_are_let_in() {
    let listed = format!("{ALLOWED}, http://localhost:3000");
    let mut world = World::builder().env("CORS_ORIGINS", listed).start().await;
    let client = world.client(user());
    for outage in [false, true] {
        if outage {
            world.postgres.kill().await;
        }
        for (origins, allowed, served) in origins(&world.api_url()) {
            let what = format!(
                "{:?}",
                origins.iter().map(|o| String::from_utf8_lossy(o)).collect::<Vec<_>>()
            );
            let answer = with_origins(&client, Method::GET, &origins).await;
            assert_eq!(answer.status, if served { 200 } else { 403 }, "{what}: {answer:#?}");
            assert_eq!(
                answer.header("access-control-allow-origin"),
                allowed.unwrap_or(""),
                "{what}"
            );
            let exposed = answer.header("access-control-expose-headers");
            assert_eq!(exposed.contains("X-Request-ID, ETag"), allowed.is_some(), "{what}");
            assert_eq!(answer.header("vary"), "Origin", "{what}");

            let preflight = with_origins(&client, Method::OPTIONS, &origins).await;
            let status = match (allowed, served) {
                (Some(_), _) => 204,
                (None, true) => 405,
                (None, false) => 403,
            };
            assert_eq!(preflight.status, status, "{what}: {preflight:#?}");
            assert_eq!(
                preflight.header("access-control-allow-origin"),
                allowed.unwrap_or(""),
                "{what}"
            );
            let methods = preflight.header("access-control-allow-methods");
            assert_eq!(methods.contains("PATCH"), allowed.is_some(), "{what}");
            let headers = preflight.header("access-control-allow-headers");
            assert_eq!(headers.contains("If-Match"), allowed.is_some(), "{what}");
            for answer in [answer, preflight] {
                are_protected(&answer, &what);
            }
        }
        let failure = client.request(Method::GET, "/api/v1/tasks/1").header("origin", ALLOWED);
        let failure = Answer::to(failure).await.unwrap().expect(400);
        assert_eq!(failure.header("access-control-allow-origin"), ALLOWED);
    }
}

#[tokio::test]
async fn without_listed_origins_pages_are_served_without_a_word_about_it() {
    let world = World::builder().without_postgres().without_redis().without_worker().start().await;
    let client = world.client(user());
    for (origins, _, _) in origins(&world.api_url()) {
        let answer = with_origins(&client, Method::GET, &origins).await.expect(200);
        let preflight = with_origins(&client, Method::OPTIONS, &origins).await.expect(405);
        for answer in [answer, preflight] {
            are_protected(&answer, "without origins");
            let told =
                answer.headers.keys().any(|name| name.as_str().starts_with("access-control"));
            assert!(!told, "{answer:#?}");
            assert_eq!(answer.header("vary"), "");
        }
    }
}
