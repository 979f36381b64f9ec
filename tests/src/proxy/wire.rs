//! The PostgreSQL protocol (version 3) on one connection, read as far as it takes to know the
//! acknowledgement of a write when it comes, and to lose it.
//!
//! The product's statements are prepared, and each is a transaction of its own: the server answers
//! with CommandComplete and ReadyForQuery once it has committed. The statement that is running is
//! known by the name it was parsed under; one that inserts is a write, and its answer acknowledges
//! something unless it says that nothing was written (as the answer to a probe does).

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::trap::{Ending, Trap};

const ENCRYPTION_REQUESTS: [u32; 2] = [80_877_103, 80_877_104];
const CANCEL_REQUEST: u32 = 80_877_102;
/// What CommandComplete says when a write has found nothing to do.
const NOTHING_WRITTEN: &[u8] = b"SELECT 0\0";

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    trap: Arc<Trap>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    up: Frames,
    down: Frames,
    started: bool,
    /// Requests for encryption, each of which is answered by a single byte.
    encryption_requests: usize,
    application: String,
    writes: HashSet<Vec<u8>>,
    writing: bool,
    losing: Option<Ending>,
}

/// What of the server's bytes is to be passed on, and how the connection ends after them, if an
/// acknowledgement was among them that is to be lost.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Passage {
    pub(super) bytes: Vec<u8>,
    pub(super) ending: Option<Ending>,
}

impl Wire {
    pub(super) fn new(trap: Arc<Trap>) -> Self {
        Self { trap, state: Mutex::default() }
    }

    /// Takes note of what the client sends, before it is passed on. True if a write is among it that is
    /// to be held.
    pub(super) fn hear(&self, bytes: &[u8]) -> bool {
        let state = &mut *self.state.lock().unwrap();
        state.up.push(bytes);
        let mut is_held = false;
        while let Some(message) = state.up.next(state.started) {
            if state.started {
                state.asked(&message);
                is_held |=
                    message[0] == b'B' && state.writing && self.trap.holds(&state.application);
            } else {
                state.start(&message);
            }
        }
        is_held
    }

    /// Waits until a write that is held is to go on.
    pub(super) async fn released(&self) {
        self.trap.released().await;
    }

    /// Passes on whole messages of the server's, up to an acknowledgement that is to be lost.
    pub(super) fn pass(&self, bytes: &[u8]) -> Passage {
        let state = &mut *self.state.lock().unwrap();
        state.down.push(bytes);
        let mut passage = Passage::default();
        while state.encryption_requests > 0 && !state.down.0.is_empty() {
            passage.bytes.push(state.down.0.remove(0));
            state.encryption_requests -= 1;
        }
        while let Some(message) = state.down.next(true) {
            if let Some(ending) = state.losing {
                // Only with ReadyForQuery is it certain that the transaction has ended.
                if message[0] == b'Z' {
                    passage.ending = Some(ending);
                    return passage;
                }
                continue;
            }
            let acknowledges = message[0] == b'C' && message[5..] != *NOTHING_WRITTEN;
            if acknowledges && state.writing {
                state.losing = self.trap.catch(&state.application);
            }
            if state.losing.is_none() {
                passage.bytes.extend(message);
            }
        }
        passage
    }
}

impl State {
    /// A message before the session has begun: its length, then what it asks for.
    fn start(&mut self, message: &[u8]) {
        let request = number(&message[4..8]);
        if ENCRYPTION_REQUESTS.contains(&request) {
            self.encryption_requests += 1;
        } else if request != CANCEL_REQUEST {
            self.started = true;
            let words: Vec<&[u8]> = message[8..].split(|byte| *byte == 0).collect();
            let name = words.iter().position(|word| *word == b"application_name");
            let value = name.and_then(|name| words.get(name + 1));
            self.application = String::from_utf8_lossy(value.unwrap_or(&&b""[..])).into_owned();
        }
    }

