//! One connection: the socket, and a clock that cuts a client that keeps us waiting.
//!
//! It is cut when [`Progress`] says that bytes are overdue, and when it has not read what we send
//! for a while. Deadlines are looked at when the server reads or writes, which is whenever it waits
//! for the client.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use metrics::Gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::progress::{Late, Progress};

/// How long a client may leave unread what we send.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// The slowest at which an answer may be read from then on (bytes per second).
const SLOWEST_RATE: u64 = 16 << 10;
/// Bytes up to which the pieces of an answer are joined before they are sent: copying them costs less
/// than the kernel takes for pieces.
const SMALL: usize = 8 << 10;

/// A client's connection. Counts among the open ones until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    progress: Progress,
    /// By when the client has to read on; only while it does not.
    unread_until: Option<Instant>,
    alarm: Alarm,
    closing: CancellationToken,
    open: Gauge,
    _seat: OwnedSemaphorePermit,
}

impl Connection {
    /// A connection accepted just now.
    pub(super) fn new(
        stream: TcpStream,
        seat: OwnedSemaphorePermit,
        open: Gauge,
        request_timeout: Duration,
        closing: CancellationToken,
    ) -> Self {
        let progress = Progress::new(Instant::now(), request_timeout);
        let alarm = Alarm(Box::pin(sleep_until(progress.deadline())));
        open.increment(1);
        Self { stream, progress, unread_until: None, alarm, closing, open, _seat: seat }
    }

    /// Passes on what a write of bytes that begin like this came to, or the end of our patience with it.
    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        begin: &[u8],
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(sent)) = &polled {
            self.progress.sent(begin, Instant::now());
            // Who takes little at a time gets the time that it takes at the slowest rate.
            if let Some(until) = &mut self.unread_until {
                let sent = u64::try_from(*sent).unwrap_or(u64::MAX);
                *until += Duration::from_millis(sent.saturating_mul(1000) / SLOWEST_RATE);
            }
        }
        if polled.is_ready() {
            return polled;
        }
        let until = *self.unread_until.get_or_insert_with(|| Instant::now() + WRITE_LIMIT);
        ready!(self.alarm.poll_rung(cx, until));
        Poll::Ready(Err(cut("the client does not read its answer")))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.decrement(1);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if Pin::new(&mut this.stream).poll_read(cx, buffer)?.is_pending() {
            // The server looks here once more when it is told to end.
            if this.progress.has_begun() && this.closing.is_cancelled() {
                return Poll::Ready(Err(cut("the server ends")));
            }
            ready!(this.alarm.poll_rung(cx, this.progress.deadline()));
            return Poll::Ready(Err(cut("the client keeps us waiting")));
        }
        let came = &buffer.filled()[before..];
        if this.progress.is_silent() {
            // Another request: the answer before it has been read.
            this.unread_until = None;
        }
        let received = this.progress.received(came, Instant::now());
        Poll::Ready(received.map_err(|Late| cut("the client keeps us waiting")))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(cx, bytes, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let begin: &[u8] = pieces.first().map_or(&[], |piece| piece);
        let polled = if length > SMALL {
            Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
        } else {
            let mut joined = Vec::with_capacity(length);
            pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
            Pin::new(&mut self.stream).poll_write(cx, &joined)
        };
        self.wrote(cx, begin, polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn cut(why: &'static str) -> io::Error {
    tracing::debug!(why, "a connection was cut");
    io::Error::new(io::ErrorKind::TimedOut, why)
}

/// One timer for all deadlines of a connection. Deadlines mostly move away, with every request; the
/// timer is set anew only when it rings too early, or would ring too late.
#[derive(Debug)]
struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    fn poll_rung(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if self.0.deadline() > deadline {
            self.0.as_mut().reset(deadline);
        }
        loop {
            ready!(self.0.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline);
        }
    }
}
