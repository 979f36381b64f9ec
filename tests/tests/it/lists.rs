//! Lists of tasks: by page and by cursor, filtered, in both orders; online, with pending operations
//! laid over, and in an outage.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tests::{Client, World};

use crate::story::{create, drained, user};

/// All ids that a list yields, page after page by its cursor.
async fn by_cursor(client: &Client, query: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(&format!("/api/v1/tasks?limit=7{query}{cursor}")).await.expect(200);
        let tasks = page.at("/data").as_array().unwrap();
        ids.extend(tasks.iter().map(|task| task["id"].as_str().unwrap().to_owned()));
        assert!(tasks.len() <= 7 && ids.len() < 1000);
        match page.at("/meta/next_cursor").as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

/// The same by the number of the page.
async fn by_page(client: &Client, query: &str) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 1.. {
        let path = format!("/api/v1/tasks?limit=7&page={number}{query}");
        let page = client.get(&path).await.expect(200);
        let tasks = page.at("/data").as_array().unwrap();
        ids.extend(tasks.iter().map(|task| task["id"].as_str().unwrap().to_owned()));
        assert_eq!(
            page.at("/meta/next_cursor").is_null(),
            tasks.len() < 7 || {
                let path = format!("/api/v1/tasks?limit=7&page={}{query}", number + 1);
                client.get(&path).await.at("/data") == &json!([])
            }
        );
        if page.at("/meta/next_cursor").is_null() {
            break;
        }
    }
    ids
}

/// Both ways yield the same `count` tasks, each once, also backwards; the total says so.
async fn agree(client: &Client, query: &str, count: usize) -> Vec<String> {
    let down = by_cursor(client, query).await;
    assert_eq!(down, by_page(client, query).await, "{query}");
    let mut up = by_cursor(client, &format!("{query}&order=asc")).await;
    up.reverse();
    assert_eq!(down, up, "{query}");
    let distinct: HashSet<&String> = down.iter().collect();
    assert_eq!((down.len(), distinct.len()), (count, count), "{query}");
    let first = client.get(&format!("/api/v1/tasks?limit=7{query}")).await.expect(200);
    assert_eq!(first.at("/meta/total"), count, "{query}");
    down
}

#[tokio::test]
async fn a_list_yields_each_task_once_online_with_pending_changes_and_after_replay() {
    let mut world = World::start().await;
    let client = world.client(user());
    let mut ids = Vec::new();
    for number in 0..23 {
        ids.push(create(&client, &format!("Task {number}"), 201).await);
    }
    let listed = agree(&client, "", 23).await;
    ids.reverse();
    assert_eq!(listed, ids, "the newest first");

    world.worker.kill();
    world.postgres.kill().await;
    for number in 0..9 {
        ids.insert(0, create(&client, &format!("In the outage {number}"), 202).await);
    }
    agree(&client, "", 9).await;
    agree(&client, "&q=the%20OUTAGE%208", 1).await;
    for id in [ids.remove(3), ids.remove(20)] {
        client.delete(&format!("/api/v1/tasks/{id}")).await.expect(202);
    }
    let done = [ids[0].clone(), ids[25].clone()];
    for id in &done {
        let change = json!({ "status": "completed" });
        client.patch(&format!("/api/v1/tasks/{id}"), &change).await.expect(202);
    }

    world.postgres.start_again().await;
    tests::wait_until(crate::story::DRAIN, "the link is up", async || {
        client.get("/api/v1/tasks").await.at("/meta/stale") == false
    })
    .await;
    assert_eq!(agree(&client, "", 30).await, ids, "laid over what is stored");
    agree(&client, "&status=completed", 2).await;
    agree(&client, "&status=pending&q=task", 21).await;
    world.worker.start().await.unwrap();
    drained(&world).await;
    tests::wait_until(crate::story::DRAIN, "the total is counted anew", async || {
        client.get("/api/v1/tasks").await.at("/meta/total") == 30
    })
    .await;
    assert_eq!(agree(&client, "", 30).await, ids, "as replayed");
    agree(&client, "&status=completed", 2).await;
    agree(&client, "&q=%25", 0).await;
}

#[tokio::test]
async fn a_parameter_that_cannot_be_used_is_named() {
    let world = World::start().await;
    let client = world.client(user());
    for (query, name) in [
        ("page=0", "page"),
        ("limit=101", "limit"),
        ("order=up", "order"),
        ("status=done", "status"),
        ("q=", "q"),
        ("q=%00", "q"),
        ("cursor=x", "cursor"),
        ("cursor=9223372036854775807_00000000-0000-0000-0000-000000000000", "cursor"),
    ] {
        let refused = client.get(&format!("/api/v1/tasks?{query}")).await.expect(400);
        assert_eq!(refused.text("/error/details/0/field"), name, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_total_counts_an_answered_delete_and_create_while_others_list_all_the_time() {
    const STORED: usize = 20_000;
    let world = World::start().await;
    let user = user();
    let client = world.client(user);
    let first = create(&client, "first", 201).await;
    // Counting them takes long enough for writes to come in the middle of it.
    let many = format!(
        "INSERT INTO tasks (id, user_id, title, status, title_version, description_version, \
         status_version, created_at, updated_at) SELECT gen_random_uuid(), user_id, title, status, \
         title_version, description_version, status_version, created_at, updated_at \
         FROM tasks, generate_series(2, {STORED}) WHERE id = '{first}'"
    );
    world.postgres.psql(&many).await;
    let over = AtomicBool::new(false);
    let total = async || client.get("/api/v1/tasks").await.expect(200).at("/meta/total").clone();
    tests::wait_until(crate::story::DRAIN, "all are counted", async || total().await == STORED)
        .await;
    let others = async || {
        while !over.load(Ordering::Relaxed) {
            total().await;
        }
    };
    let writer = async {
        let mut task = first.clone();
        for _ in 0..40 {
            client.delete(&format!("/api/v1/tasks/{task}")).await.expect(204);
            assert_eq!(total().await, STORED - 1, "after a delete");
            task = create(&client, "again", 201).await;
            assert_eq!(total().await, STORED, "after a create");
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(writer, others(), others(), others());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_total_is_the_same_before_and_after_replay() {
    let mut world = World::start().await;
    let client = world.client(user());
    let deleted = create(&client, "deleted in the outage", 201).await;
    create(&client, "kept", 201).await;
    world.worker.kill();
    world.postgres_line.cut().await;
    client.delete(&format!("/api/v1/tasks/{deleted}")).await.expect(202);
    for title in ["first", "second", "third"] {
        create(&client, title, 202).await;
    }
    world.postgres_line.heal().await;
    tests::wait_until(crate::story::DRAIN, "the link is up", async || {
        client.get("/api/v1/tasks").await.at("/meta/stale") == false
    })
    .await;
    world.worker.restart().await;
    tests::wait_until(crate::story::DRAIN, "all is replayed", async || {
        let list = client.get("/api/v1/tasks").await.expect(200);
        assert_eq!(list.at("/meta/total"), 4);
        list.text("/meta/source") == "database"
    })
    .await;
    assert_eq!(client.get("/api/v1/tasks").await.at("/meta/total"), 4);
}
