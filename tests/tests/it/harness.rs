//! The harness itself: its servers, its lines and its processes do what the other tests rely on.

use std::io::ErrorKind;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::signals::{children, is_alive};
use tests::{
    Launch, Postgres, Probe, Process, Proxy, Redis, free_port, scratch_folder, wait_until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Longer than a local exchange takes by far.
const SHORTLY: Duration = Duration::from_millis(200);
const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_killed_postgres_refuses_and_comes_back_with_its_data() {
    let folder = scratch_folder("harness");
    let mut postgres = Postgres::start(folder.path()).await;
    assert_eq!(postgres.psql("SHOW fsync").await, "on");
    postgres
        .psql("CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 1000)")
        .await;

    postgres.kill().await;

    assert!(!postgres.is_running());
    let refused = TcpStream::connect(("127.0.0.1", postgres.port())).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(postgres.try_psql("SELECT 1").await.is_err());

    postgres.start_again().await;

    assert_eq!(postgres.psql("SELECT count(*), max(n) FROM kept").await, "1000|1000");
    assert!(postgres.log().contains("was not properly shut down"), "the kill was a crash");
}

#[tokio::test]
async fn a_suspended_postgres_hangs_and_then_goes_on() {
    let folder = scratch_folder("harness");
    let mut postgres = Postgres::start(folder.path()).await;
    let probe = Probe::Postgres(postgres.port());

    postgres.suspend();

    assert!(postgres.is_running());
    TcpStream::connect(("127.0.0.1", postgres.port()))
        .await
        .expect("the kernel takes the connection");
    assert!(timeout(SHORTLY, postgres.try_psql("SELECT 1")).await.is_err(), "and nobody answers");

    postgres.resume();

    wait_until(SOON, "a resumed PostgreSQL answers", async || probe.answers().await).await;
    assert_eq!(postgres.psql("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_suspended_postgres_can_be_killed() {
    let folder = scratch_folder("harness");
    let mut postgres = Postgres::start(folder.path()).await;
    postgres.suspend();
    postgres.kill().await;
    assert!(!postgres.is_running());
    postgres.start_again().await;
    assert_eq!(postgres.psql("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_stopped_postgres_starts_again_without_recovery() {
    let folder = scratch_folder("harness");
    let mut postgres = Postgres::prepare(folder.path()).await;
    assert!(!postgres.is_running());
    postgres.start_again().await;
    postgres.stop_fast().await;
    assert!(!postgres.is_running());
    postgres.start_again().await;
    assert!(!postgres.log().contains("was not properly shut down"));
}

#[tokio::test]
async fn a_killed_redis_refuses_and_comes_back_empty() {
    let folder = scratch_folder("harness");
    let mut redis = Redis::start(folder.path()).await;
    let probe = Probe::Redis(redis.port());
    redis.suspend();
    assert!(timeout(SHORTLY, probe.answers()).await.is_err(), "a suspended Redis hangs");
    redis.resume();
    wait_until(SOON, "a resumed Redis answers", async || probe.answers().await).await;
    redis.kill();
    assert!(!redis.is_running());
    assert!(!probe.answers().await);
    redis.start_again().await;
    assert!(probe.answers().await);
}

#[tokio::test]
async fn a_cut_line_resets_and_refuses_until_it_is_healed() {
    let line = Proxy::start(echo_server().await).await;
    let mut standing = connect(&line).await.unwrap();
    assert_eq!(exchange(&mut standing, b"before").await.unwrap(), b"before");
    assert_eq!((line.counts().bytes_up, line.counts().bytes_down), (6, 6));

    line.cut().await;

    let broken = standing.read_u8().await.unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    for _ in 0..20 {
        assert_eq!(connect(&line).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    assert_eq!((line.counts().connections, line.counts().open, line.counts().severed), (1, 0, 1));

    line.heal().await;

    let mut fresh = connect(&line).await.unwrap();
    assert_eq!(exchange(&mut fresh, b"after").await.unwrap(), b"after");
    assert_eq!(line.counts().connections, 2);
}

#[tokio::test]
async fn a_stalled_line_holds_every_byte_until_it_is_healed() {
    let line = Proxy::start(echo_server().await).await;
    let mut standing = connect(&line).await.unwrap();
    assert_eq!(exchange(&mut standing, b"before").await.unwrap(), b"before");

    line.stall().await;

    let mut fresh = connect(&line).await.expect("a stalled line takes connections");
    standing.write_all(b"held").await.unwrap();
    fresh.write_all(b"held too").await.unwrap();
    assert!(timeout(SHORTLY, standing.read_u8()).await.is_err(), "nothing comes back");
    assert!(timeout(SHORTLY, fresh.read_u8()).await.is_err(), "nothing comes back");
    let counts = line.counts();
    assert_eq!((counts.bytes_up, counts.bytes_down, counts.held, counts.open), (6, 6, 2, 2));

    line.heal().await;

    assert_eq!(read(&mut standing, 4).await.unwrap(), b"held");
    assert_eq!(read(&mut fresh, 8).await.unwrap(), b"held too");
}

#[tokio::test]
async fn a_mute_line_delivers_requests_and_loses_the_answers_when_it_is_cut() {
    let line = Proxy::start(echo_server().await).await;
    let mut standing = connect(&line).await.unwrap();
    assert_eq!(exchange(&mut standing, b"before").await.unwrap(), b"before");

    line.mute().await;

    standing.write_all(b"commit").await.unwrap();
    wait_until(SOON, "the answer is held", async || line.counts().held == 1).await;
    assert_eq!((line.counts().bytes_up, line.counts().bytes_down), (12, 6));

    line.cut().await;

    assert_eq!(standing.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(line.counts().bytes_down, 6);
}

#[tokio::test]
async fn a_line_to_an_absent_server_resets_what_it_accepts() {
    let line = Proxy::start(free_port()).await;
    // The reset may be there before the client has looked at its new connection.
    let outcome = async { connect(&line).await?.read_u8().await };
    assert_eq!(outcome.await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(line.counts().unreachable, 1);
}

#[tokio::test]
async fn an_orderly_end_passes_through_a_line_as_one() {
    let line = Proxy::start(echo_server().await).await;
    let mut client = connect(&line).await.unwrap();
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"last words");
    wait_until(SOON, "the connection is over", async || line.counts().open == 0).await;
}

#[tokio::test]
async fn a_process_is_ended_politely_killed_and_started_again() {
    let folder = scratch_folder("harness");
    let script = r#"trap 'echo "bye from $WHO"; exit 7' TERM; echo "hello from $WHO"; while :; do sleep 0.01; done"#;
    let launch =
        Launch::new("/bin/sh", folder.path().join("sh.log")).args(["-c", script]).env("WHO", "one");
    let mut process = Process::new("sh", launch, Probe::Live(free_port()));
    process.spawn().unwrap();
    wait_until(SOON, "it has started", async || process.log().contains("hello from one")).await;

    let status = process.terminate(SOON).await.unwrap();

    assert_eq!(status.code(), Some(7));
    assert!(process.log().contains("bye from one"));
    assert!(process.terminate(SOON).await.is_err(), "it does not run any more");

    process.launch_mut().set_env("WHO", "two");
    process.spawn().unwrap();
    wait_until(SOON, "it has started again", async || process.log().contains("hello from two"))
        .await;
    process.suspend();
    process.signal(Signal::SIGTERM);
    assert!(process.wait(SHORTLY).await.is_err(), "a suspended process does not even end");
    let children = children(process.pid().unwrap());
    process.kill();
    assert!(!process.is_running());
    wait_until(SOON, "its children are gone too", async || {
        !children.iter().any(|pid| is_alive(*pid))
    })
    .await;
}

#[tokio::test]
async fn a_process_that_ends_instead_of_coming_up_is_told_with_its_log() {
    let folder = scratch_folder("harness");
    let launch =
        Launch::new("/bin/sh", folder.path().join("sh.log")).args(["-c", "echo no port; exit 3"]);
    let mut process = Process::new("sh", launch, Probe::Live(free_port()));
    let error = format!("{:#}", process.start().await.unwrap_err());
    assert!(error.contains("no port") && error.contains("exit status: 3"), "{error}");
}

async fn connect(line: &Proxy) -> std::io::Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", line.port())).await
}

async fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(bytes).await?;
    read(stream, bytes.len()).await
}

async fn read(stream: &mut TcpStream, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// A server on a free port that sends back what it gets.
async fn echo_server() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    port
}
