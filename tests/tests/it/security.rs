//! Whoever asks: nothing of somebody else's is found by any way in, online, in an outage, and after it.
//! What one may do with another's task by its id is in `ownership`.

use reqwest::Method;
use serde_json::json;
use tests::{Answer, Client, World};
use uuid::Uuid;

use crate::story::{create, drained, user};

async fn with_key(client: &Client, key: &str, title: &str) -> Answer {
    let request = client.request(Method::POST, "/api/v1/tasks").header("Idempotency-Key", key);
    Answer::to(request.json(&json!({ "title": title }))).await.unwrap()
}

/// The titles of a user's tasks, in order.
async fn titles(client: &Client) -> Vec<String> {
    let list = client.get("/api/v1/tasks?limit=100").await.expect(200);
    let mut titles: Vec<String> = list
        .at("/data")
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["title"].as_str().unwrap().to_owned())
        .collect();
    titles.sort();
    titles
}

#[tokio::test]
async fn one_key_of_two_users_makes_two_tasks_and_each_sees_their_own() {
    let mut world = World::start().await;
    let (one, two) = (world.client(user()), world.client(user()));
    let mut known = Vec::new();
    for (outage, status, key) in [(false, 201, "online"), (true, 202, "outage")] {
        if outage {
            world.postgres.kill().await;
        }
        let mine = with_key(&one, key, &format!("one's {key}")).await.expect(status);
        let theirs = with_key(&two, key, &format!("two's {key}")).await.expect(status);
        assert_ne!(mine.text("/data/id"), theirs.text("/data/id"));
        assert_eq!(theirs.header("idempotency-replayed"), "");
        assert_eq!(theirs.text("/data/title"), format!("two's {key}"));
        known.push((mine, theirs));
        let not_mine = |titles: Vec<String>| titles.iter().all(|title| title.starts_with("one's"));
        assert!(not_mine(titles(&one).await));
    }
    world.postgres.start_again().await;
    drained(&world).await;
    assert_eq!(titles(&one).await, ["one's online", "one's outage"]);
    assert_eq!(titles(&two).await, ["two's online", "two's outage"]);
    for (mine, theirs) in &known {
        for (answer, owner, other) in [(mine, &one, &two), (theirs, &two, &one)] {
            let operation = answer.text("/meta/sync/operation_id");
            let path = format!("/api/v1/operations/{operation}");
            owner.get(&path).await.expect(200);
            let hidden = other.get(&path).await.expect(404);
            assert_eq!(hidden.text("/error/code"), "OPERATION_NOT_FOUND");
        }
    }
}

#[tokio::test]
async fn a_dead_letter_is_its_owners_and_the_operators_alone() {
    let mut world = World::builder().env("MISSING_RETRY_SECONDS", "0").start().await;
    let (owner, other) = (world.client(user()), world.client(user()));
    world.postgres.kill().await;
    let path = format!("/api/v1/tasks/{}", Uuid::now_v7());
    let answer = owner.patch(&path, &json!({ "title": "mine" })).await.expect(202);
    let id = answer.text("/meta/sync/operation_id").to_owned();
    let operation = format!("/api/v1/operations/{id}");
    other.get(&operation).await.expect(404);
    world.postgres.start_again().await;
    drained(&world).await;
    for (client, status) in
        [(&owner, 200), (&other, 404), (&world.client_as(user(), "operator"), 200)]
    {
        client.get(&operation).await.expect(status);
    }
    for client in [&owner, &other] {
        let letter = format!("/api/v1/buffer/dead/{id}");
        client.get("/api/v1/buffer/dead?payload=true").await.expect(403);
        client.post(&format!("{letter}/retry"), &json!({})).await.expect(403);
        client.delete(&letter).await.expect(403);
    }
    assert_eq!(owner.get(&operation).await.expect(200).text("/data/state"), "rejected");
}

/// Headers by which a gateway might tell who asks, if one believed them.
fn claims_to_be(owner: Uuid) -> Vec<(&'static str, String)> {
    let mut headers: Vec<(&str, String)> = ["X-Role", "X-User-Role", "X-Forwarded-Role", "Role"]
        .map(|name| (name, "admin".to_owned()))
        .to_vec();
    let ids = ["X-User-ID", "X-Forwarded-User", "X-Auth-User", "X-Remote-User", "X-Sub"];
    headers.extend(ids.map(|name| (name, owner.to_string())));
    headers.push(("X-HTTP-Method-Override", "DELETE".to_owned()));
    headers.push(("X-Original-URL", "/api/v1/users".to_owned()));
    headers.push(("Cookie", format!("user_id={owner}; role=admin")));
    headers
}

