//! The buffer at rest: records sealed with keys, keys exchanged, users erased; and what is then to be
//! found in the bytes of the files.

use redb::ReadableTable;

use super::*;

const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "new:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
/// Another key under the same id.
const WRONG: &str = "old:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
const MARKER: &str = "canary-9b1f";

fn with_keys(folder: &Path, list: &[&str]) -> Buffer {
    let keys = Some(list.join(",")).filter(|list| !list.is_empty());
    let buffer_keys = keys.map(Into::into);
    Buffer::open(&BufferSettings { buffer_keys, ..settings(folder) }).unwrap()
}

/// A write with the marker wherever a user can write something, of about this many bytes.
fn marked(number: u128, length: usize) -> Change {
    let text = format!("{MARKER} {number} ").repeat(length / 16 + 1);
    let fields = TaskFields {
        title: Title::stored(format!("{MARKER} {number}")),
        description: Some(Description::stored(text.clone())),
        status: TaskStatus::Pending,
    };
    if number.is_multiple_of(3) {
        let value = serde_json::Value::String(text.chars().take(6000).collect());
        let map: serde_json::Map<_, _> = [("theme".to_owned(), value)].into_iter().collect();
        return Change::Profile(ProfileChange::Put {
            preferences: Preferences::try_from(map).unwrap(),
        });
    }
    Change::Task(TaskChange::Create { task_id: Uuid::from_u128(number), fields })
}

/// How often the marker stands in the files of the buffer's folder.
fn found(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder.join("data")).unwrap();
    let bytes = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let count = |bytes: Vec<u8>| {
        bytes.windows(MARKER.len()).filter(|window| *window == MARKER.as_bytes()).count()
    };
    bytes.map(count).sum()
}

async fn damage(buffer: &Buffer) -> Vec<Damage> {
    let batch = buffer.next_batch(unix_millis(), LIMITS, HashSet::new()).await.unwrap();
    batch.damaged.iter().map(|(_, damage)| *damage).collect()
}

async fn quarantine_all(buffer: &Buffer) {
    while !set_damaged_aside(buffer).await.is_empty() {}
}

#[tokio::test]
async fn sealed_records_are_not_in_the_file_and_need_their_key() {
    let host = Host::new();
    let clock = Clock::default();
    let plain = with_keys(host.path(), &[]);
    let before = plain.append(operation(&clock, 1, create(1)), None).await.unwrap();
    drop(plain);
    let sealing = with_keys(host.path(), &[OLD]);
    let id = sealing.append(operation(&clock, 1, marked(2, 100)), None).await.unwrap();
    assert_eq!(found(host.path()), 0);
    let ids: HashSet<Version> = batch(&sealing).await.iter().map(|e| e.operation.id).collect();
    assert_eq!(ids, HashSet::from([before, id]), "records from before the keys stay readable");
    audit::check(&sealing).await;
    for (keys, expected) in [
        (vec![NEW, OLD], None),
        (vec![], Some(Damage::UnknownKey)),
        (vec![NEW], Some(Damage::UnknownKey)),
        (vec![WRONG], Some(Damage::Seal)),
    ] {
        let other = with_keys(host.path(), &keys);
        assert_eq!(damage(&other).await.first().copied(), expected, "{keys:?}");
        let plain = Lane { kind: EntityKind::Task, id: Uuid::from_u128(1) };
        assert_eq!(other.lane(plain).await.unwrap().len(), 1, "{keys:?}");
    }
}

#[tokio::test]
async fn swapped_sealed_records_are_set_aside() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = with_keys(host.path(), &[OLD]);
    for task in [1, 2] {
        buffer.append(operation(&clock, 1, create(task)), None).await.unwrap();
    }
    let swap = |tables: &mut Tables<'_>, _: &Room| {
        let [one, two] =
            [0, 1].map(|place| tables.records.get(place).unwrap().unwrap().value().to_vec());
        tables.records.insert(0, two.as_slice()).unwrap();
        tables.records.insert(1, one.as_slice()).unwrap();
        Ok(())
    };
    buffer.write(swap).await.unwrap();
    assert_eq!(damage(&buffer).await, [Damage::Header, Damage::Header]);
    quarantine_all(&buffer).await;
    assert_eq!(buffer.stats().await.unwrap().quarantined, 2);
    audit::check(&buffer).await;
}