    fn asked(&mut self, message: &[u8]) {
        let mut words = message[5..].splitn(3, |byte| *byte == 0);
        let (first, second) = (words.next().unwrap_or(b""), words.next().unwrap_or(b""));
        match message[0] {
            // Parse: the statement's name and text.
            b'P' if contains(second, b"INSERT INTO") => drop(self.writes.insert(first.to_vec())),
            b'P' => drop(self.writes.remove(first)),
            // Bind: the portal's name and the statement's.
            b'B' => self.writing = self.writes.contains(second),
            b'Q' => self.writing = false,
            _ => {}
        }
    }
}

/// Bytes that are taken off message by message.
#[derive(Debug, Default)]
struct Frames(Vec<u8>);

impl Frames {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next message, if all of it is there; `typed` ones have a byte before their length.
    fn next(&mut self, typed: bool) -> Option<Vec<u8>> {
        let start = usize::from(typed);
        let length = number(self.0.get(start..start + 4)?);
        let end = start + usize::try_from(length).expect("a length fits into memory");
        assert!(end >= start + 4, "this is not the protocol of PostgreSQL");
        (self.0.len() >= end).then(|| self.0.drain(..end).collect())
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: &[u8] = b"w\0WITH a AS (INSERT INTO t VALUES ($1)) SELECT\0\0\0";

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    /// A session that has begun without encryption, with a write prepared as `w` and a read as `r`.
    fn session(trap: &Arc<Trap>) -> Wire {
        let wire = Wire::new(Arc::clone(trap));
        let ask = [8_u32.to_be_bytes(), ENCRYPTION_REQUESTS[0].to_be_bytes()].concat();
        wire.hear(&ask);
        assert_eq!(wire.pass(b"N").bytes, b"N");
        let parameters = b"\0\x03\0\0user\0u\0application_name\0shop\0\0";
        let length = u32::try_from(parameters.len() + 4).unwrap();
        wire.hear(&[&length.to_be_bytes()[..], parameters].concat());
        wire.hear(&message(b'P', WRITE));
        wire.hear(&message(b'P', b"r\0SELECT 1\0\0\0"));
        wire
    }

    /// Runs a statement whose answer comes byte by byte.
    fn run(wire: &Wire, statement: &str, tag: &[u8]) -> Passage {
        wire.hear(&message(b'B', format!("\0{statement}\0").as_bytes()));
        let answer =
            [message(b'2', b""), message(b'D', b"row"), message(b'C', tag), message(b'Z', b"I")];
        let mut all = Passage::default();
        for byte in answer.concat() {
            let passage = wire.pass(&[byte]);
            all.bytes.extend(passage.bytes);
            all.ending = all.ending.or(passage.ending);
        }
        all
    }

    #[test]
    fn the_acknowledgement_of_a_write_is_lost_once_it_is_wanted() {
        let trap = Arc::new(Trap::default());
        let wire = session(&trap);
        let whole = run(&wire, "w", b"SELECT 1\0");
        assert_eq!(whole.ending, None);
        trap.arm("shop", [Ending::Fin]);
        for (statement, tag) in [("r", &b"SELECT 1\0"[..]), ("w", NOTHING_WRITTEN)] {
            assert_eq!(run(&wire, statement, tag).ending, None, "{statement}");
        }
        let lost = run(&wire, "w", b"SELECT 1\0");
        assert_eq!(lost.ending, Some(Ending::Fin));
        assert_eq!(lost.bytes, [message(b'2', b""), message(b'D', b"row")].concat());
        assert_eq!(run(&session(&trap), "w", b"SELECT 1\0"), whole, "that was the only one");
    }

    #[test]
    fn others_keep_their_acknowledgements() {
        let trap = Arc::new(Trap::default());
        trap.arm("somebody else", [Ending::Reset]);
        assert_eq!(run(&session(&trap), "w", b"SELECT 1\0").ending, None);
    }
}
