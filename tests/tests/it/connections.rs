//! Slow connections, many connections, and connections at the end: none keeps others from being
//! served.

use std::time::{Duration, Instant};

use tests::{Client, World, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::headers::are_protected;
use crate::story::{create, user};

/// Slow clients are cut after 10 s; the rest is for a busy machine.
const CUT: Duration = Duration::from_secs(15);
/// Connections that begin a request and never end it.
const HALF_OPEN: usize = 200;

/// A connection that says what it likes.
struct Raw(TcpStream);

impl Raw {
    async fn open(world: &World) -> Self {
        let address = world.api_url();
        Self(TcpStream::connect(address.trim_start_matches("http://")).await.unwrap())
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads up to `end`.
    async fn read_to(&mut self, end: &str) -> String {
        let mut heard = Vec::new();
        while !heard.ends_with(end.as_bytes()) {
            heard.push(self.0.read_u8().await.unwrap());
        }
        String::from_utf8(heard).unwrap()
    }

    /// Says `first`, then `drip` again and again, until the other side closes; answers what it said.
    async fn drip_until_cut(mut self, first: &str, drip: &str) -> (Duration, String) {
        let started = Instant::now();
        self.say(first).await;
        let (mut reading, mut writing) = self.0.into_split();
        let dripping = async {
            // To a closed connection nothing can be written, which is no news.
            while !drip.is_empty() && writing.write_all(drip.as_bytes()).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut heard = Vec::new();
        let closed = timeout(2 * CUT, reading.read_to_end(&mut heard));
        tokio::select! {
            closed = closed => assert!(closed.is_ok(), "{first:?} is not cut"),
            () = dripping => {}
        }
        (started.elapsed(), String::from_utf8_lossy(&heard).into_owned())
    }
}

/// What a slow client says first and then in drips, and what it is answered at the end.
fn slow_clients(client: &Client) -> Vec<(String, &'static str, &'static str)> {
    let head = format!(
        "POST /api/v1/tasks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {}\r\n",
        client.token().unwrap()
    );
    let late = "HTTP/1.1 408 ";
    vec![
        (String::new(), "", ""),
        (String::new(), "\n", ""),
        ("GET".to_owned(), "", ""),
        ("GET /".to_owned(), "a", ""),
        ("GET /live HTTP/1.1\r\nA: ".to_owned(), "b", ""),
        ("GET /live HTTP/1.1\r\n".to_owned(), "A: b\r\n", ""),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "", ""),
        (format!("{head}Content-Length: 100\r\n\r\n"), "", late),
        (format!("{head}Content-Length: 100\r\n\r\n"), " ", late),
        (format!("{head}Content-Length: 100\r\n\r\n"), "\r\n\r\n", late),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n"), "1\r\n \r\n", late),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\nffff\r\n"), " ", late),
        (
            format!("{head}Expect: 100-continue\r\nContent-Length: 100\r\n\r\n"),
            " ",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 408 ",
        ),
    ]
}

