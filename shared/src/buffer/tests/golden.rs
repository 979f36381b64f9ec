//! Records that earlier programs wrote stay readable: one golden file for each format version. A
//! file that stands here is never changed; a new format adds one.

use super::*;
use crate::buffer::format::record::{Header, Payload, decode, encode, encode_payload, seal_with};
use crate::domain::{CacheChange, SessionChange, TaskPatch, UserChange};

const FORMAT_1: &str = include_str!("golden/format-1.hex");
/// Kinds of operations that came later.
const FORMAT_1_LATER: &str = include_str!("golden/format-1-later.hex");
/// Sealed with the key below, each with a nonce of bytes that are its number.
const FORMAT_1_SEALED: &str = include_str!("golden/format-1-sealed.hex");
const KEY: &str = "golden:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// One operation of each of the first kinds, with everything that may be left out both there and not.
fn operations() -> Vec<Operation> {
    let task_id = Uuid::from_u128(0x10);
    let fields = TaskFields {
        title: Title::stored("Rope, 30 m \u{2693}".to_owned()),
        description: Some(Description::stored("line\nbreak \"quoted\"".to_owned())),
        status: TaskStatus::InProgress,
    };
    let if_match = Some(Version::from_uuid(Uuid::from_u128(0x11)));
    let cleared = TaskPatch { description: Some(None), ..TaskPatch::default() };
    let preferences = match serde_json::json!({"theme": "dark", "n": [1, null, {"a": 0.5}]}) {
        serde_json::Value::Object(map) => Preferences::try_from(map).unwrap(),
        other => panic!("{other}"),
    };
    let changes = [
        Change::Task(TaskChange::Create { task_id, fields: fields.clone() }),
        Change::Task(TaskChange::Replace { task_id, fields, if_match }),
        Change::Task(TaskChange::Patch { task_id, patch: cleared, if_match: None }),
        Change::Task(TaskChange::Delete { task_id, if_match }),
        Change::Profile(ProfileChange::Put { preferences: preferences.clone() }),
        Change::Profile(ProfileChange::Patch { preferences }),
    ];
    numbered(changes)
}

/// One operation of each kind that came later.
fn later_operations() -> Vec<Operation> {
    let user_id = Uuid::from_u128(0x23);
    numbered([
        Change::User(UserChange::SetStanding { user_id, role: Some(Role::Admin), standing: None }),
        Change::User(UserChange::Erase { user_id }),
        Change::Session(SessionChange::Revoke { session_id: Uuid::from_u128(0x24) }),
        Change::Cache(CacheChange::Invalidate),
    ])
}

fn numbered(changes: impl IntoIterator<Item = Change>) -> Vec<Operation> {
    let numbered = changes.into_iter().enumerate();
    numbered
        .map(|(number, change)| Operation {
            id: Version::from_uuid(Uuid::from_u128(0x0190_0000_0000_7000_8000 + number as u128)),
            actor: Actor {
                user_id: Uuid::from_u128(0x20),
                role: Role::Operator,
                session_id: (number % 2 == 0).then(|| Uuid::from_u128(0x21)),
            },
            change,
            accepted_at: chrono::DateTime::from_timestamp_millis(1_795_204_737_529).unwrap(),
            request_id: Uuid::from_u128(0x22),
            traceparent: (number % 2 == 1).then(|| "00-4bf9-00f0-01".to_owned()),
        })
        .collect()
}

fn records(
    operations: Vec<Operation>,
    payload: impl Fn(u64, &Operation) -> Payload,
) -> Vec<Vec<u8>> {
    let numbered = (0_u64..).zip(operations);
    numbered
        .map(|(place, operation)| {
            let header = Header {
                tries: Tries { attempts: 2, waits: 0 },
                not_before: 7,
                ..Header::of(&operation, 1_795_204_737_529)
            };
            encode(place, &header, &payload(place, &operation))
        })
        .collect()
}

#[test]
fn waits_stand_in_the_fourth_byte_which_was_zero_before_there_were_any() {
    let operation = operations().remove(0);
    let tries = Tries { attempts: 2, waits: 9 };
    let header = Header { tries, ..Header::of(&operation, 1_795_204_737_529) };
    let payload = encode_payload(&operation, &Keys::default()).unwrap();
    let mut record = encode(7, &header, &payload);
    assert_eq!(record[3], 9);
    assert_eq!(Header::decode(7, &record).unwrap().tries, tries);
    record[3] = 0;
    assert!(Header::decode(7, &record).is_err(), "the checksum covers it");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check(golden: &str, operations: Vec<Operation>, written: &[Vec<u8>], keys: &Keys) {
    let written: Vec<String> = written.iter().map(|record| hex(record)).collect();
    let golden: Vec<&str> = golden.lines().collect();
    assert_eq!(written, golden, "the format changed without a new version");
    for ((place, line), operation) in (0_u64..).zip(golden).zip(operations) {
        let bytes: Vec<u8> = (0..line.len() / 2)
            .map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let (header, read) = decode(place, &bytes, keys).unwrap();
        assert_eq!(read, operation);
        assert_eq!((header.tries.attempts, header.not_before), (2, 7));
    }
}

#[test]
fn records_of_format_1_are_read_and_written_as_ever() {
    let none = Keys::default();
    for (golden, operations) in [(FORMAT_1, operations()), (FORMAT_1_LATER, later_operations())] {
        let plain = |_, operation: &Operation| encode_payload(operation, &none).unwrap();
        let written = records(operations.clone(), plain);
        check(golden, operations.clone(), &written, &none);
        check(golden, operations, &written, &Keys::parse(Some(&KEY.into())).unwrap());
    }
}

#[test]
fn sealed_records_of_format_1_are_read_and_written_as_ever() {
    let keys = Keys::parse(Some(&KEY.into())).unwrap();
    let nonce = |place: u64| [u8::try_from(place).unwrap(); 24];
    let sealed = |place, operation: &Operation| seal_with(nonce(place), operation, &keys).unwrap();
    check(FORMAT_1_SEALED, operations(), &records(operations(), sealed), &keys);
}
