//! Roles and standings: what each role may do, what admins set, and that it counts at once and at
//! replay.

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Client, World, wait_until};
use uuid::Uuid;

use crate::sessions::{ask, assertion, login, renew};
use crate::story::{DRAIN, create, drained, user};

fn path(id: impl std::fmt::Display) -> String {
    format!("/api/v1/users/{id}")
}

async fn operation(client: &Client, written: &Answer) -> Answer {
    let id = written.text("/meta/sync/operation_id");
    client.get(&format!("/api/v1/operations/{id}")).await.expect(200)
}

async fn fate(client: &Client, written: &Answer) -> (String, Value) {
    let answer = operation(client, written).await;
    (answer.text("/data/state").to_owned(), answer.at("/data/reason").clone())
}

/// A user is turned away, whatever is asked for.
async fn is_suspended(client: &Client) {
    for (method, path) in [
        (Method::GET, "/api/v1/tasks"),
        (Method::POST, "/api/v1/tasks"),
        (Method::GET, "/api/v1/profile"),
        (Method::PATCH, "/api/v1/profile"),
        (Method::GET, "/api/v1/auth/sessions"),
    ] {
        let body = json!({ "title": "a" });
        let answer = client.send(method.clone(), path, Some(&body)).await.unwrap();
        assert_eq!(answer.status, 403, "{method} {path}: {answer:#?}");
        assert_eq!(answer.text("/error/code"), "USER_SUSPENDED", "{method} {path}");
    }
}

