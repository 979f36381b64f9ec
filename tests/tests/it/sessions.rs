//! Sessions: opened, renewed and ended, with all servers there and with PostgreSQL, Redis or both away.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tests::token::{Algorithm, claims};
use tests::{Answer, Client, World, wait_until};
use uuid::Uuid;

use crate::story::{DRAIN, create, drained, user};

const LOGIN: &str = "/api/v1/auth/login";
const REFRESH: &str = "/api/v1/auth/refresh";
const LOGOUT: &str = "/api/v1/auth/logout";
const SESSIONS: &str = "/api/v1/auth/sessions";
/// Nobody waits longer for a Redis that hangs, on a machine that is busy with something else.
const NOT_MUCH: Duration = Duration::from_secs(2);

/// The identity provider's word for a user.
pub fn assertion(world: &World, user: Uuid) -> String {
    let mut claims = claims(user, "user");
    claims["iss"] = json!(World::PROVIDER_ISSUER);
    claims["aud"] = json!(World::PROVIDER_AUDIENCE);
    world.token(&claims, &world.provider_key(), Algorithm::HS256)
}

/// Asks for a session.
pub async fn ask(world: &World, assertion: &str) -> Answer {
    world.anonymous().post(LOGIN, &json!({ "assertion": assertion })).await
}

/// Asks for the next tokens of a session.
pub async fn renew(world: &World, refresh: &str) -> Answer {
    world.anonymous().post(REFRESH, &json!({ "refresh_token": refresh })).await
}

/// What a client holds of a session.
pub struct Session {
    /// With the access token.
    pub client: Client,
    /// The refresh token.
    pub refresh: String,
    /// The session's id.
    pub id: String,
}

impl Session {
    fn of(world: &World, granted: &Answer) -> Self {
        let refresh = granted.text("/data/refresh_token").to_owned();
        Self {
            client: world.client_with(granted.text("/data/access_token")),
            id: refresh.split('.').next().unwrap().to_owned(),
            refresh,
        }
    }

    async fn goes_on(&self) {
        self.client.get("/api/v1/tasks").await.expect(200);
    }

    async fn is_refused(&self) {
        let refused = self.client.get("/api/v1/tasks").await.expect(401);
        assert_eq!(refused.text("/error/code"), "UNAUTHORIZED");
    }
}

/// Opens a session.
pub async fn login(world: &World, user: Uuid) -> Session {
    Session::of(world, &ask(world, &assertion(world, user)).await.expect(200))
}