/// Asks for more than a socket holds, and reads none of it.
async fn deaf_client(world: &World) {
    let mut raw = Raw::open(world).await;
    raw.say(&"GET /docs HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20)).await;
    // To a socket that the other side has closed, the second write fails.
    let closed = async || raw.0.write_all(b"\n").await.is_err();
    wait_until(CUT, "a client that does not read is cut", closed).await;
}

/// The gauge of open connections.
async fn connections(world: &World) -> usize {
    metric(world, "http_connections").await as usize
}

/// The sum of a metric over its labels, or of those lines that begin with `name`.
pub async fn metric(world: &World, name: &str) -> f64 {
    let answer = world.anonymous().get("/metrics").await.expect(200);
    let text = answer.body.as_str().unwrap().to_owned();
    let rests = text.lines().filter_map(|line| line.strip_prefix(name));
    let lines =
        rests.filter(|rest| rest.starts_with([' ', '{'])).filter_map(|l| l.rsplit_once(' '));
    lines.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}

async fn slow_clients_are_cut(world: &World, status: u16) {
    let client = world.client(user());
    let slow = slow_clients(&client);
    let cut = slow.iter().map(async |(first, drip, answer)| {
        let (took, heard) = Raw::open(world).await.drip_until_cut(first, drip).await;
        assert!(took < CUT, "{first:?} {drip:?}: {took:?}");
        assert!(heard.starts_with(answer), "{first:?} {drip:?}: {heard}");
        assert_eq!(heard.is_empty(), answer.is_empty(), "{first:?} {drip:?}: {heard}");
        assert_eq!(heard.contains("\"REQUEST_TIMEOUT\""), !answer.is_empty(), "{heard}");
    });
    let half_open = (0..HALF_OPEN).map(async |_| {
        let (took, _) = Raw::open(world).await.drip_until_cut("GET / HTTP/1.1\r\nA: ", "b").await;
        assert!(took < CUT, "{took:?}");
    });
    let all = futures::future::join3(
        futures::future::join_all(cut),
        futures::future::join_all(half_open),
        deaf_client(world),
    );
    let served = async {
        let most = wait_until(CUT, "many are open", async || connections(world).await > HALF_OPEN);
        most.await;
        loop {
            let started = Instant::now();
            create(&client, "served meanwhile", status).await;
            assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        _ = all => {}
        () = served => {}
    }
}

#[tokio::test]
async fn slow_clients_are_cut_and_others_are_served_meanwhile() {
    let (online, outage) =
        tokio::join!(World::start(), World::builder().without_postgres().start());
    tokio::join!(slow_clients_are_cut(&online, 201), slow_clients_are_cut(&outage, 202));
}

/// The api alone, at work without PostgreSQL.
pub async fn api_alone(environment: &[(&str, &str)]) -> World {
    let builder = World::builder().without_postgres().without_redis().without_worker();
    environment
        .iter()
        .fold(builder, |builder, (name, value)| builder.env(*name, *value))
        .start()
        .await
}

const LIVE: &str = "GET /live HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_the_others_are_served() {
    let world = api_alone(&[("MAX_CONNECTIONS", "8")]).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        let mut raw = Raw::open(&world).await;
        raw.say(LIVE).await;
        assert!(raw.read_to("}}").await.starts_with("HTTP/1.1 200"));
        open.push(raw);
    }
    let answer = world.anonymous().get("/live").await.expect(503);
    assert_eq!(answer.text("/error/code"), "TOO_MANY_CONNECTIONS");
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.header("connection"), "close");
    assert_eq!(answer.text("/meta/request_id"), answer.header("x-request-id"));
    are_protected(&answer, "a refused connection");

    let flood = (0..300).map(async |_| {
        let mut heard = Vec::new();
        let mut raw = Raw::open(&world).await;
        // Some are told, some are closed at once.
        let _ = timeout(CUT, raw.0.read_to_end(&mut heard)).await.expect("it is closed");
        heard.starts_with(b"HTTP/1.1 503")
    });
    let told = futures::future::join_all(flood).await.into_iter().filter(|told| *told).count();
    assert!((32..=128).contains(&told), "{told} were told");
    for raw in &mut open {
        raw.say(LIVE).await;
        assert!(raw.read_to("}}").await.starts_with("HTTP/1.1 200"));
    }
    open.pop();
    let live = async || world.anonymous().get("/live").await.status == 200;
    wait_until(CUT, "there is room again", live).await;
    assert_eq!(metric(&world, "http_connections_refused_total").await as usize / 300, 1);
    assert_eq!(connections(&world).await, 8);
}

#[tokio::test]
async fn without_file_descriptors_the_open_connections_are_served_and_the_log_stays_short() {
    let mut world = api_alone(&[]).await;
    let mut open = Raw::open(&world).await;
    open.say(LIVE).await;
    open.read_to("}}").await;
    let pid = world.api.pid().unwrap();
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() + 4;
    let limited = tokio::process::Command::new("prlimit")
        .args([format!("--pid={pid}"), format!("--nofile={files}:")])
        .status();
    assert!(limited.await.unwrap().success());
    let many = futures::future::join_all((0..50).map(async |_| Raw::open(&world).await)).await;
    let said = "connections cannot be accepted";
    wait_until(CUT, "accepting fails", async || world.api.log().contains(said)).await;
    for _ in 0..100 {
        open.say(LIVE).await;
        assert!(open.read_to("}}").await.starts_with("HTTP/1.1 200"));
    }
    drop(many);
    let live = async || world.anonymous().get("/live").await.status == 200;
    wait_until(CUT, "connections are accepted again", live).await;
    let lines = world.api.log().lines().filter(|line| line.contains(said)).count();
    assert!(lines <= 2, "{lines} lines");
}

#[tokio::test]
async fn at_the_end_requests_that_have_only_begun_are_not_waited_for() {
    let mut world = api_alone(&[]).await;
    let mut open = Vec::new();
    for begun in ["", "G", "GET /live HTTP/1.1\r\nA: b", LIVE] {
        let mut raw = Raw::open(&world).await;
        raw.say(begun).await;
        if begun == LIVE {
            raw.read_to("}}").await;
        }
        open.push(raw);
    }
    let status = world.api.terminate(Duration::from_secs(3)).await.unwrap();
    assert!(status.success(), "{status}");
}
