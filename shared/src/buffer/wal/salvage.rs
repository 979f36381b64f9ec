//! Looking through a WAL whose frames this process does not know yet: whether it belongs to the tables,
//! and what can be had of it if it is damaged.
//!
//! What follows the last sound frame may be anything: what an older generation left, or a frame whose
//! writer was killed. But a head of this generation there, or records that were made for the very places
//! that come next, tell of what may have been acknowledged. What can be read is pending; for each of
//! the others there is a damaged record, with what bytes there are, which is set aside like any other.

use std::collections::BTreeMap;

use super::file::{LENGTH, Wal};
use super::frame::{HEAD, Head, PAGE, records_of};
use super::tail::{LONGEST, Mark, Tail};
use crate::buffer::format::generation::is_of_same_file;
use crate::buffer::format::record::Header;

/// Records that may be missing between two frames: more than a tail ever has, and not so many that a
/// wrong number costs much.
const MISSING: u64 = 10_000;

/// What a WAL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::buffer) enum State {
    /// One that goes on where its sound frames end.
    Sound,
    /// A damaged one. Nothing can be written to it in this generation.
    Damaged,
    /// One with frames that the tables do not know of: of another file, or of a later state of theirs.
    Foreign,
}

/// Looks through a WAL. Returns what it has of the tail with this mark.
pub(in crate::buffer) fn look_through(wal: &Wal, mark: Mark) -> (State, Tail) {
    let (mut state, mut tail) = (State::Sound, Tail::new(mark));
    tail.catch_up(wal, mark);
    let (mut at, bytes) = (tail.end(), wal.bytes());
    let from = |at: u64| usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or(&[]);
    let mut unread = at;
    while at < LENGTH {
        let next = match Head::decode(from(at)) {
            Some(head) if is_foreign(head.generation, mark.generation) => {
                return (State::Foreign, tail);
            }
            Some(head) => {
                let missing = head.first.saturating_sub(tail.next());
                let is_new = head.generation == mark.generation && head.next() > tail.next();
                if is_new && missing < MISSING {
                    if missing > 0 {
                        let length = usize::try_from(at - unread).unwrap_or(0);
                        tail.push(from(unread)[..length].into());
                        tail.pad(head.first);
                    }
                    if let Some(frame) = wal.frame(at) {
                        tail.take_in(at, &frame);
                    }
                    tail.pad(head.next());
                    Some(head.end(at))
                } else {
                    None
                }
            }
            None => headless(&mut tail, from(at)).map(|length| at + length),
        };
        if let Some(next) = next {
            (state, unread) = (State::Damaged, next);
        }
        at = next.unwrap_or(at + PAGE);
    }
    if state == State::Damaged {
        tail = filled(tail, &bytes);
        tail.close();
    }
    (state, tail)
}

/// A tail of a damaged WAL with what is elsewhere in it than it should be: frames that have changed
/// places, and records without a head that belong between others.
fn filled(tail: Tail, bytes: &[u8]) -> Tail {
    let (mark, mut found) = (tail.mark(), BTreeMap::<u64, &[u8]>::new());
    let mut next = tail.next();
    let pages = || bytes.chunks(PAGE as usize).zip((0..).step_by(PAGE as usize));
    let records_at = |at: usize| records_of(bytes.get(at + HEAD..).unwrap_or(&[]));
    for (page, at) in pages() {
        let Some(head) = Head::decode(page).filter(|head| head.generation == mark.generation)
        else {
            continue;
        };
        let places = head.first..head.next().min(head.first.saturating_add(MISSING));
        for (place, record) in places.zip(records_at(at)) {
            if place >= mark.from && Header::decode(place, record).is_ok() {
                found.insert(place, record);
                next = next.max(place + 1);
            }
        }
    }
    for (_, at) in pages().filter(|(page, _)| Head::decode(page).is_none()) {
        for record in records_at(at).take(LONGEST as usize) {
            let is_there = |place: &u64| Header::decode(*place, record).is_ok();
            let Some(place) = (mark.from..next).find(is_there) else { break };
            found.insert(place, record);
        }
    }
    let mut filled = Tail::new(mark);
    for place in mark.from..next {
        match (found.get(&place), tail.record(place)) {
            (Some(record), _) => filled.push((*record).into()),
            (None, Some(record)) => filled.push(record.clone()),
            (None, None) => filled.pad(place + 1),
        }
    }
    filled
}

/// Whether a frame is of another file's WAL, or of a later state of this one.
fn is_foreign(found: u64, known: u64) -> bool {
    found > known || !is_of_same_file(found, known)
}

/// Takes in the records of a frame without a head: each is bound to its place by its own check. Returns
/// where the page begins that comes after them, if there are any.
fn headless(tail: &mut Tail, bytes: &[u8]) -> Option<u64> {
    let body = bytes.get(HEAD..)?;
    let mut end = HEAD;
    for record in records_of(body) {
        if Header::decode(tail.next(), record).is_err() {
            break;
        }
        tail.push(record.into());
        end += 4 + record.len();
    }
    (end > HEAD).then(|| (end as u64).next_multiple_of(PAGE))
}