#[tokio::test]
async fn each_role_may_do_what_is_written_and_no_more_online_and_in_an_outage() {
    let mut world = World::start().await;
    let (some, nowhere) = (path(user()), Uuid::now_v7());
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    let dead = format!("/api/v1/buffer/dead/{nowhere}");
    let retry = format!("{dead}/retry");
    let table: Vec<(&Method, &str, u8)> = vec![
        (&get, "/api/v1/tasks", 0),
        (&post, "/api/v1/tasks", 0),
        (&get, "/api/v1/profile", 0),
        (&patch, "/api/v1/profile", 0),
        (&get, "/api/v1/auth/sessions", 0),
        (&get, "/api/v1/buffer", 1),
        (&get, "/api/v1/buffer/operations", 1),
        (&get, "/api/v1/buffer/dead", 1),
        (&post, "/api/v1/buffer/pause", 1),
        (&post, "/api/v1/buffer/resume", 1),
        (&post, &retry, 1),
        (&delete, &dead, 1),
        (&get, "/api/v1/users", 2),
        (&get, &some, 2),
        (&patch, &some, 2),
        (&delete, &some, 2),
    ];
    let clients = ["user", "operator", "admin"].map(|role| world.client_as(user(), role));
    for outage in [false, true] {
        if outage {
            world.postgres.kill().await;
        }
        for (rank, client) in (0_u8..).zip(&clients) {
            for (method, path, needed) in &table {
                let body = json!({});
                let answer = client.send((*method).clone(), path, Some(&body)).await.unwrap();
                let what = format!("{method} {path} as {rank}, outage {outage}: {answer:#?}");
                if rank < *needed {
                    assert_eq!(answer.status, 403, "{what}");
                    assert_eq!(answer.text("/error/code"), "FORBIDDEN", "{what}");
                } else {
                    assert!(![401, 403, 500].contains(&answer.status), "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_admin_looks_and_sets_and_that_counts_over_the_token() {
    let world = World::start().await;
    let boss = user();
    let admin = world.client_as(boss, "admin");
    let ids: Vec<Uuid> = (0..5).map(|_| user()).collect();
    for id in &ids {
        create(&world.client(*id), "seen", 201).await;
    }
    let other = world.client_as(ids[0], "admin");
    other.get("/api/v1/users").await.expect(200);
    let set = json!({ "role": "user", "status": "inactive" });
    let changed = admin.patch(&path(ids[0]), &set).await.expect(200);
    assert_eq!((changed.text("/data/role"), changed.text("/data/status")), ("user", "inactive"));
    other.get("/api/v1/users").await.expect(403);
    other.get("/api/v1/tasks").await.expect(200);
    let promoted = world.client(ids[1]);
    promoted.get("/api/v1/buffer").await.expect(403);
    admin.patch(&path(ids[1]), &json!({ "role": "operator" })).await.expect(200);
    promoted.get("/api/v1/buffer").await.expect(200);

    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let part = admin.get(&format!("/api/v1/users?limit=2{cursor}")).await.expect(200);
        let data = part.at("/data").as_array().unwrap();
        assert!(data.len() <= 2);
        seen.extend(data.iter().map(|user| user["id"].as_str().unwrap().to_owned()));
        match part.at("/meta/next_cursor").as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let mut all: Vec<String> = ids.iter().chain([&boss]).map(Uuid::to_string).collect();
    all.sort();
    // The admin, who has written nothing of their own, is seen with what they set.
    assert_eq!(seen.iter().filter(|id| **id != boss.to_string()).count(), 5);
    assert!(seen.iter().all(|id| all.contains(id)) && seen.is_sorted(), "{seen:?}");
    for (filter, found) in [
        ("role=operator", vec![ids[1]]),
        ("status=inactive", vec![ids[0]]),
        ("role=operator&status=inactive", vec![]),
    ] {
        let list = admin.get(&format!("/api/v1/users?{filter}")).await.expect(200);
        let list: Vec<&Value> =
            list.at("/data").as_array().unwrap().iter().map(|user| &user["id"]).collect();
        assert_eq!(json!(list), json!(found), "{filter}");
    }
    for bad in ["role=root", "status=gone", "limit=0", "limit=501", "cursor=x"] {
        admin.get(&format!("/api/v1/users?{bad}")).await.expect(400);
    }
    let read = admin.get(&path(ids[1])).await.expect(200);
    assert_eq!((read.text("/data/role"), read.text("/data/status")), ("operator", "active"));
    admin.get(&path(user())).await.expect(404);

    let ledger = format!(
        "SELECT user_id, entity, action, outcome FROM operations WHERE entity_id = '{}'",
        ids[1]
    );
    assert_eq!(world.postgres.psql(&ledger).await, format!("{boss}|profile|patch|applied"));
    for (body, field) in [
        (json!({}), "body"),
        (json!([]), "body"),
        (json!({ "role": "root" }), "role"),
        (json!({ "role": 7 }), "role"),
        (json!({ "status": "gone" }), "status"),
        (json!({ "role": "user", "preferences": {} }), "preferences"),
        (json!({ "role": "user", "role_version": Uuid::max() }), "role_version"),
    ] {
        let refused = admin.patch(&path(ids[2]), &body).await.expect(400);
        assert_eq!(refused.text("/error/details/0/field"), field, "{body}");
    }
}

#[tokio::test]
async fn a_suspended_user_is_turned_away_until_reinstated() {
    let world = World::start().await;
    let (id, admin) = (user(), world.client_as(user(), "admin"));
    let word = assertion(&world, id);
    let (client, session) = (world.client(id), login(&world, id).await);
    create(&client, "before", 201).await;
    admin.patch(&path(id), &json!({ "status": "suspended" })).await.expect(200);
    is_suspended(&client).await;
    is_suspended(&session.client).await;
    is_suspended(&world.client_with(&word)).await;
    for refused in [ask(&world, &word).await, renew(&world, &session.refresh).await] {
        assert_eq!(refused.expect(403).text("/error/code"), "USER_SUSPENDED");
    }
    admin.patch(&path(id), &json!({ "status": "active" })).await.expect(200);
    create(&client, "after", 201).await;
    ask(&world, &word).await.expect(200);
}

#[tokio::test]
async fn what_admins_set_in_an_outage_counts_here_at_once_and_for_all_after_it() {
    let mut world = World::start().await;
    let (suspended, demoted) = (user(), user());
    let (admin, other) = (world.client_as(user(), "admin"), world.client_as(user(), "admin"));
    let (client, former) = (world.client(suspended), world.client_as(demoted, "admin"));
    create(&client, "before", 201).await;
    former.get("/api/v1/users").await.expect(200);
    world.postgres.kill().await;
    let written = client.post("/api/v1/tasks", &json!({ "title": "buffered" })).await.expect(202);
    let set = json!({ "role": "operator", "status": "suspended" });
    let first = admin.patch(&path(suspended), &set).await.expect(202);
    assert_eq!(operation(&admin, &first).await.at("/data/priority"), 5);
    let by = former.patch(&path(user()), &json!({ "role": "operator" })).await.expect(202);
    let demotion = other.patch(&path(demoted), &json!({ "role": "user" })).await.expect(202);
    is_suspended(&client).await;
    former.get("/api/v1/users").await.expect(403);
    let newer = other.patch(&path(suspended), &json!({ "role": "user" })).await.expect(202);
    let seen = admin.get(&path(suspended)).await.expect(200);
    assert_eq!((seen.text("/data/role"), seen.text("/data/status")), ("user", "suspended"));
    world.worker.kill();
    world.api.restart().await;
    is_suspended(&client).await;
    world.worker.restart().await;

    world.postgres.start_again().await;
    drained(&world).await;
    is_suspended(&client).await;
    let rejected = ("rejected".to_owned(), json!("suspended"));
    assert_eq!(fate(&admin, &written).await, rejected);
    for applied in [&first, &demotion, &newer] {
        assert_eq!(fate(&admin, applied).await.0, "applied");
    }
    // Accepted before the demotion: either may be replayed first.
    assert!(["applied", "rejected"].contains(&fate(&admin, &by).await.0.as_str()));
    let row = format!("SELECT role, status FROM users WHERE id = '{suspended}'");
    assert_eq!(world.postgres.psql(&row).await, "user|suspended");
    assert_eq!(world.postgres.psql("SELECT count(*) FROM tasks").await, "1");
    admin.patch(&path(suspended), &json!({ "status": "active" })).await.expect(200);
    create(&client, "after", 201).await;
}

#[tokio::test]
async fn what_admins_set_in_an_outage_is_checked_again_and_yields_to_newer_settings() {
    let mut world = World::start().await;
    let (late, target, contested) = (user(), user(), user());
    let (demoted, admin) = (world.client_as(late, "admin"), world.client_as(user(), "admin"));
    let trusted = world.client_as(user(), "admin");
    create(&world.client(contested), "seen", 201).await;
    world.worker.kill();
    world.postgres.kill().await;
    let refused = demoted.patch(&path(target), &json!({ "role": "admin" })).await.expect(202);
    let set = json!({ "role": "operator", "status": "inactive" });
    let older = trusted.patch(&path(contested), &set).await.expect(202);
    world.postgres.start_again().await;
    wait_until(DRAIN, "the api writes online", async || {
        world.anonymous().get("/health").await.at("/data/postgres") == "up"
    })
    .await;
    admin.patch(&path(late), &json!({ "role": "user" })).await.expect(200);
    // As another node would have written it, later.
    let version = Uuid::now_v7();
    let newer = format!(
        "UPDATE users SET role = 'user', role_version = '{version}' WHERE id = '{contested}'"
    );
    world.postgres.psql(&newer).await;
    world.worker.restart().await;
    drained(&world).await;
    assert_eq!(fate(&admin, &refused).await, ("rejected".to_owned(), json!("forbidden")));
    assert_eq!(fate(&admin, &older).await.0, "merged");
    let row = format!("SELECT role, status FROM users WHERE id = '{contested}'");
    assert_eq!(world.postgres.psql(&row).await, "user|inactive");
    let row = format!("SELECT count(*) FROM users WHERE id = '{target}' AND role = 'admin'");
    assert_eq!(world.postgres.psql(&row).await, "0");
}

#[tokio::test]
async fn an_erased_user_is_gone_online_and_after_an_outage() {
    let mut world = World::start().await;
    let boss = user();
    let admin = world.client_as(boss, "admin");
    let own = admin.delete(&path(boss)).await.expect(409);
    assert_eq!(own.text("/error/code"), "OWN_ACCOUNT");
    for outage in [false, true] {
        let id = user();
        let client = world.client(id);
        for title in ["one", "two"] {
            create(&client, title, 201).await;
        }
        let preferences = json!({ "preferences": { "color": "red" } });
        client.put("/api/v1/profile", &preferences).await.expect(200);
        let session = login(&world, id).await;
        if outage {
            world.postgres.kill().await;
        }
        for _ in 0..2 {
            admin.delete(&path(id)).await.expect(if outage { 202 } else { 204 });
            is_suspended(&client).await;
            let read = admin.get(&path(id)).await.expect(404);
            assert_eq!(read.text("/error/code"), "USER_NOT_FOUND");
        }
        let renewed = renew(&world, &session.refresh).await;
        assert!([401, 403].contains(&renewed.status), "{renewed:#?}");
        if outage {
            world.postgres.start_again().await;
            drained(&world).await;
            is_suspended(&client).await;
            admin.get(&path(id)).await.expect(404);
        }
        admin.patch(&path(id), &json!({ "status": "active" })).await.expect(404);
        let left = format!("SELECT count(*) FROM tasks WHERE user_id = '{id}'");
        assert_eq!(world.postgres.psql(&left).await, "0");
        let row = format!(
            "SELECT preferences, status, erased_at IS NOT NULL FROM users WHERE id = '{id}'"
        );
        assert_eq!(world.postgres.psql(&row).await, "{}|suspended|t");
        let list = admin.get("/api/v1/users?limit=500").await.expect(200);
        assert!(!list.body.to_string().contains(&id.to_string()));
    }
}

#[tokio::test]
async fn nobody_sets_what_is_not_theirs_through_a_task_or_a_profile() {
    let mut world = World::start().await;
    let client = world.client(user());
    let task = format!("/api/v1/tasks/{}", create(&client, "mine", 201).await);
    let whole = json!({ "title": "a", "description": null, "status": "pending" });
    let shapes = [
        (Method::POST, "/api/v1/tasks", json!({ "title": "a" })),
        (Method::PUT, task.as_str(), whole),
        (Method::PATCH, task.as_str(), json!({ "title": "a" })),
        (Method::PUT, "/api/v1/profile", json!({ "preferences": {} })),
        (Method::PATCH, "/api/v1/profile", json!({ "preferences": {} })),
    ];
    for outage in [false, true] {
        if outage {
            world.postgres.kill().await;
        }
        for (method, path, good) in &shapes {
            for (field, value) in [
                ("role", json!("admin")),
                ("status", json!("active")),
                ("user_id", json!(user())),
                ("id", json!(user())),
                ("version", json!(Uuid::max())),
                ("title_version", json!(Uuid::max())),
                ("role_version", json!(Uuid::max())),
                ("created_at", json!("2000-01-01T00:00:00Z")),
                ("updated_at", json!("2000-01-01T00:00:00Z")),
                ("deleted_at", json!(null)),
                ("erased_at", json!(null)),
            ] {
                let mut body = good.clone();
                body[field] = value;
                let answer = client.send(method.clone(), path, Some(&body)).await.unwrap();
                let what = format!("{method} {path} {field}: {answer:#?}");
                assert_eq!(answer.status, 400, "{what}");
                assert_eq!(answer.text("/error/details/0/field"), field, "{what}");
            }
        }
    }
    assert_eq!(world.anonymous().get("/health").await.at("/data/buffer/pending"), 0);
}
