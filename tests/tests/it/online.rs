//! With everything there: what is answered, what is stored, what is refused.

use reqwest::Method;
use serde_json::{Value, json};
use tests::World;
use uuid::Uuid;

use crate::story::{create, user};

#[tokio::test]
async fn a_create_is_committed_and_in_postgresql() {
    let world = World::start().await;
    let client = world.client(user());
    let request = Uuid::new_v4();
    let body = json!({ "title": "buy rope", "description": "30 m", "status": "in_progress" });
    let request_id = [("X-Request-ID", request.to_string())];
    let answer = send(&client, Method::POST, "/api/v1/tasks", &request_id, Some(&body)).await;
    let answer = answer.expect(201);
    assert_eq!(answer.text("/meta/sync/state"), "committed");
    assert_eq!(answer.text("/meta/request_id"), request.to_string());
    assert_eq!(answer.header("x-request-id"), request.to_string());
    let id = answer.text("/data/id");
    assert_eq!(answer.header("location"), format!("/api/v1/tasks/{id}"));
    let row = format!("SELECT title, description, status FROM tasks WHERE id = '{id}'");
    assert_eq!(world.postgres.psql(&row).await, "buy rope|30 m|in_progress");
    let read = client.get(answer.header("location")).await.expect(200);
    assert_eq!(read.at("/data"), answer.at("/data"));
    assert_eq!((read.text("/meta/source"), read.header("x-data-source")), ("database", "database"));
    assert_eq!(read.header("etag"), answer.header("etag"));
    let operation = answer.text("/meta/sync/operation_id");
    let state = client.get(&format!("/api/v1/operations/{operation}")).await.expect(200);
    assert_eq!((state.text("/data/state"), state.text("/data/action")), ("applied", "create"));
}

#[tokio::test]
async fn a_task_is_replaced_changed_and_deleted() {
    let world = World::start().await;
    let client = world.client(user());
    let id = create(&client, "first", 201).await;
    let path = format!("/api/v1/tasks/{id}");
    let whole = json!({ "title": "second", "description": "d", "status": "completed" });
    assert_eq!(client.put(&path, &whole).await.expect(200).text("/data/title"), "second");
    let part = client.patch(&path, &json!({ "description": null })).await.expect(200);
    assert_eq!((part.text("/data/title"), part.at("/data/description")), ("second", &Value::Null));
    assert_eq!(part.text("/data/status"), "completed");
    client.delete(&path).await.expect(204);
    for answer in [
        client.get(&path).await,
        client.put(&path, &whole).await,
        client.patch(&path, &json!({ "title": "late" })).await,
        client.delete(&path).await,
    ] {
        assert_eq!(answer.expect(404).text("/error/code"), "TASK_NOT_FOUND");
    }
    let ledger = format!(
        "SELECT action, outcome FROM operations WHERE entity_id = '{id}' ORDER BY applied_at"
    );
    assert_eq!(
        world.postgres.psql(&ledger).await,
        "create|applied\nreplace|applied\npatch|applied\ndelete|applied"
    );
}

#[tokio::test]
async fn a_change_may_insist_on_a_version() {
    let world = World::start().await;
    let client = world.client(user());
    let id = create(&client, "first", 201).await;
    let path = format!("/api/v1/tasks/{id}");
    let old = client.get(&path).await.expect(200).header("etag").to_owned();
    let change = json!({ "title": "second" });
    let with = |etag: &str| [("If-Match", etag.to_owned())];
    let changed = send(&client, Method::PATCH, &path, &with(&old), Some(&change)).await.expect(200);
    let new = changed.header("etag").to_owned();
    assert_ne!(new, old);
    for method in [Method::PATCH, Method::DELETE] {
        let body = (method == Method::PATCH).then_some(&change);
        let stale = send(&client, method, &path, &with(&old), body).await.expect(412);
        assert_eq!(stale.text("/error/code"), "PRECONDITION_FAILED");
    }
    send(&client, Method::PATCH, &path, &with("*"), Some(&change)).await.expect(200);
    send(&client, Method::PATCH, &path, &with(""), Some(&change)).await.expect(412);
    let bad =
        send(&client, Method::PATCH, &path, &with("W/\"x\""), Some(&change)).await.expect(400);
    assert_eq!(bad.text("/error/details/0/field"), "If-Match");
}

