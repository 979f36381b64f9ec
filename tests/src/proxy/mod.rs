//! A TCP line between a client and a server on 127.0.0.1 that can be broken in the ways lines break.
//!
//! The port stays the same for the proxy's life, and nobody else can take it, not even while the
//! line is cut. The line runs on a thread of its own: a test that blocks does not slow it down.

use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::ports::hold_free_port;
use crate::wait::wait_until;
use counters::Counters;
use line::Line;
use trap::Trap;

mod counters;
mod line;
mod trap;
mod wire;

pub use counters::LineCounts;
pub use trap::Ending;

const BACKLOG: u32 = 1024;
const SWITCH_DEADLINE: Duration = Duration::from_secs(5);

/// A line to one server. It starts whole.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    line: watch::Sender<Line>,
    listening: watch::Receiver<bool>,
    counters: Arc<Counters>,
    trap: Option<Arc<Trap>>,
}

impl Proxy {
    /// A whole line to `upstream`, a port of 127.0.0.1 on which a server listens or will.
    ///
    /// # Panics
    /// When the line cannot be laid.
    pub async fn start(upstream: u16) -> Self {
        Self::lay(upstream, None).await
    }

    /// A whole line to a PostgreSQL, which reads what passes: only on such a line can
    /// [acknowledgements be lost](Proxy::lose_acknowledgements).
    ///
    /// # Panics
    /// When the line cannot be laid.
    pub async fn to_postgres(upstream: u16) -> Self {
        Self::lay(upstream, Some(Arc::default())).await
    }

    async fn lay(upstream: u16, trap: Option<Arc<Trap>>) -> Self {
        let (held_port, port) = hold_free_port();
        let (line, seen_line) = watch::channel(Line::Whole);
        let (listening_sender, listening) = watch::channel(false);
        let counters = Arc::new(Counters::default());
        let exchange = Exchange {
            port,
            upstream,
            line: seen_line,
            listening: listening_sender,
            counters: counters.clone(),
            trap: trap.clone(),
        };
        runtime().spawn(async move {
            exchange.run().await;
            drop(held_port);
        });
        let proxy = Self { port, line, listening, counters, trap };
        proxy.switch(Line::Whole).await;
        proxy
    }

    /// Breaks the line: every connection is reset (RST), and new ones are refused, until
    /// [`Proxy::heal`]. What was under way is lost. Back when it is so.
    pub async fn cut(&self) {
        self.switch(Line::Cut).await;
        wait_until(SWITCH_DEADLINE, "a cut line has no connections", async || {
            self.counts().open == 0
        })
        .await;
    }

    /// Stalls the line: connections stand and new ones are accepted, and no byte passes either way.
    /// Healing it delivers what was held.
    pub async fn stall(&self) {
        self.switch(Line::Stalled).await;
    }

    /// Mutes the server: requests reach it, and no byte of its answers comes back. Cutting the line
    /// then loses the answers, a COMMIT's among them; healing it delivers them late.
    pub async fn mute(&self) {
        self.switch(Line::Mute).await;
    }

    /// The next writes that a program (by its `application_name`) sends are committed, and their
    /// acknowledgements are lost, one for each of `endings`: the program gets everything up to it,
    /// and then that ending. The line itself stays whole. What was left of an earlier call is
    /// forgotten; [`LineCounts::acknowledgements_lost`] tells what has been lost.
    ///
    /// # Panics
    /// When the line does not read PostgreSQL's protocol.
    pub fn lose_acknowledgements(
        &self,
        application: &str,
        endings: impl IntoIterator<Item = Ending>,
    ) {
        let trap = self.trap.as_ref().expect("a line to PostgreSQL");
        trap.arm(application, endings);
    }

    /// The next write that a program (by its `application_name`) sends is held on the line, until
    /// [`Proxy::release_write`], whether or not the program lives by then. Everything else passes.
    /// [`LineCounts::held`] tells when it is there.
    ///
    /// # Panics
    /// When the line does not read PostgreSQL's protocol.
    pub fn hold_next_write(&self, application: &str) {
        self.trap.as_ref().expect("a line to PostgreSQL").hold(application);
    }

    /// Lets the write that was held go on to the server.
    ///
    /// # Panics
    /// When the line does not read PostgreSQL's protocol.
    pub fn release_write(&self) {
        self.trap.as_ref().expect("a line to PostgreSQL").release();
    }

    /// Makes the line whole again.
    pub async fn heal(&self) {
        self.switch(Line::Whole).await;
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What has happened on this line so far. A fault that did not fire shows here.
    #[must_use]
    pub fn counts(&self) -> LineCounts {
        self.counters.read()
    }

    async fn switch(&self, to: Line) {
        self.line.send_replace(to);
        let mut listening = self.listening.clone();
        let done = listening.wait_for(|listening| *listening == to.accepts());
        let done = tokio::time::timeout(SWITCH_DEADLINE, done).await;
        assert!(matches!(done, Ok(Ok(_))), "the line on port {} did not become {to:?}", self.port);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.send_replace(Line::Gone);
    }
}

/// What listens, and hands each connection to a [`line::Connection`].
struct Exchange {
    port: u16,
    upstream: u16,
    line: watch::Receiver<Line>,
    listening: watch::Sender<bool>,
    counters: Arc<Counters>,
    trap: Option<Arc<Trap>>,
}

impl Exchange {
    async fn run(mut self) {
        while self.becomes(|line| line.accepts() || line == Line::Gone).await != Line::Gone {
            let listener = listen(self.port);
            self.listening.send_replace(true);
            self.accept_until_broken(&listener).await;
            // Closing alone is not enough: a child that is just being started holds a copy of it.
            // Connections that wait to be accepted are reset with it.
            SockRef::from(&listener).shutdown(Shutdown::Both).expect("a listener stops listening");
            drop(listener);
            self.listening.send_replace(false);
        }
    }

    async fn accept_until_broken(&mut self, listener: &TcpListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                _ = self.line.wait_for(|line| line.breaks()) => return,
                accepted = listener.accept() => accepted,
            };
            if let Ok((client, _)) = accepted {
                self.carry(client);
            }
        }
    }

    fn carry(&self, client: TcpStream) {
        let (line, counters) = (self.line.clone(), self.counters.clone());
        let connection = line::Connection::new(client, line, counters, self.trap.clone());
        tokio::spawn(connection.carry(self.upstream));
    }

    /// Waits for a state; a proxy that was dropped counts as gone.
    async fn becomes(&mut self, wanted: impl Fn(Line) -> bool) -> Line {
        self.line.wait_for(|line| wanted(*line)).await.map_or(Line::Gone, |line| *line)
    }
}

fn listen(port: u16) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseport(true).expect("a port shared with ourselves");
    socket.set_reuseaddr(true).expect("a port with connections that have just ended");
    socket.bind(address(port)).expect("the reserved port");
    socket.listen(BACKLOG).expect("a listener")
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder
            .worker_threads(1)
            .thread_name("lines")
            .enable_all()
            .build()
            .expect("a runtime for the lines")
    })
}
