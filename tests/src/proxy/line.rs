//! The state of a line, and one connection on it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::counters::{Counters, count};
use super::trap::{Ending, Trap};
use super::wire::{Passage, Wire};

const CHUNK_BYTES: usize = 16 * 1024;

/// What a line does with bytes and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Everything passes.
    Whole,
    /// Connections stand, nothing passes.
    Stalled,
    /// Only what clients send passes.
    Mute,
    /// No connections; new ones are refused.
    Cut,
    /// The proxy was dropped.
    Gone,
}

impl Line {
    pub(super) fn accepts(self) -> bool {
        !self.breaks()
    }

    pub(super) fn breaks(self) -> bool {
        matches!(self, Self::Cut | Self::Gone)
    }

    /// A broken line holds too: what was held may not slip through while its connection ends.
    fn holds(self, direction: Direction) -> bool {
        match self {
            Self::Whole => false,
            Self::Mute => direction == Direction::Down,
            Self::Stalled | Self::Cut | Self::Gone => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// How a connection ended: passed on as it came, or reset.
enum End {
    Orderly,
    Reset,
}

pub(super) struct Connection {
    client: TcpStream,
    line: watch::Receiver<Line>,
    counters: Arc<Counters>,
    wire: Option<Wire>,
}

impl Connection {
    /// With a trap, the connection is read as PostgreSQL's.
    pub(super) fn new(
        client: TcpStream,
        line: watch::Receiver<Line>,
        counters: Arc<Counters>,
        trap: Option<Arc<Trap>>,
    ) -> Self {
        count(&counters.connections, 1);
        Self { client, line, counters, wire: trap.map(Wire::new) }
    }

    pub(super) async fn carry(mut self, upstream_port: u16) {
        let mut broken = self.line.clone();
        let counters = self.counters.clone();
        let mut upstream = None;
        let end = tokio::select! {
            biased;
            _ = broken.wait_for(|line| line.breaks()) => {
                count(&counters.severed, 1);
                End::Reset
            }
            end = self.relay(upstream_port, &mut upstream) => end,
        };
        if matches!(end, End::Reset) {
            for stream in [Some(&self.client), upstream.as_ref()].into_iter().flatten() {
                // A connection that the other side has reset already cannot be set up any more.
                let _ = stream.set_zero_linger();
            }
        }
        drop((self, upstream));
        count(&counters.ended, 1);
    }

    async fn relay(&mut self, upstream_port: u16, upstream: &mut Option<TcpStream>) -> End {
        pass(&mut self.line, Direction::Up, &self.counters).await;
        let Ok(server) = TcpStream::connect(("127.0.0.1", upstream_port)).await else {
            count(&self.counters.unreachable, 1);
            return End::Reset;
        };
        let server = upstream.insert(server);
        // The line adds no delay of its own to small messages.
        let _ = self.client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
        let (client_reader, client_writer) = self.client.split();
        let (server_reader, server_writer) = server.split();
        let pump = |direction| Pump {
            line: self.line.clone(),
            direction,
            counters: &self.counters,
            wire: self.wire.as_ref(),
        };
        let (up, down) = (pump(Direction::Up), pump(Direction::Down));
        let both = tokio::try_join!(
            up.run(client_reader, server_writer),
            down.run(server_reader, client_writer)
        );
        if both.is_ok() { End::Orderly } else { End::Reset }
    }
}

/// One direction of one connection.
struct Pump<'a> {
    line: watch::Receiver<Line>,
    direction: Direction,
    counters: &'a Counters,
    wire: Option<&'a Wire>,
}

impl Pump<'_> {
    /// Passes bytes on until the sender ends, then passes the end on.
    async fn run(
        mut self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let length = from.read(&mut chunk).await?;
            pass(&mut self.line, self.direction, self.counters).await;
            if length == 0 {
                return to.shutdown().await;
            }
            if let (Some(wire), Direction::Up) = (self.wire, self.direction)
                && wire.hear(&chunk[..length])
            {
                count(&self.counters.held, 1);
                wire.released().await;
            }
            let (bytes, ending) = self.read(&chunk[..length]);
            // Counted first: whoever has received it must find it counted.
            count(self.passed(), bytes.len());
            to.write_all(&bytes).await?;
            if let Some(ending) = ending {
                count(&self.counters.acknowledgements_lost, 1);
                return lose(ending, from, to).await;
            }
        }
    }

    /// What is to be passed on of some bytes, and whether the connection is to end after them.
    fn read<'b>(&self, bytes: &'b [u8]) -> (Cow<'b, [u8]>, Option<Ending>) {
        match (self.wire, self.direction) {
            (None, _) | (Some(_), Direction::Up) => (bytes.into(), None),
            (Some(wire), Direction::Down) => {
                let Passage { bytes, ending } = wire.pass(bytes);
                (bytes.into(), ending)
            }
        }
    }

    fn passed(&self) -> &AtomicU64 {
        match self.direction {
            Direction::Up => &self.counters.bytes_up,
            Direction::Down => &self.counters.bytes_down,
        }
    }
}

/// Ends a connection for the client after the server's answer was lost.
async fn lose(
    ending: Ending,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    match ending {
        Ending::Reset => Err(std::io::ErrorKind::ConnectionReset.into()),
        Ending::Fin => to.shutdown().await,
        // Until the client has had enough.
        Ending::Silence => tokio::io::copy(&mut from, &mut tokio::io::sink()).await.map(drop),
    }
}

/// Waits until the line lets something through in this direction.
async fn pass(line: &mut watch::Receiver<Line>, direction: Direction, counters: &Counters) {
    if line.borrow().holds(direction) {
        count(&counters.held, 1);
        if line.wait_for(|line| !line.holds(direction)).await.is_err() {
            // The proxy is gone, which ends this connection from outside.
            std::future::pending::<()>().await;
        }
    }
}
