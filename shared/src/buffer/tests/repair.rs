//! A damaged file is made anew from its records: whichever index is wrong, and whatever page is gone.

use std::os::unix::fs::MetadataExt;

use redb::{Key, TableDefinition, Value};

use super::*;
use crate::buffer::commit::open::is_built_soundly;
use crate::buffer::disk::private::open_private_in_place;
use crate::buffer::format::layout::{IDS, LANE_STATES, LANES, READY, USER_TOTALS, USERS, WAITING};
use crate::buffer::repair::anew::{BY_ITSELF, repair};
use crate::buffer::repair::aside::{move_aside, put_in_place};
use crate::buffer::repair::turn::Turn;
use crate::buffer::tables::prepare::{Prepared, prepare};
use crate::buffer::wal::file::Wal;

/// A buffer with pending operations of several lanes, one of which waits, in tables and WAL; their ids.
async fn sample(folder: &Path) -> (Buffer, HashSet<Version>) {
    let (clock, mut ids) = (Clock::default(), HashSet::new());
    let buffer = open(folder);
    for task in 0..30 {
        ids.insert(buffer.append(operation(&clock, task % 3, create(task)), None).await.unwrap());
    }
    let first = batch(&buffer).await[0].clone();
    let not_before = unix_millis() + 60_000;
    settle(&buffer, first.place, Verdict::Retry { tries: Tries::default().failed(), not_before })
        .await;
    ids.insert(buffer.append(operation(&clock, 1, delete(7)), None).await.unwrap());
    (buffer, ids)
}

/// Takes out of a table all that it has, as no program of ours would.
fn clear<K: Key + 'static, V: Value + 'static>(
    buffer: &Buffer,
    table: TableDefinition<'static, K, V>,
) {
    let opened = buffer.handle.read().unwrap().clone();
    let transaction = opened.database.begin_write().unwrap();
    transaction.open_table(table).unwrap().retain(|_, _| false).unwrap();
    transaction.commit().unwrap();
}

async fn all_due(buffer: &Buffer) -> HashSet<Version> {
    let due = buffer.next_batch(unix_millis() + 100_000, LIMITS, HashSet::new()).await.unwrap();
    due.entries.iter().map(|entry| entry.operation.id).collect()
}

#[tokio::test]
async fn an_index_that_lost_what_it_had_is_found_wrong_and_made_anew() {
    type Damage = fn(&Buffer);
    let tables: [(&str, Damage); 7] = [
        ("lanes", |buffer| clear(buffer, LANES)),
        ("lane_states", |buffer| clear(buffer, LANE_STATES)),
        ("ready", |buffer| clear(buffer, READY)),
        ("waiting", |buffer| clear(buffer, WAITING)),
        ("ids", |buffer| clear(buffer, IDS)),
        ("users", |buffer| clear(buffer, USERS)),
        ("user_totals", |buffer| clear(buffer, USER_TOTALS)),
    ];
    for (table, damage) in tables {
        let host = Host::new();
        let (buffer, ids) = sample(host.path()).await;
        let peer = host.open();
        damage(&buffer);
        assert!(buffer.verify(|_| ()).await.unwrap().problem_count > 0, "{table}");
        assert!(buffer.check_indexes().await.unwrap().problem_count > 0, "{table}");
        let told = buffer.repair("a test", true).await.unwrap();
        assert!(told.found_damage() && told.kept_as.is_none(), "{table}");
        assert!(buffer.verify(|_| ()).await.unwrap().problem_count > 0, "{table}: still");
        let repaired = buffer.repair("a test", false).await.unwrap();
        assert!(repaired.kept_as.is_some_and(|kept| kept.exists()), "{table}");
        assert!(!buffer.repair("a test", false).await.unwrap().found_damage(), "{table}: again");
        // Another process finds the new file.
        let clock = Clock::default();
        let late = peer.append(operation(&clock, 9, create(99)), None).await.unwrap();
        audit::check(&buffer).await;
        let mut expected = ids;
        expected.insert(late);
        assert_eq!(all_due(&peer).await, expected, "{table}");
        assert_eq!(buffer.audit(1).await.unwrap()[0].kind, ActKind::Repair);
    }
}