#[tokio::test]
async fn what_a_wrong_key_set_aside_is_put_back_once_the_right_one_is_there() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = with_keys(host.path(), &[OLD]);
    let written = operation(&clock, 1, marked(1, 100));
    let id = buffer.append(written.clone(), None).await.unwrap();
    drop(buffer);
    let wrong = with_keys(host.path(), &[WRONG]);
    quarantine_all(&wrong).await;
    assert!(matches!(wrong.retry_dead(id, "me").await, Err(OperatorError::Quarantined)));
    drop(wrong);
    let right = with_keys(host.path(), &[NEW, OLD]);
    let later = right.append(operation(&clock, 1, delete(1)), None).await.unwrap();
    right.retry_dead(id, "me").await.unwrap();
    let stats = right.stats().await.unwrap();
    assert_eq!((stats.pending, stats.quarantined), (2, 0));
    let order: Vec<Version> = batch(&right).await.iter().map(|e| e.operation.id).collect();
    assert_eq!(order, [later, id], "at the end of its lane");
    assert_eq!(batch(&right).await[1].operation, written);
    let acts = right.audit(1).await.unwrap();
    assert_eq!((acts[0].kind, acts[0].by.as_str()), (ActKind::Retry, "me"));
    audit::check(&right).await;
    assert!(matches!(right.retry_dead(id, "me").await, Err(OperatorError::Pending)));
}

#[tokio::test]
async fn rekey_seals_everything_with_the_newest_key_and_leaves_nothing_of_before() {
    let host = Host::new();
    let clock = Clock::default();
    let plain = with_keys(host.path(), &[]);
    assert!(matches!(plain.rekey("me", |_| ()).await, Err(RekeyError::NoKeys)));
    let mut ids = Vec::new();
    for number in 1..40 {
        let length = if number % 10 == 0 { 20_000 } else { 200 };
        let written = operation(&clock, 1 + number % 3, marked(number, length));
        ids.push(plain.append(written, None).await.unwrap());
    }
    let place = batch(&plain).await[0].place;
    settle(
        &plain,
        place,
        Verdict::Dead { tries: Tries::default().failed(), reason: "not_found".to_owned() },
    )
    .await;
    let retried = batch(&plain).await[0].place;
    let verdict = Verdict::Retry { tries: Tries { attempts: 2, waits: 0 }, not_before: 77 };
    settle(&plain, retried, verdict).await;
    drop(plain);
    let both = with_keys(host.path(), &[OLD]);
    ids.push(both.append(operation(&clock, 1, marked(50, 200)), None).await.unwrap());
    let before = batch(&both).await;
    drop(both);
    assert!(found(host.path()) > 0);

    let both = with_keys(host.path(), &[NEW, OLD]);
    ids.push(both.append(operation(&clock, 1, marked(51, 200)), None).await.unwrap());
    let seen = std::cell::Cell::new(0);
    let done = both.rekey("me", |count| seen.set(count)).await.unwrap();
    assert_eq!((done.seen, done.pending, done.dead, done.unreadable), (41, 39, 1, 0));
    assert_eq!(seen.get(), 41);
    assert_eq!(both.audit(1).await.unwrap()[0].kind, ActKind::Rekey);
    drop(both);

    assert_eq!(found(host.path()), 0);
    let new = with_keys(host.path(), &[NEW]);
    audit::check(&new).await;
    let after = batch(&new).await;
    assert_eq!(after.len(), before.len() + 1);
    let same = |e: &Entry| (e.place, e.tries, e.queued_at, e.not_before, e.operation.clone());
    for entry in &before {
        assert!(after.iter().any(|other| same(other) == same(entry)), "{}", entry.place);
    }
    for id in ids {
        let found = new.find(id).await.unwrap();
        assert!(matches!(found, Some(Found::Pending { .. } | Found::Dead(_))), "{found:?}");
    }
    assert_eq!(new.rekey("me", |_| ()).await.unwrap(), Rekeyed { seen: 41, ..Default::default() });
}

/// A file with operations of two users side by side: pending, dead, quarantined, drained; of user 1
/// with the marker. What is left of user 2, by id.
async fn two_users(buffer: &Buffer, clock: &Clock) -> (Vec<Version>, Vec<Operation>) {
    let (mut erased, mut kept) = (Vec::new(), Vec::new());
    for number in 0..120_u128 {
        let length = [100, 300, 5000, 40_000][usize::try_from(number % 4).unwrap()];
        let written = operation(clock, 1, marked(number, length));
        erased.push(buffer.append(written, None).await.unwrap());
        let other = operation(clock, 2, create(1000 + number));
        buffer.append(other.clone(), None).await.unwrap();
        kept.push(other);
    }
    let limits = BatchLimits { operations: 60, ..LIMITS };
    let all = buffer.next_batch(unix_millis(), limits, HashSet::new()).await.unwrap().entries;
    // In one transaction each, so that pages are changed more than once in it.
    let verdict = |place, kind: u64| match kind {
        0 => Settlement { place, verdict: Verdict::Done },
        1 => {
            let reason = "not_found".to_owned();
            Settlement {
                place,
                verdict: Verdict::Dead { tries: Tries::default().failed(), reason },
            }
        }
        _ => Settlement { place, verdict: Verdict::Damaged(Damage::Undecodable) },
    };
    for (kind, entries) in (0..).zip(all.chunks(20)) {
        let settlements = entries.iter().map(|entry| verdict(entry.place, kind)).collect();
        buffer.settle(settlements).await.unwrap();
        if kind == 0 {
            kept.retain(|kept| !entries.iter().any(|e| e.operation.id == kept.id));
            erased.retain(|id| !entries.iter().any(|e| e.operation.id == *id));
        }
    }
    (erased, kept)
}