#[tokio::test]
async fn what_headers_and_parameters_say_of_who_asks_is_ignored() {
    let mut world = World::start().await;
    let owner_id = user();
    let (owner, other) = (world.client(owner_id), world.client(user()));
    let id = create(&owner, "mine", 201).await;
    let task = format!("/api/v1/tasks/{id}");
    let preferences = json!({ "preferences": { "of": "the owner" } });
    owner.put("/api/v1/profile", &preferences).await.expect(200);
    for outage in [false, true] {
        if outage {
            world.postgres.kill().await;
            owner.patch(&task, &json!({ "title": "mine" })).await.expect(202);
        }
        for (client, refusal) in [(&other, 403), (&world.anonymous(), 401)] {
            let ask = |method: Method, path: &str| {
                let request = client.request(method, path);
                claims_to_be(owner_id)
                    .into_iter()
                    .fold(request, |request, (name, value)| request.header(name, value))
            };
            for (method, path) in [
                (Method::GET, "/api/v1/users"),
                (Method::DELETE, &format!("/api/v1/users/{owner_id}")),
                (Method::GET, "/api/v1/buffer"),
                (Method::GET, "/api/v1/buffer/operations?payload=true"),
            ] {
                let answer = Answer::to(ask(method.clone(), path)).await.unwrap();
                assert_eq!(answer.status, refusal, "{method} {path}: {answer:#?}");
            }
            let list = format!("/api/v1/tasks?user_id={owner_id}");
            let listed = Answer::to(ask(Method::GET, &list)).await.unwrap();
            let profile = Answer::to(ask(Method::GET, "/api/v1/profile")).await.unwrap();
            let read = Answer::to(ask(Method::GET, &task)).await.unwrap();
            for answer in [&listed, &profile, &read] {
                let text = answer.body.to_string();
                assert!(!text.contains("mine") && !text.contains("the owner"), "{answer:#?}");
            }
            // With the database away nobody can tell that there is such a task.
            let hidden = if outage { 503 } else { 404 };
            assert_eq!(read.status, if refusal == 403 { hidden } else { refusal });
        }
        assert_eq!(titles(&owner).await, ["mine"]);
    }
    let made =
        other.request(Method::POST, "/api/v1/tasks").header("X-User-ID", owner_id.to_string());
    Answer::to(made.json(&json!({ "title": "not the owner's" }))).await.unwrap().expect(202);
    world.postgres.start_again().await;
    drained(&world).await;
    assert_eq!(titles(&owner).await, ["mine"]);
    assert_eq!(titles(&other).await, ["not the owner's"]);
}

/// Ways to write the path of a guarded route that a router might take for another one, or a guard for
/// none at all.
fn spellings(path: &str) -> Vec<String> {
    let (front, last) = path.rsplit_once('/').unwrap();
    vec![
        path.to_owned(),
        format!("{path}/"),
        format!("{path}//"),
        format!("/{path}"),
        format!("{front}//{last}"),
        format!("{front}/./{last}"),
        format!("{front}/x/../{last}"),
        format!("{front}/%2e/{last}"),
        format!("{path}%2f"),
        format!("{path};x=y"),
        format!("{path}?method=GET"),
        path.to_uppercase(),
        path.replacen("/v1/", "/v1/%75/..%2f", 1),
    ]
}

#[tokio::test]
async fn no_way_of_writing_a_route_leads_past_its_guard() {
    let mut world = World::start().await;
    let known = user();
    let admin = world.client_as(user(), "admin");
    create(&world.client(known), "there", 201).await;
    let routes = [
        ("/api/v1/users".to_owned(), vec![Method::GET, Method::HEAD]),
        (format!("/api/v1/users/{known}"), vec![Method::GET, Method::PATCH, Method::DELETE]),
        ("/api/v1/buffer".to_owned(), vec![Method::GET, Method::HEAD]),
        ("/api/v1/buffer/pause".to_owned(), vec![Method::POST, Method::PUT]),
        ("/api/v1/buffer/dead".to_owned(), vec![Method::GET, Method::OPTIONS]),
    ];
    for outage in [false, true] {
        if outage {
            world.postgres.kill().await;
        }
        for client in [world.client(user()), world.anonymous(), world.client_with("x.y.z")] {
            for (path, methods) in &routes {
                for (spelling, method) in spellings(path)
                    .into_iter()
                    .flat_map(|s| methods.iter().map(move |m| (s.clone(), m)))
                {
                    let request = client
                        .request(method.clone(), &spelling)
                        .header("X-HTTP-Method-Override", "GET")
                        .header("X-Original-URL", "/live")
                        .header("X-Role", "admin")
                        .json(&json!({ "status": "active" }));
                    let status = request.send().await.unwrap().status().as_u16();
                    assert!(
                        [400, 401, 403, 404, 405].contains(&status),
                        "{method} {spelling}: {status}"
                    );
                }
            }
        }
        let buffer = admin.get("/api/v1/buffer").await.expect(200);
        assert!(buffer.at("/data/paused_since").is_null());
    }
}