async fn redis(world: &World) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(world.redis.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn is_stored(world: &World, session: &Session) -> bool {
    let key = format!("holdfast:session:{}", session.id);
    redis::cmd("EXISTS").arg(key).query_async(&mut redis(world).await).await.unwrap()
}

async fn a_refresh_rotates(world: &World) {
    let granted = ask(world, &assertion(world, user())).await.expect(200);
    assert_eq!(granted.at("/data/expires_in"), 900);
    assert_eq!(granted.text("/data/token_type"), "Bearer");
    let first = Session::of(world, &granted);
    first.goes_on().await;
    let second = Session::of(world, &renew(world, &first.refresh).await.expect(200));
    assert_ne!(second.refresh, first.refresh);
    second.goes_on().await;
    let third = Session::of(world, &renew(world, &second.refresh).await.expect(200));
    third.goes_on().await;

    renew(world, &first.refresh).await.expect(401);
    renew(world, &third.refresh).await.expect(401);
    for session in [first, second, third] {
        session.is_refused().await;
    }
}

async fn of_fifty_refreshes_at_once_one_wins(world: &World) {
    let session = login(world, user()).await;
    let answers = join_all((0..50).map(|_| renew(world, &session.refresh))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (200, [401; 49].as_slice()));
    let winner = answers.iter().find(|answer| answer.status == 200).unwrap();
    Session::of(world, winner).is_refused().await;
}

async fn one_sees_and_ends_just_ones_own(world: &World) {
    let (one, two) = (user(), user());
    let (here, there, others) =
        (login(world, one).await, login(world, one).await, login(world, two).await);
    let list = here.client.get(SESSIONS).await.expect(200);
    let seen: Vec<(&str, bool)> = list.at("/data").as_array().unwrap().iter().map(view).collect();
    assert_eq!(seen.len(), 2);
    assert!(seen.contains(&(&here.id, true)) && seen.contains(&(&there.id, false)), "{seen:?}");

    for id in [&others.id, &Uuid::now_v7().to_string()] {
        let refused = here.client.delete(&format!("{SESSIONS}/{id}")).await.expect(404);
        assert_eq!(refused.text("/error/code"), "SESSION_NOT_FOUND");
    }
    others.goes_on().await;
    here.client.delete(&format!("{SESSIONS}/{}", there.id)).await.expect(204);
    there.is_refused().await;
    renew(world, &there.refresh).await.expect(401);

    let again = login(world, one).await;
    here.client.post(LOGOUT, &json!({})).await.expect(204);
    here.is_refused().await;
    renew(world, &here.refresh).await.expect(401);
    again.goes_on().await;
    renew(world, &again.refresh).await.expect(200);
    renew(world, &others.refresh).await.expect(200);

    for client in [world.client(one), world.client_with(&assertion(world, one))] {
        let refused = client.post(LOGOUT, &json!({})).await.expect(409);
        assert_eq!(refused.text("/error/code"), "NO_SESSION");
    }
}

fn view(session: &Value) -> (&str, bool) {
    (session["id"].as_str().unwrap(), session["current"].as_bool().unwrap())
}

async fn what_is_no_token_is_refused(world: &World) {
    let session = login(world, user()).await;
    let access = session.client.token().unwrap();
    let refused = ask(world, access).await.expect(401);
    assert_eq!(refused.text("/error/code"), "UNAUTHORIZED");
    let (head, secret) = session.refresh.rsplit_once('.').unwrap();
    let other: String = secret.chars().rev().collect();
    let mut texts = vec![
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        "\u{0}".to_owned(),
        "\u{1f512}".repeat(60),
        "x".repeat(255),
        "x".repeat(256),
        "x".repeat(8192),
        "x".repeat(8193),
        format!("{}.{}", "A".repeat(4000), "B".repeat(4000)),
        head.to_owned(),
        format!("{}.{other}.{secret}", session.id),
        access.to_owned(),
        session.refresh.clone() + "=",
    ];
    texts.push(texts[3].repeat(9000));
    for text in &texts {
        for answer in [ask(world, text).await, renew(world, text).await] {
            let what = text.chars().take(20).collect::<String>();
            assert!([400, 401, 413].contains(&answer.status), "{what}: {answer:#?}");
        }
    }
    for body in [json!({}), json!([]), json!({ "assertion": 7, "refresh_token": null })] {
        world.anonymous().post(LOGIN, &body).await.expect(400);
        world.anonymous().post(REFRESH, &body).await.expect(400);
    }
    // None of these was the token: nobody ends a session by knowing its id.
    session.goes_on().await;
    renew(world, &session.refresh).await.expect(200);
}

async fn redis_holds_hashes_that_expire(world: &World) {
    let session = login(world, user()).await;
    let granted = renew(world, &session.refresh).await.expect(200);
    let newest = Session::of(world, &granted);
    let mut connection = redis(world).await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    assert!(keys.len() >= 2, "{keys:?}");
    let mut all = keys.join("\n");
    for key in &keys {
        let left: i64 = redis::cmd("PTTL").arg(key).query_async(&mut connection).await.unwrap();
        assert!(left > 0, "{key} has no expiry");
        let kind: String = redis::cmd("TYPE").arg(key).query_async(&mut connection).await.unwrap();
        let read = match kind.as_str() {
            "hash" => redis::cmd("HGETALL").arg(key).clone(),
            "zset" => redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).clone(),
            "string" if key == "holdfast:probe" => continue,
            other => panic!("{key} is a {other}"),
        };
        let values: Vec<String> = read.query_async(&mut connection).await.unwrap();
        all.push_str(&values.join("\n"));
    }
    assert!(all.contains(&session.id), "what was looked at is not it: {all}");
    let refresh = session.refresh.split('.').chain(newest.refresh.split('.'));
    let secrets = refresh.filter(|part| *part != session.id);
    let access = [session.client.token().unwrap(), newest.client.token().unwrap()];
    for secret in secrets.chain(access.into_iter().flat_map(|token| token.split('.'))) {
        assert!(!all.contains(secret), "{secret} is in Redis: {all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_opened_renewed_and_ended_with_and_without_postgresql() {
    let mut world = World::start().await;
    for outage in [false, true] {
        if outage {
            world.postgres.kill().await;
        }
        a_refresh_rotates(&world).await;
        of_fifty_refreshes_at_once_one_wins(&world).await;
        one_sees_and_ends_just_ones_own(&world).await;
        what_is_no_token_is_refused(&world).await;
        redis_holds_hashes_that_expire(&world).await;
    }
}

/// Ends sessions while Redis is away; the two operations are the logout's and the one on somebody
/// else's session.
async fn ended_while_away(
    world: &mut World,
    [mine, also_mine, ended, others]: [&Session; 4],
) -> [String; 2] {
    for (what, answer) in [
        ("login", ask(world, &assertion(world, user())).await),
        ("refresh", renew(world, &mine.refresh).await),
        ("list", mine.client.get(SESSIONS).await),
    ] {
        assert_eq!(answer.status, 503, "{what}: {answer:#?}");
        assert_eq!(answer.text("/error/code"), "SESSION_STORE_UNAVAILABLE", "{what}");
        assert!(!answer.header("retry-after").is_empty(), "{what}");
    }
    for session in [mine, also_mine, ended, others] {
        session.goes_on().await;
    }
    let logout = mine.client.post(LOGOUT, &json!({})).await.expect(202);
    let operation = logout.text("/meta/sync/operation_id").to_owned();
    assert_eq!(logout.header("location"), format!("/api/v1/operations/{operation}"));
    let path = |session: &Session| format!("{SESSIONS}/{}", session.id);
    also_mine.client.delete(&path(ended)).await.expect(202);
    let foreign = also_mine.client.delete(&path(others)).await.expect(202);
    for restarted in [false, true] {
        if restarted {
            world.api.restart().await;
        }
        mine.is_refused().await;
        ended.is_refused().await;
        also_mine.goes_on().await;
        others.goes_on().await;
    }
    [operation, foreign.text("/meta/sync/operation_id").to_owned()]
}

async fn fate(client: &Client, operation: &str) -> (String, Value) {
    let answer = client.get(&format!("/api/v1/operations/{operation}")).await.expect(200);
    (answer.text("/data/state").to_owned(), answer.at("/data/reason").clone())
}

#[tokio::test]
async fn a_session_ended_while_redis_is_away_is_refused_here_at_once_and_ended_by_replay() {
    let mut world = World::start().await;
    for outage in [false, true] {
        let one = user();
        let (mine, also_mine) = (login(&world, one).await, login(&world, one).await);
        let (ended, others) = (login(&world, one).await, login(&world, user()).await);
        if outage {
            world.postgres.kill().await;
        }
        world.redis_line.cut().await;
        let sessions = [&mine, &also_mine, &ended, &others];
        let [logout, foreign] = ended_while_away(&mut world, sessions).await;
        assert_eq!(fate(&also_mine.client, &logout).await.0, "pending");
        world.redis_line.heal().await;
        wait_until(DRAIN, "the sessions are gone from Redis", async || {
            !is_stored(&world, &mine).await && !is_stored(&world, &ended).await
        })
        .await;
        if outage {
            assert_eq!(fate(&also_mine.client, &logout).await.0, "pending");
            world.postgres.start_again().await;
        }
        drained(&world).await;
        assert_eq!(fate(&also_mine.client, &logout).await.0, "applied");
        let refused = ("rejected".to_owned(), json!("forbidden"));
        assert_eq!(fate(&also_mine.client, &foreign).await, refused);
        for session in [&mine, &ended] {
            session.is_refused().await;
            renew(&world, &session.refresh).await.expect(401);
        }
        for session in [&also_mine, &others] {
            renew(&world, &session.refresh).await.expect(200);
        }
    }
    let rows = "SELECT count(*) FROM operations WHERE entity = 'session' AND outcome = 'applied'";
    assert_eq!(world.postgres.psql(rows).await, "4");
}

#[tokio::test]
async fn a_session_ended_here_is_not_renewed_though_replay_has_not_come_to_it() {
    let mut world = World::builder().without_postgres().start().await;
    let session = login(&world, user()).await;
    world.worker.kill();
    world.redis_line.cut().await;
    session.client.post(LOGOUT, &json!({})).await.expect(202);
    world.redis_line.heal().await;
    wait_until(DRAIN, "Redis is reached", async || {
        renew(&world, &session.refresh).await.status == 401
    })
    .await;
    assert!(!is_stored(&world, &session).await);
}

#[tokio::test]
async fn what_was_revoked_stays_revoked_when_redis_loses_its_memory() {
    let mut world = World::builder().without_postgres().start().await;
    let (one, two) = (user(), user());
    let (ended, reused, other) =
        (login(&world, one).await, login(&world, one).await, login(&world, two).await);
    ended.client.post(LOGOUT, &json!({})).await.expect(204);
    renew(&world, &reused.refresh).await.expect(200);
    renew(&world, &reused.refresh).await.expect(401);
    world.redis.kill();
    other.goes_on().await;
    for session in [&ended, &reused] {
        session.is_refused().await;
    }
    world.redis.start_again().await;
    let mut connection = redis(&world).await;
    let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    wait_until(DRAIN, "sessions can be opened again", async || {
        ask(&world, &assertion(&world, two)).await.status == 200
    })
    .await;
    for session in [&ended, &reused] {
        session.is_refused().await;
        renew(&world, &session.refresh).await.expect(401);
    }
    world.redis.kill();
    for session in [&ended, &reused] {
        session.is_refused().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_delays_nobody_much() {
    let mut world = World::start().await;
    let session = login(&world, user()).await;
    world.redis.suspend();
    let mut took = Vec::new();
    for number in 0..30 {
        let path = "/api/v1/tasks";
        let answer = session.client.post(path, &json!({ "title": number.to_string() })).await;
        took.push(answer.expect(201).took);
    }
    took.sort_unstable();
    assert!(took[29] < NOT_MUCH && took[15] < Duration::from_millis(250), "{took:?}");
    let many = join_all((0..50).map(|_| session.client.get("/api/v1/profile"))).await;
    let asked = join_all((0..10).map(|_| renew(&world, &session.refresh))).await;
    for answer in many {
        assert!(answer.expect(200).took < NOT_MUCH);
    }
    for answer in asked {
        assert!(answer.expect(503).took < NOT_MUCH);
    }
    let logout = session.client.post(LOGOUT, &json!({})).await.expect(202);
    assert!(logout.took < NOT_MUCH);
    session.is_refused().await;
    create(&world.client(user()), "without a session", 201).await;
    world.redis.resume();
    drained(&world).await;
    assert!(!is_stored(&world, &session).await);
}
