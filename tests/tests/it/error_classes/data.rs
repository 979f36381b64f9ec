//! PostgreSQL refuses the data, now and ever: the client is told, or the operation is set aside with
//! the reason, and everything else goes on.

use futures::future::join_all;
use serde_json::{Value, json};
use tests::{Client, World};

use super::{applied, operation, pause_replay, resume_replay, start};
use crate::story::{create, drained, user};

/// Data that PostgreSQL refuses in this test, each for a reason of its own.
struct Refused {
    state: &'static str,
    /// The rule that is added to the tables, in force for new rows.
    rule: &'static str,
    /// The field at fault.
    field: &'static str,
    value: &'static str,
}

const REFUSED: &[Refused] = &[
    Refused {
        state: "23505",
        rule: "CREATE UNIQUE INDEX only_one ON tasks ((title = 'only one')) WHERE title = 'only one'",
        field: "title",
        value: "only one",
    },
    Refused {
        state: "23503",
        rule: "CREATE TABLE known (name text PRIMARY KEY); ALTER TABLE tasks ADD CONSTRAINT known \
            FOREIGN KEY (description) REFERENCES known (name) NOT VALID",
        field: "description",
        value: "not known",
    },
    Refused {
        state: "23514",
        rule: "ALTER TABLE tasks ADD CONSTRAINT decent CHECK (title <> 'indecent') NOT VALID",
        field: "title",
        value: "indecent",
    },
    Refused {
        state: "22003",
        rule: "CREATE INDEX numbers ON tasks ((CASE WHEN title ~ '^[0-9]+$' THEN title::smallint END))",
        field: "title",
        value: "99999",
    },
];

/// What is written at the same moment.
const AT_ONCE: usize = 12;

async fn world() -> World {
    let world = start(World::builder()).await;
    for refused in REFUSED {
        world.postgres.psql(refused.rule).await;
    }
    world
}

/// A create that PostgreSQL refuses; of the unique title there is one already.
fn bad(refused: &Refused) -> Value {
    let mut body = json!({ "title": format!("refused with {}", refused.state) });
    body[refused.field] = refused.value.into();
    body
}

async fn all_stored(world: &World) -> String {
    let all = "SELECT (SELECT count(*) FROM tasks), (SELECT count(*) FROM operations)";
    world.postgres.psql(all).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_data_that_postgresql_refuses_is_answered_with_409_and_stored_nowhere() {
    let world = world().await;
    let client = world.client(user());
    create(&client, "only one", 201).await;
    let victim = create(&client, "victim", 201).await;
    for refused in REFUSED {
        let state = refused.state;
        let before = all_stored(&world).await;
        for answer in [
            client.post("/api/v1/tasks", &bad(refused)).await,
            client.patch(&format!("/api/v1/tasks/{victim}"), &change(refused)).await,
        ] {
            let answer = answer.expect(409);
            assert_eq!(answer.text("/error/code"), "DATA_REFUSED", "{state}");
            assert!(!answer.body.to_string().contains(state), "{state} is nobody's business");
        }
        assert_eq!(all_stored(&world).await, before, "{state}: something was stored");
        let said = postgres_refused(&world, refused);
        assert!(said >= 2, "{state}: PostgreSQL has refused it {said} times");
    }
    // In one statement with others, which are not kept back.
    let bodies = (0..AT_ONCE).map(|number| match REFUSED.get(number) {
        Some(refused) => (409, bad(refused)),
        None => (201, json!({ "title": format!("other {number}") })),
    });
    let client = &client;
    let asked = bodies.map(|(status, body)| async move {
        client.post("/api/v1/tasks", &body).await.expect(status);
    });
    join_all(asked).await;
    let health = world.anonymous().get("/health").await;
    assert_eq!(
        (health.at("/data/buffer/pending"), health.at("/data/buffer/dead")),
        (&json!(0), &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_data_that_postgresql_refuses_at_replay_is_set_aside_and_all_else_is_applied() {
    let world = world().await;
    let users: Vec<Client> = (0..3).map(|_| world.client(user())).collect();
    create(&users[0], "only one", 201).await;
    pause_replay(&world).await;
    world.postgres_line.cut().await;
    let (mut good, mut refused_creates) = (Vec::new(), Vec::new());
    let mut lanes = Vec::new();
    for (number, refused) in REFUSED.iter().enumerate() {
        let client = &users[number % users.len()];
        let answer = client.post("/api/v1/tasks", &bad(refused)).await.expect(202);
        refused_creates.push((client, operation_id(&answer), refused));
        for other in &users {
            let body = json!({ "title": format!("beside {number}") });
            let answer = other.post("/api/v1/tasks", &body).await.expect(202);
            good.push((other, operation_id(&answer)));
        }
        // A lane of which the middle is refused.
        let answer = client.post("/api/v1/tasks", &json!({ "title": "lane" })).await.expect(202);
        let path = format!("/api/v1/tasks/{}", answer.text("/data/id"));
        good.push((client, operation_id(&answer)));
        let middle = client.patch(&path, &change(refused)).await.expect(202);
        refused_creates.push((client, operation_id(&middle), refused));
        let last = client.patch(&path, &json!({ "status": "completed" })).await.expect(202);
        good.push((client, operation_id(&last)));
        lanes.push((client, path));
    }
    world.postgres_line.heal().await;
    resume_replay(&world).await;
    drained(&world).await;

    for (client, id) in &good {
        applied(client, std::slice::from_ref(id)).await;
    }
    for (client, id, refused) in &refused_creates {
        let found = operation(client, id).await;
        let reason = format!("data_{}", refused.state);
        assert_eq!((found.text("/data/state"), found.text("/data/reason")), ("rejected", &*reason));
        assert!(postgres_refused(&world, refused) >= 1, "{} was not provoked", refused.state);
    }
    for (client, path) in lanes {
        let seen = client.get(&path).await.expect(200);
        assert_eq!((seen.text("/data/title"), seen.text("/data/status")), ("lane", "completed"));
        assert_eq!(seen.at("/data/description"), &Value::Null);
    }
    let health = world.anonymous().get("/health").await;
    assert_eq!(health.at("/data/buffer/dead"), refused_creates.len());
    let log = world.worker.log();
    for (_, id, _) in &refused_creates {
        let given_up = log.lines().any(|line| line.contains("given up") && line.contains(id));
        assert!(given_up, "giving up is told");
    }
}

/// The change that makes a task one that PostgreSQL refuses.
fn change(refused: &Refused) -> Value {
    let mut body = json!({});
    body[refused.field] = refused.value.into();
    body
}

fn operation_id(answer: &tests::Answer) -> String {
    answer.text("/meta/sync/operation_id").to_owned()
}

/// How often PostgreSQL has logged the refusal that is meant.
fn postgres_refused(world: &World, refused: &Refused) -> usize {
    let text = match refused.state {
        "23505" => "duplicate key value violates unique constraint \"only_one\"",
        "23503" => "violates foreign key constraint \"known\"",
        "23514" => "violates check constraint \"decent\"",
        "22003" => "is out of range for type smallint",
        other => panic!("what does PostgreSQL say for {other}?"),
    };
    super::postgres_said(world, text)
}
