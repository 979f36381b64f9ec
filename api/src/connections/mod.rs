//! Connections of clients: how many there may be, how long one may keep us waiting, and what is
//! served on them.
//!
//! hyper speaks HTTP on a connection and has no such limits. Here a connection over the limit is
//! told so and closed, a slow one is cut (`connection`), and an error of `accept` is logged and
//! waited out: most of them mean that the process has no file descriptors left.

mod connection;
mod progress;
mod serve;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use poem::web::{LocalAddr, RemoteAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use connection::Connection;
pub use serve::serve;

use crate::http::connection_refusal;
use crate::metric;
use crate::settings::ServerSettings;

/// The pause after an error of `accept`. Most of them mean that file descriptors have run out.
const ERROR_PAUSE: Duration = Duration::from_millis(50);
/// The least time between two log lines about such errors.
const ERROR_LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Connections that are being told at once that there are too many; others are closed untold.
const REFUSALS: usize = 64;
/// How long a client that is told so has to send its request. Some clients take an answer that
/// comes before their request for noise.
const REFUSAL_HEARING: Duration = Duration::from_millis(200);
/// How long telling it may take after that.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);
/// What is read and thrown away of its request (bytes): a socket that is closed with bytes unread
/// takes the answer back.
const REFUSAL_DRAIN: u64 = 128 << 10;

/// File descriptors for everything but connections of clients: the buffer, PostgreSQL, Redis, logs.
const OTHER_FILES: u64 = 128;

/// Accepts the connections of clients.
#[derive(Debug)]
pub struct Connections {
    listener: TcpListener,
    local: LocalAddr,
    room: Arc<Semaphore>,
    request_timeout: Duration,
    closing: CancellationToken,
    refusals: JoinSet<()>,
    errors: Errors,
    open: Gauge,
    refused: Counter,
}

impl Connections {
    /// Accepts from `listener` as many as the settings allow. Once `closing` is cancelled, requests
    /// that have only begun are not waited for.
    ///
    /// # Errors
    /// If the listener does not know its own address.
    pub fn new(
        listener: TcpListener,
        settings: &ServerSettings,
        closing: CancellationToken,
    ) -> io::Result<Self> {
        make_room(settings.max_connections as u64 + OTHER_FILES);
        let open = metrics::gauge!(metric::HTTP_CONNECTIONS.name);
        open.set(0);
        Ok(Self {
            local: LocalAddr(listener.local_addr()?.into()),
            listener,
            room: Arc::new(Semaphore::new(settings.max_connections)),
            request_timeout: settings.request_timeout(),
            closing,
            refusals: JoinSet::new(),
            errors: Errors::default(),
            open,
            refused: metrics::counter!(metric::HTTP_CONNECTIONS_REFUSED.name),
        })
    }

    fn refuse(&mut self, stream: TcpStream) {
        self.refused.increment(1);
        while self.refusals.try_join_next().is_some() {}
        if self.refusals.len() < REFUSALS {
            self.refusals.spawn(tell_refusal(stream));
        }
    }

    /// The next connection of a client, and the client's address.
    async fn accept(&mut self) -> (Connection, RemoteAddr) {
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.errors.report(&error);
                    sleep(ERROR_PAUSE).await;
                    continue;
                }
            };
            match Arc::clone(&self.room).try_acquire_owned() {
                Ok(seat) => {
                    let open = self.open.clone();
                    let closing = self.closing.clone();
                    let connection =
                        Connection::new(stream, seat, open, self.request_timeout, closing);
                    return (connection, RemoteAddr(peer.into()));
                }
                Err(_) => self.refuse(stream),
            }
        }
    }
}

/// Has this process open `files` at once. The usual limit (1024) is one that it may raise itself,
/// and clients must not be able to use up what the buffer and PostgreSQL need.
fn make_room(files: u64) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < files.min(hard) {
            setrlimit(Resource::RLIMIT_NOFILE, files.min(hard), hard)?;
        }
        Ok(hard)
    });
    match raised {
        Ok(hard) if hard >= files => {}
        Ok(hard) => {
            tracing::warn!(hard, files, "fewer files may be open than MAX_CONNECTIONS needs");
        }
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// A client that is gone by then needs no answer, so errors are dropped.
async fn tell_refusal(mut stream: TcpStream) {
    let answer = connection_refusal().await;
    let _ = timeout(REFUSAL_HEARING, stream.peek(&mut [0])).await;
    let told = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        copy(&mut stream.take(REFUSAL_DRAIN), &mut sink()).await
    };
    let _ = timeout(REFUSAL_PATIENCE, told).await;
}

/// Errors of `accept`, of which there may be twenty in a second.
#[derive(Debug, Default)]
struct Errors {
    logged: Option<Instant>,
    since: u64,
}

impl Errors {
    fn report(&mut self, error: &io::Error) {
        self.since += 1;
        if self.logged.is_none_or(|logged| logged.elapsed() >= ERROR_LOG_INTERVAL) {
            tracing::error!(%error, count = self.since, "connections cannot be accepted");
            *self = Self { logged: Some(Instant::now()), since: 0 };
        }
    }
}
