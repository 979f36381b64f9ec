//! A buffer filled as clients fill it: by creates of many users, over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::plan::Plan;
use super::requests::BODY;
use super::servers::Server;
use super::stage;
use crate::world::World;

/// Connections, each with one create on its way at any time.
const CONNECTIONS: usize = 128;
const FIRST_USER: u128 = 0x5eed_0000_0000_4000_8000_0000_0000_0000;
/// Bytes of an answer at the most.
const ANSWER: usize = 64 << 10;

/// What a buffer holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    pub(super) pending: u64,
    /// Bytes of the pending operations.
    pub(super) bytes: u64,
}

impl Filled {
    /// What the buffer of a world holds, as its api says.
    pub(super) async fn of(world: &World) -> anyhow::Result<Self> {
        let bytes = stage::health(world, "/data/buffer/bytes").await;
        let bytes = bytes.as_u64().context("the api does not tell the bytes of its buffer")?;
        Ok(Self { pending: stage::pending(world).await, bytes })
    }
}

/// Sends creates to the api, which must run and be without PostgreSQL, until `target` operations are
/// pending.
pub(super) async fn fill(plan: &Plan, world: &World, target: u64) -> anyhow::Result<Filled> {
    let missing = target.saturating_sub(stage::pending(world).await);
    let users = (0..plan.sizes.users_in_buffer as u128).map(|number| FIRST_USER + number);
    let requests: Vec<Vec<u8>> = users
        .map(|user| request(&Server::Ours(world).token(plan, Uuid::from_u128(user))))
        .collect();
    let (requests, sent) = (Arc::new(requests), Arc::new(AtomicU64::new(0)));
    let address = world.api_url().trim_start_matches("http://").to_owned();
    let connections = (0..CONNECTIONS).map(|_| {
        let (address, requests, sent) = (address.clone(), Arc::clone(&requests), Arc::clone(&sent));
        let work = async move { send(&address, &requests, &sent, missing).await };
        async { tokio::spawn(work).await? }
    });
    try_join_all(connections).await?;
    let filled = Filled::of(world).await?;
    ensure!(filled.pending == target, "{} operations are pending, not {target}", filled.pending);
    Ok(filled)
}

fn request(token: &str) -> Vec<u8> {
    let length = BODY.len();
    format!(
        "POST /api/v1/tasks HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{BODY}"
    )
    .into_bytes()
}

/// Sends one request after the other over one connection until all connections together have sent
/// `number`.
async fn send(
    address: &str,
    requests: &[Vec<u8>],
    sent: &AtomicU64,
    number: u64,
) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut answer = Vec::with_capacity(ANSWER);
    loop {
        let turn = sent.fetch_add(1, Ordering::Relaxed);
        if turn >= number {
            return Ok(());
        }
        let index = usize::try_from(turn)? % requests.len();
        stream.write_all(&requests[index]).await?;
        read_answer(&mut stream, &mut answer).await?;
        if !answer.starts_with(b"HTTP/1.1 202 ") {
            bail!("a create was answered with {}", String::from_utf8_lossy(&answer));
        }
    }
}

/// Reads one answer to its end.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> anyhow::Result<()> {
    answer.clear();
    loop {
        ensure!(stream.read_buf(answer).await? > 0, "the api closed a connection");
        ensure!(answer.len() < ANSWER, "an answer is too long");
        if let Some(length) = length(answer)?
            && answer.len() >= length
        {
            return Ok(());
        }
    }
}

/// The whole length of an answer, once its head is there.
fn length(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let Some(end) = end else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
    let body = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let body: usize = body.context("an answer without a length")?.trim().parse()?;
    Ok(Some(end + 4 + body))
}