#[tokio::test]
async fn a_create_repeated_with_its_key_makes_one_task() {
    let world = World::start().await;
    let client = world.client(user());
    let key = [("Idempotency-Key", "order-17".to_owned())];
    let body = json!({ "title": "once" });
    let first = send(&client, Method::POST, "/api/v1/tasks", &key, Some(&body)).await.expect(201);
    let again = send(&client, Method::POST, "/api/v1/tasks", &key, Some(&body)).await.expect(200);
    assert_eq!(again.at("/data"), first.at("/data"));
    assert_eq!(again.header("idempotency-replayed"), "true");
    let other = world.client(user());
    send(&other, Method::POST, "/api/v1/tasks", &key, Some(&body)).await.expect(201);
    assert_eq!(world.postgres.psql("SELECT count(*) FROM tasks").await, "2");
    client.delete(&format!("/api/v1/tasks/{}", first.text("/data/id"))).await.expect(204);
    let gone = send(&client, Method::POST, "/api/v1/tasks", &key, Some(&body)).await.expect(409);
    assert_eq!(gone.text("/error/code"), "TASK_DELETED");
}

#[tokio::test]
async fn a_list_is_paged_newest_first_with_pending_tasks_in_their_places() {
    let world = World::start().await;
    let client = world.client(user());
    let mut ids = Vec::new();
    for number in 0..7 {
        ids.push(create(&client, &format!("task {number}"), 201).await);
    }
    ids.reverse();
    let page = async |number: u32| {
        let answer = client.get(&format!("/api/v1/tasks?page={number}&limit=3")).await.expect(200);
        assert_eq!(answer.at("/meta/total"), 7);
        assert_eq!(answer.at("/meta/total_pages"), 3);
        let data = answer.at("/data").as_array().unwrap().clone();
        data.iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let pages = [page(1).await, page(2).await, page(3).await].concat();
    assert_eq!(pages, ids);
    client.get("/api/v1/tasks?page=4&limit=3").await.expect(200);
    assert!(page(4).await.is_empty());
    for bad in ["page=0", "limit=0", "limit=101", "page=x", "page=-1"] {
        let answer = client.get(&format!("/api/v1/tasks?{bad}")).await.expect(400);
        assert_eq!(answer.text("/error/code"), "INVALID_PARAMETER", "{bad}");
        let field = bad.split('=').next().unwrap();
        assert_eq!(answer.text("/error/details/0/field"), field, "{bad}");
    }
}

#[tokio::test]
async fn a_profile_is_there_from_the_start_and_only_its_preferences_are_writable() {
    let world = World::start().await;
    let client = world.client(user());
    let fresh = client.get("/api/v1/profile").await.expect(200);
    assert_eq!((fresh.text("/data/role"), fresh.text("/data/status")), ("user", "active"));
    let wish = json!({ "preferences": { "theme": "dark", "nested": { "a": [1, null] } } });
    let written = client.put("/api/v1/profile", &wish).await.expect(200);
    assert_eq!(written.at("/data/preferences"), &wish["preferences"]);
    assert_eq!(client.get("/api/v1/profile").await.at("/data"), written.at("/data"));
    for field in ["role", "status", "user_id", "preferences_version"] {
        let body = json!({ "preferences": {}, field: "admin" });
        let answer = client.patch("/api/v1/profile", &body).await.expect(400);
        assert_eq!(answer.text("/error/details/0/field"), field);
    }
}

#[tokio::test]
async fn the_interface_describes_itself() {
    let world = World::start().await;
    let client = world.anonymous();
    for (path, content_type) in [
        ("/docs", "text/html"),
        ("/openapi.json", "application/json"),
        ("/openapi.yaml", "application/yaml"),
        ("/metrics", "text/plain"),
        ("/live", "application/json"),
        ("/ready", "application/json"),
    ] {
        let answer = client.get(path).await.expect(200);
        assert!(answer.header("content-type").starts_with(content_type), "{path}: {answer:#?}");
    }
}

/// A request with headers.
pub async fn send(
    client: &tests::Client,
    method: Method,
    path: &str,
    headers: &[(&str, String)],
    body: Option<&Value>,
) -> tests::Answer {
    let mut request = client.request(method, path);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    tests::Answer::to(request).await.unwrap()
}