#[tokio::test]
async fn a_buffer_whose_pending_operations_replay_cannot_find_is_stuck() {
    let host = Host::new();
    let (buffer, _) = sample(host.path()).await;
    buffer.write(|_, _| Ok(())).await.unwrap();
    assert!(!buffer.stats().await.unwrap().is_stuck);
    clear(&buffer, READY);
    assert!(buffer.stats().await.unwrap().waiting_lanes > 0);
    assert!(buffer.stats().await.unwrap().is_stuck, "those that do not wait are never found");
    clear(&buffer, WAITING);
    assert!(buffer.stats().await.unwrap().is_stuck);
    buffer.repair("a test", false).await.unwrap();
    assert!(!buffer.stats().await.unwrap().is_stuck);
}

#[tokio::test]
async fn a_page_of_records_that_is_gone_costs_only_what_was_on_it() {
    let host = Host::new();
    let (buffer, ids) = sample(host.path()).await;
    drop(buffer);
    let path = host.settings().buffer_path;
    let mut bytes = std::fs::read(&path).unwrap();
    // The last id, with the title of its record, is nowhere else than in the page of its record.
    let last = ids.iter().max().unwrap();
    let needle = last.as_uuid().to_string();
    let pages = bytes.chunks_mut(4096);
    for page in pages.filter(|page| page.windows(needle.len()).any(|it| it == needle.as_bytes())) {
        page.fill(0);
    }
    std::fs::write(&path, bytes).unwrap();
    let wal = sibling(&path, "log");
    std::fs::write(&wal, vec![0; std::fs::metadata(&wal).unwrap().len() as usize]).unwrap();
    let buffer = host.open();
    let _ = buffer.repair("a test", false).await.unwrap();
    let left = all_due(&buffer).await;
    assert!(!left.is_empty() && !left.contains(last));
    for id in &ids {
        let found = buffer.find(*id).await.unwrap();
        match left.contains(id) {
            true => assert!(matches!(found, Some(Found::Pending { .. })), "{id}"),
            false => assert!(matches!(found, Some(Found::Quarantined { .. })), "{id}: {found:?}"),
        }
    }
    audit::check(&buffer).await;
}

#[tokio::test]
async fn a_file_that_has_lost_everything_is_refused_and_begun_anew_if_that_is_wished() {
    for content in [Vec::new(), vec![7; 100_000]] {
        let host = Host::new();
        drop(sample(host.path()).await);
        let settings = host.settings();
        std::fs::write(&settings.buffer_path, &content).unwrap();
        let refused = Buffer::open(&settings).unwrap_err().to_string();
        assert!(refused.contains("BUFFER_RECREATE"), "{refused}");
        assert_eq!(std::fs::read(&settings.buffer_path).unwrap(), content, "left as it was");
        let settings = BufferSettings { buffer_recreate: true, ..settings };
        let buffer = Buffer::open(&settings).unwrap();
        assert_eq!(buffer.stats().await.unwrap().pending, 0);
        let entries = std::fs::read_dir(settings.buffer_path.parent().unwrap()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| name.contains(".damaged.")).count(), 2, "file and log");
        audit::check(&buffer).await;
    }
}

#[tokio::test]
async fn what_is_left_of_a_file_without_a_header_can_be_read_out() {
    let host = Host::new();
    let (buffer, ids) = sample(host.path()).await;
    drop(buffer);
    let settings = host.settings();
    let mut bytes = std::fs::read(&settings.buffer_path).unwrap();
    bytes[..4096].fill(0);
    std::fs::write(&settings.buffer_path, bytes).unwrap();
    Buffer::open(&settings).unwrap_err();
    let salvaged = salvage(&settings.buffer_path, &settings).unwrap();
    let buffer = Buffer::open_existing(&salvaged.settings).unwrap();
    assert_eq!(all_due(&buffer).await, ids);
}

#[tokio::test]
async fn who_opened_the_file_while_it_was_repaired_leaves_the_log_of_the_new_one() {
    let host = Host::new();
    let (buffer, mut ids) = sample(host.path()).await;
    let (settings, clock) = (host.settings(), Clock::default());
    let path = &settings.buffer_path;
    let (file, database) = BufferFile::open(path, 1 << 20).unwrap();
    repair(&settings, &buffer.keys, Mode::Anew, BY_ITSELF).unwrap();
    // Two commits: the second one goes into the WAL.
    for task in [50, 51] {
        ids.insert(buffer.append(operation(&clock, 9, create(task)), None).await.unwrap());
    }
    let wal = Wal::open(path).unwrap();
    assert_eq!(prepare(&file, &database, &wal, 0).unwrap(), Prepared::OtherFiles);
    assert!(wal.is_in_place());
    killed(buffer);
    let buffer = Buffer::open(&settings).unwrap();
    assert_eq!(all_due(&buffer).await, ids);
}

