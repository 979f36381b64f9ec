//! What one client can take from the others: bodies and requests. Neither may be without a limit,
//! and whoever keeps within them goes on being served.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tests::{Answer, Client, World};

use crate::connections::{api_alone, metric};
use crate::headers::are_protected;
use crate::story::{create, user};

/// The default of `BODY_LIMIT_BYTES`.
const BODY_LIMIT: usize = 64 << 10;

fn post(client: &Client) -> reqwest::RequestBuilder {
    client.request(Method::POST, "/api/v1/tasks").header("content-type", "application/json")
}

fn padded(length: usize) -> Vec<u8> {
    let mut body = json!({ "title": "padded" }).to_string().into_bytes();
    body.resize(length, b' ');
    body
}

fn chunked(body: Vec<u8>) -> reqwest::Body {
    let chunks: Vec<_> = body.chunks(1000).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect();
    reqwest::Body::wrap_stream(futures::stream::iter(chunks))
}

#[tokio::test]
async fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
    let mut world = World::start().await;
    let client = world.client(user());
    for accepted in [201, 202] {
        if accepted == 202 {
            world.postgres.kill().await;
        }
        for (length, status) in [(BODY_LIMIT, accepted), (BODY_LIMIT + 1, 413)] {
            let body = padded(length);
            Answer::to(post(&client).body(body.clone())).await.unwrap().expect(status);
            Answer::to(post(&client).body(chunked(body))).await.unwrap().expect(status);
        }
        for coding in ["gzip", "br", "deflate", "identity"] {
            let request = post(&client).header("content-encoding", coding).body(padded(100));
            let answer = Answer::to(request).await.unwrap().expect(415);
            assert_eq!(answer.text("/error/code"), "UNSUPPORTED_MEDIA_TYPE", "{coding}");
        }
    }
}

/// The statuses of many requests at once, and the last that was limited.
async fn many(client: &Client, path: &str, header: Option<&str>) -> (Vec<u16>, Option<Answer>) {
    let requests = (0..40).map(async |n| {
        let request = client.request(Method::GET, path);
        let request = match header {
            Some(name) => request.header(name, format!("192.0.2.{n}")),
            None => request,
        };
        Answer::to(request).await.unwrap()
    });
    let answers = futures::future::join_all(requests).await;
    let statuses = answers.iter().map(|answer| answer.status).collect();
    (statuses, answers.into_iter().rfind(|answer| answer.status == 429))
}

/// Insists on a proper refusal, and that its `Retry-After` is true.
async fn is_limited_as_it_says(
    client: &Client,
    path: &str,
    (statuses, limited): (Vec<u16>, Option<Answer>),
) {
    let limited = limited.unwrap_or_else(|| panic!("{path}: nothing limited: {statuses:?}"));
    let served = statuses.iter().filter(|status| **status != 429).count();
    assert!((4..20).contains(&served), "{path}: {statuses:?}");
    assert_eq!(limited.text("/error/code"), "RATE_LIMITED", "{path}");
    are_protected(&limited, path);
    let seconds: u64 = limited.header("retry-after").parse().unwrap();
    assert!((1..=2).contains(&seconds), "{path}: {seconds}");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    assert_ne!(client.get(path).await.status, 429, "{path}: after Retry-After");
}

#[tokio::test]
async fn a_user_who_asks_too_often_is_turned_away_and_others_are_not() {
    let mut world = World::builder().env("RATE_LIMIT_RPS", "2").start().await;
    for status in [201, 202] {
        if status == 202 {
            world.postgres.kill().await;
        }
        let (client, other) = (world.client(user()), world.client(user()));
        let answers = many(&client, "/api/v1/tasks", None).await;
        create(&other, "unaffected", status).await;
        is_limited_as_it_says(&client, "/api/v1/tasks", answers).await;
    }
    assert!(metric(&world, "http_rate_limited_total{limit=\"user\"}").await >= 40.0);
}

#[tokio::test]
async fn an_address_is_limited_before_its_tokens_are_looked_at_and_probes_are_not() {
    let world = api_alone(&[("RATE_LIMIT_RPS", "1000"), ("RATE_LIMIT_ADDRESS_RPS", "2")]).await;
    let (client, path) = (world.client_with("x"), "/api/v1/tasks");
    let elsewhere =
        reqwest::Client::builder().local_address("127.0.0.2".parse::<std::net::IpAddr>().ok());
    let elsewhere = Client::new(elsewhere.build().unwrap(), world.api_url(), None);
    let answers = many(&client, path, Some("X-Forwarded-For")).await;
    elsewhere.get(path).await.expect(401);
    for probe in ["/live", "/ready", "/health", "/metrics"] {
        let (statuses, limited) = many(&client, probe, None).await;
        assert!(limited.is_none(), "{probe}: {statuses:?}");
    }
    is_limited_as_it_says(&client, path, answers).await;
    let (statuses, limited) = many(&client, "/nothing", Some("Forwarded")).await;
    assert!(limited.is_some(), "an unknown route: {statuses:?}");
    assert!(metric(&world, "http_rate_limited_total{limit=\"address\"}").await >= 40.0);
}

#[tokio::test]
async fn logins_and_refreshes_are_limited_more_strictly_and_together() {
    let settings = [("RATE_LIMIT_RPS", "1000"), ("LOGIN_RATE_LIMIT_PER_MINUTE", "4")];
    let world = api_alone(&settings).await;
    let client = world.anonymous();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        for (path, body) in [
            ("/api/v1/auth/login", json!({ "assertion": "x" })),
            ("/api/v1/auth/refresh", json!({ "refresh_token": "x" })),
        ] {
            let answer = client.post(path, &body).await;
            if answer.status == 429 {
                assert_eq!(answer.text("/error/code"), "RATE_LIMITED");
                let seconds: u64 = answer.header("retry-after").parse().unwrap();
                assert!((1..=60).contains(&seconds), "{seconds}");
            }
            statuses.push(answer.status);
        }
    }
    assert_eq!(statuses, [401, 401, 401, 401, 429, 429, 429, 429]);
    world.client(user()).get("/api/v1/tasks").await.expect(200);
}
