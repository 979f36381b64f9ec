//! Free ports on 127.0.0.1, none handed out twice by one process.
//!
//! They are taken from below the range that the kernel gives to outgoing connections: a server
//! that is killed and started again must find its port unused, also after a thousand connections.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

use tokio::net::TcpSocket;

const LOWEST: u16 = 10_000;
const USUAL_FIRST_OUTGOING: u16 = 32_768;

/// A port that nobody uses, and that this process has not handed out before.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    // Not even a connection that has ended and that the kernel still remembers may use it.
    let is_unused = |port| bind(port, TcpSocket::new_v4()?);
    claim(|port| is_unused(port).is_ok().then_some(port))
}

/// A port that nobody uses, held by a socket that does not listen: connecting to it is refused, and
/// nobody else can bind it. Sockets of our own can, when they set `SO_REUSEPORT`.
///
/// # Panics
/// When there is none.
pub(crate) fn hold_free_port() -> (TcpSocket, u16) {
    let hold = |port| {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseport(true)?;
        bind(port, socket)
    };
    claim(|port| Some((hold(port).ok()?, port)))
}

fn bind(port: u16, socket: TcpSocket) -> io::Result<TcpSocket> {
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    Ok(socket)
}

/// Tries one port after the other, each once in the life of this process.
fn claim<T>(mut take: impl FnMut(u16) -> Option<T>) -> T {
    static TRIED: Mutex<u32> = Mutex::new(0);
    let span = u32::from(first_outgoing() - LOWEST);
    // Test processes that run side by side start at different places.
    let start = std::process::id().wrapping_mul(97) % span;
    let mut tried = TRIED.lock().unwrap();
    while *tried < span {
        let offset = (start + *tried) % span;
        *tried += 1;
        if let Some(claimed) =
            take(LOWEST + u16::try_from(offset).expect("the span is below 65536"))
        {
            return claimed;
        }
    }
    panic!("no free port left below {}", first_outgoing());
}

/// Whether a server could listen on this port of 127.0.0.1 now.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn first_outgoing() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .filter(|first| *first > LOWEST + 1_000)
        .unwrap_or(USUAL_FIRST_OUTGOING)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_handed_out_twice() {
        let ports: HashSet<u16> = (0..200).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 200);
    }

    #[test]
    fn a_port_in_use_is_not_free() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
    }
}
