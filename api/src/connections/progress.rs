//! How far a connection has come with its request, told from the bytes alone, and until when the
//! next bytes have to come. Touches no socket and no clock.
//!
//! A request's head ends with its first empty line. Its body's end is not looked for: from the end
//! of the head on, the deadline of the request (`http::shell`, `http::body`) holds, and the limit
//! here only stands behind it.

use std::time::Duration;

use memchr::memchr;
use tokio::time::Instant;

/// For the first byte of a new connection, and from the first byte of a request to the end of its
/// head.
pub const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// For the next request on a connection that has had an answer.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// By how much the deadline of a request comes before our own.
const BEHIND_REQUEST: Duration = Duration::from_secs(1);
/// What comes before the answer, on request of the client.
const CONTINUE: &[u8] = b"HTTP/1.1 100";

/// What the connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No byte of a request has come.
    Silent,
    /// Within a request's head; whether the line is empty up to now.
    Head { empty_line: bool },
    /// A head is complete, and no byte of the answer has been sent.
    Asked,
}

/// Bytes that came too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

/// How far a connection has come.
#[derive(Debug)]
pub struct Progress {
    phase: Phase,
    deadline: Instant,
    asked_limit: Duration,
}

impl Progress {
    /// A connection accepted at `now`, whose requests are answered within `request_timeout`.
    pub fn new(now: Instant, request_timeout: Duration) -> Self {
        Self {
            phase: Phase::Silent,
            deadline: now + HEAD_LIMIT,
            asked_limit: HEAD_LIMIT.max(request_timeout + BEHIND_REQUEST),
        }
    }

    /// Until when bytes have to come, or an answer has to be made.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether a request has begun that nothing can be made of yet.
    pub fn has_begun(&self) -> bool {
        matches!(self.phase, Phase::Head { .. })
    }

    /// Whether no byte of a request has come since the last answer.
    pub fn is_silent(&self) -> bool {
        self.phase == Phase::Silent
    }

    /// Takes note of bytes that came.
    pub fn received(&mut self, bytes: &[u8], now: Instant) -> Result<(), Late> {
        if now > self.deadline {
            return Err(Late);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.phase {
                Phase::Silent => {
                    // Empty lines before a request are skipped by the server as well.
                    let first = rest.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
                    let Some(first) = first else { break };
                    rest = &rest[first..];
                    self.deadline = now + HEAD_LIMIT;
                    self.phase = Phase::Head { empty_line: false };
                }
                Phase::Head { empty_line } => {
                    let end = memchr(b'\n', rest);
                    let (line, after) = rest.split_at(end.unwrap_or(rest.len()));
                    let empty_line = empty_line && line.iter().all(|byte| *byte == b'\r');
                    self.phase = match end {
                        None => Phase::Head { empty_line },
                        Some(_) if empty_line => {
                            self.deadline = now + self.asked_limit;
                            Phase::Asked
                        }
                        Some(_) => Phase::Head { empty_line: true },
                    };
                    rest = after.get(1..).unwrap_or_default();
                }
                Phase::Asked => break,
            }
        }
        Ok(())
    }

    /// Takes note of bytes of an answer that were sent.
    pub fn sent(&mut self, bytes: &[u8], now: Instant) {
        if bytes.starts_with(CONTINUE) {
            return;
        }
        self.phase = Phase::Silent;
        self.deadline = now + KEEP_ALIVE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
    const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\n\r\n";

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_head_in_drips_has_ten_seconds_however_it_begins() {
        for drips in [b"GET / HTTP/1.1\r\nA".as_slice(), b"\r\n\r\nGET / HTTP", b"\nG: \n\r\r"] {
            let start = Instant::now();
            let mut progress = Progress::new(start, REQUEST_TIMEOUT);
            let mut now = start;
            let cut = drips.iter().chain(std::iter::repeat(&b'a')).find_map(|byte| {
                now += Duration::from_secs(1);
                progress.received(&[*byte], now).err().map(|Late| now - start)
            });
            let after = cut.unwrap();
            assert!(after < 2 * HEAD_LIMIT, "{drips:?}: {after:?}");
        }
    }

    #[test]
    fn a_complete_head_gives_the_request_its_time_whatever_ends_its_lines() {
        for head in [REQUEST, b"GET / HTTP/1.1\nA: b\n\n", b"\r\nGET / HTTP/1.1\nA: b\r\n\n"] {
            let start = Instant::now();
            let long = Duration::from_secs(60);
            let mut progress = Progress::new(start, long);
            for byte in head {
                progress.received(&[*byte], at(start, 4)).unwrap();
            }
            assert_eq!(progress.phase, Phase::Asked, "{head:?}");
            assert_eq!(progress.deadline(), at(start, 4) + long + BEHIND_REQUEST);
            progress.received(b"a body\r\n\r\nof any form", at(start, 50)).unwrap();
            assert_eq!(progress.deadline(), at(start, 4) + long + BEHIND_REQUEST);
        }
    }

    #[test]
    fn an_answer_begins_the_wait_for_the_next_request_and_a_continue_does_not() {
        let start = Instant::now();
        let mut progress = Progress::new(start, REQUEST_TIMEOUT);
        assert_eq!(progress.deadline(), at(start, 10));
        progress.received(REQUEST, at(start, 9)).unwrap();
        progress.sent(b"HTTP/1.1 100 Continue\r\n\r\n", at(start, 9));
        assert_eq!(progress.deadline(), at(start, 19));
        progress.sent(b"HTTP/1.1 200 OK\r\n", at(start, 12));
        assert_eq!(progress.deadline(), at(start, 87));
        progress.received(b"G", at(start, 80)).unwrap();
        assert_eq!(progress.deadline(), at(start, 90));
    }
}