#[tokio::test]
async fn an_erased_user_leaves_no_byte_and_others_stay() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = with_keys(host.path(), &[]);
    let (gone, kept) = two_users(&buffer, &clock).await;
    let stats = buffer.stats().await.unwrap();
    assert!(stats.pending > 100 && stats.dead == 20 && stats.quarantined == 20, "{stats:?}");
    let length = || std::fs::metadata(&buffer.settings().buffer_path).unwrap().len();
    let before = length();
    assert!(found(host.path()) > 0);

    let erased = buffer.erase_user(Uuid::from_u128(1), "me").await.unwrap();

    assert_eq!(erased.pending + erased.dead + erased.quarantined, gone.len() as u64);
    assert_eq!(found(host.path()), 0);
    assert!(length() <= 2 * before, "{} and {before} before", length());
    audit::check(&buffer).await;
    for id in gone {
        match buffer.find(id).await.unwrap() {
            Some(Found::Discarded(act)) => {
                assert_eq!((act.kind, act.by.as_str()), (ActKind::Erase, "me"));
                assert_eq!(act.operation.unwrap().reason, "erased");
            }
            found => panic!("{id}: {found:?}"),
        }
    }
    for operation in kept {
        match buffer.find(operation.id).await.unwrap() {
            Some(Found::Pending { operation: found, .. }) => assert_eq!(found, operation),
            Some(Found::Dead(letter)) => assert_eq!(letter.operation, operation),
            Some(Found::Quarantined { of }) => assert!(of.is_some()),
            found => panic!("{found:?}"),
        }
    }
    assert_eq!(buffer.erase_user(Uuid::from_u128(1), "me").await.unwrap(), Erased::default());
}

#[tokio::test]
async fn what_comes_in_while_a_user_is_erased_is_erased_or_pending_and_nothing_is_lost() {
    let host = Host::new();
    let clock = Arc::new(Clock::default());
    let buffer = Arc::new(with_keys(host.path(), &[OLD]));
    let appending = tokio::spawn({
        let (buffer, clock) = (Arc::clone(&buffer), Arc::clone(&clock));
        async move {
            let mut ids = Vec::new();
            for number in 0..60 {
                let written = operation(&clock, 1 + number % 2, create(number));
                ids.push((number % 2, buffer.append(written, None).await.unwrap()));
            }
            ids
        }
    });
    let erased = buffer.erase_user(Uuid::from_u128(1), "me").await.unwrap();
    let (mut left, mut others) = (0, 0);
    for (user, id) in appending.await.unwrap() {
        match buffer.find(id).await.unwrap() {
            Some(Found::Pending { .. }) if user == 0 => left += 1,
            Some(Found::Pending { .. }) => others += 1,
            Some(Found::Discarded(_)) => assert_eq!(user, 0),
            found => panic!("{found:?}"),
        }
    }
    assert_eq!((erased.pending + left, others), (30, 30));
    audit::check(&buffer).await;
}

#[tokio::test]
async fn a_user_is_not_erased_before_nobody_reads_an_old_state_of_the_file() {
    let host = Host::new();
    let clock = Clock::default();
    let buffer = Arc::new(with_keys(host.path(), &[]));
    let peer = host.open();
    for number in 0..60 {
        buffer.append(operation(&clock, 1, marked(number, 3000)), None).await.unwrap();
    }
    let reading = Snapshot::take(&peer.handle.read().unwrap()).unwrap();
    let length = || std::fs::metadata(&buffer.settings().buffer_path).unwrap().len();
    let before = length();
    let erasing = tokio::spawn({
        let buffer = Arc::clone(&buffer);
        async move { buffer.erase_user(Uuid::from_u128(1), "me").await }
    });
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while length() == before || buffer.stats().await.unwrap().pending > 0 {
        assert!(std::time::Instant::now() < deadline, "the free pages were never filled");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(found(host.path()) > 0 && !erasing.is_finished());
    drop(reading);
    assert_eq!(erasing.await.unwrap().unwrap().pending, 60);
    assert_eq!(found(host.path()), 0);
}