#[tokio::test]
async fn a_repair_that_cannot_take_the_place_of_the_file_leaves_nothing() {
    let host = Host::new();
    let (path, target) = (host.path().join("buffer.redb"), host.path().join("new"));
    std::fs::write(&target, "new").unwrap();
    // What is not there cannot be exchanged.
    put_in_place(&path, &target).unwrap_err();
    let entries = std::fs::read_dir(host.path()).unwrap();
    let left: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [target]);
}

#[tokio::test]
async fn a_repair_that_is_asked_for_during_a_commit_is_made() {
    let host = Host::new();
    let (buffer, _) = sample(host.path()).await;
    let queue = buffer.queue.as_ref().unwrap();
    let turn = BufferFile::open(&buffer.settings().buffer_path, 1 << 20).unwrap().1;
    let turn = turn.begin_write().unwrap();
    let mut change = std::pin::pin!(buffer.write(|_, _| Ok(())));
    assert!(futures::poll!(&mut change).is_pending());
    while queue.capacity() < queue.max_capacity() {
        std::thread::yield_now();
    }
    // The commit has begun, and waits for its turn.
    let mut repaired = std::pin::pin!(buffer.repair("a test", true));
    assert!(futures::poll!(&mut repaired).is_pending());
    turn.abort().unwrap();
    change.await.unwrap();
    let repaired = tokio::time::timeout(Duration::from_secs(20), repaired).await.unwrap();
    assert!(!repaired.unwrap().found_damage());
}

#[tokio::test]
async fn who_may_not_repair_a_damaged_file_changes_nothing_and_can_say_what_is_wrong() {
    for damage in ["counts", "header"] {
        let host = Host::new();
        let (buffer, ids) = sample(host.path()).await;
        buffer.write(|_, _| Ok(())).await.unwrap();
        let settings = BufferSettings { buffer_recreate: true, ..host.settings() };
        let path = &settings.buffer_path;
        clear(&buffer, IDS);
        clear(&buffer, USERS);
        drop(buffer);
        if damage == "header" {
            let mut bytes = std::fs::read(path).unwrap();
            // The checksum of each state.
            (bytes[64 + 112], bytes[192 + 112]) = (!bytes[64 + 112], !bytes[192 + 112]);
            std::fs::write(path, bytes).unwrap();
        }
        let files = || {
            let entries = std::fs::read_dir(path.parent().unwrap()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            (names, std::fs::metadata(path).unwrap().ino())
        };
        let before = files();
        let refused = Buffer::open_existing(&settings).unwrap_err();
        assert!(refused.is_damage(), "{refused}");
        let told = refused.to_string();
        assert!(told.contains("buffer repair") && told.contains("buffer salvage"), "{told}");
        let found = repair_refused(&settings, &refused, true, "a test").unwrap();
        assert!(found.wrong_entries > 0 && found.refused.is_some() && found.kept_as.is_none());
        assert_eq!(files(), before, "{damage}");
        let repaired = repair_refused(&settings, &refused, false, "a test").unwrap();
        assert!(repaired.kept_as.is_some());
        let buffer = Buffer::open_existing(&settings).unwrap();
        assert_eq!(all_due(&buffer).await, ids);
    }
}

#[tokio::test]
async fn a_file_is_not_taken_for_damaged_while_another_process_writes_it() {
    let host = Host::new();
    drop(sample(host.path()).await);
    let path = host.settings().buffer_path;
    let turn = Turn::take(&open_private_in_place(&path).unwrap()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let mut half_written = bytes.clone();
    half_written[..4096].fill(0);
    std::fs::write(&path, half_written).unwrap();
    let looked = {
        let path = path.clone();
        std::thread::spawn(move || is_built_soundly(&path).unwrap())
    };
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_millis(200) {
        assert!(!looked.is_finished(), "it waits for the turn");
        std::thread::yield_now();
    }
    std::fs::write(&path, bytes).unwrap();
    drop(turn);
    assert!(looked.join().unwrap());
}

#[tokio::test]
async fn a_file_that_was_made_anew_meanwhile_is_not_moved_aside() {
    let host = Host::new();
    let (buffer, ids) = sample(host.path()).await;
    let settings = host.settings();
    let refused = open_private_in_place(&settings.buffer_path).unwrap();
    buffer.write(|_, _| Ok(())).await.unwrap();
    repair(&settings, &buffer.keys, Mode::Anew, BY_ITSELF).unwrap();
    assert_eq!(move_aside(&settings.buffer_path, refused).unwrap(), None);
    assert_eq!(all_due(&buffer).await, ids);
}
