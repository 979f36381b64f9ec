//! Any damage to the bytes of a small buffer: nothing panics or is stuck, no wrong value comes out, and what
//! the damage has not hit is drained, or in quarantine.
//!
//! Each case is a number: the damage is drawn from it alone, and a failure names it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::*;
use crate::buffer::wal::file::LENGTH;
use crate::guard;

const CASES: u64 = 10_000;
const PAGE: usize = 4096;
/// What is stored beyond the time of any retry.
const FAR: i64 = 100_000_000;

/// A sound buffer, and what is in it.
struct Sample {
    file: Vec<u8>,
    wal: Vec<u8>,
    /// Every operation that was ever appended.
    operations: HashMap<Version, Operation>,
    /// Those that are pending, each with the pages of the file and the WAL that have its record.
    pending: HashMap<Version, Vec<(Part, usize)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    File,
    Wal,
}

impl Sample {
    /// Pending operations of several lanes, in the tables and in the WAL; one that waits, dead letters,
    /// one in quarantine, one that was discarded, and traces of some that were settled.
    async fn make() -> Self {
        let host = Host::new();
        let settings = host.settings();
        let (clock, mut operations) = (Clock::default(), HashMap::new());
        let buffer = Buffer::open(&settings).unwrap();
        let mut append = async |user: u128, change: Change| {
            // The same in each run, so that a case is the same damage.
            let id =
                Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + number(&operations));
            let accepted_at = chrono::DateTime::UNIX_EPOCH;
            let appended = operation(&clock, user, change);
            let appended = Operation { id: Version::from_uuid(id), accepted_at, ..appended };
            operations.insert(appended.id, appended.clone());
            buffer.append(appended, None).await.unwrap()
        };
        for task in 0..8 {
            append(task % 3, create(task)).await;
        }
        append(1, delete(3)).await;
        append(2, prefer()).await;
        for (number, entry) in batch(&buffer).await.into_iter().enumerate() {
            let reason = "not_found".to_owned();
            let not_before = unix_millis() + FAR / 2;
            match number {
                0 => {
                    settle(
                        &buffer,
                        entry.place,
                        Verdict::Retry { tries: Tries::default().failed(), not_before },
                    )
                    .await
                }
                1 | 2 => {
                    settle(
                        &buffer,
                        entry.place,
                        Verdict::Dead { tries: Tries::default().failed(), reason },
                    )
                    .await;
                }
                3 => {
                    audit::flip(&buffer, entry.place, 90).await;
                    settle(&buffer, entry.place, Verdict::Damaged(Damage::Payload)).await;
                }
                4 | 5 => settle(&buffer, entry.place, Verdict::Done).await,
                _ => {}
            }
        }
        let dead = buffer.dead_page(DeadFilter::default(), None, 10).await.unwrap();
        buffer.discard_dead(dead.items[0].operation.id, "an operator").await.unwrap();
        for task in 20..60 {
            append(task % 5, create(task)).await;
        }
        buffer.write(|_, _| Ok(())).await.unwrap();
        for task in [20, 21, 70, 71] {
            append(task % 5, delete(task)).await;
        }
        let mut pending = HashMap::new();
        let page = buffer.pending_page(PendingFilter::default(), None, 1000).await.unwrap();
        let opened = buffer.handle.read().unwrap().clone();
        let snapshot = Snapshot::take(&opened).unwrap();
        killed(buffer);
        let file = std::fs::read(&settings.buffer_path).unwrap();
        let wal = std::fs::read(sibling(&settings.buffer_path, "log")).unwrap();
        for entry in page.items {
            let record = snapshot.records().unwrap().get(entry.place).unwrap().unwrap();
            let in_file = found(&file, &record).map(|page| (Part::File, page));
            let in_wal = found(&wal, &record).map(|page| (Part::Wal, page));
            let pages: Vec<_> = in_file.chain(in_wal).collect();
            assert!(!pages.is_empty());
            pending.insert(entry.operation.id, pages);
        }
        let end = wal.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        let wal = wal[..(end + 1).next_multiple_of(PAGE)].to_vec();
        Self { file, wal, operations, pending }
    }
}

fn number(operations: &HashMap<Version, Operation>) -> u128 {
    operations.len() as u128
}

/// The pages that have these bytes, none of which goes over a page's end.
fn found<'a>(bytes: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let pages = bytes.chunks(PAGE).enumerate();
    let has = move |page: &[u8]| page.windows(wanted.len()).any(|window| window == wanted);
    pages.filter(move |(_, page)| has(page)).map(|(number, _)| number)
}

/// Numbers drawn from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut number = self.0;
        number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ number >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end.max(1) as u64).unwrap()
    }
}

/// Damages bytes once. Pages that were nothing but zeros are not worth it.
fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let used: Vec<usize> = bytes
        .chunks(PAGE)
        .enumerate()
        .filter(|(_, page)| **page != [0; PAGE][..page.len()])
        .map(|(number, _)| number * PAGE)
        .collect();
    let Some(page) = used.get(dice.below(used.len())).copied() else { return };
    let length = PAGE.min(bytes.len() - page);
    let at = page + dice.below(length);
    match dice.below(8) {
        0 | 1 => bytes[at] ^= 1 << dice.below(8),
        // In the head of the page, where it says what it is.
        2 => bytes[page + dice.below(length.min(64))] = dice.below(256) as u8,
        3 => bytes[page..page + length].fill(0),
        4 => {
            let end = at + dice.below(page + length - at);
            bytes[at..end].fill_with(|| dice.below(256) as u8);
        }
        5 => {
            // A page in the place of another.
            let from = used[dice.below(used.len())];
            let length = length.min(bytes.len() - from);
            bytes.copy_within(from..from + length, page);
        }
        6 => {
            let other = used[dice.below(used.len())];
            let length = length.min(bytes.len() - other);
            for offset in 0..length {
                bytes.swap(page + offset, other + offset);
            }
        }
        _ if dice.below(4) == 0 => bytes.truncate(at),
        _ => bytes[at] = 0,
    }
}

/// Which pages are as they were.
fn is_intact(before: &[u8], after: &[u8], page: usize) -> bool {
    let range = page * PAGE..((page + 1) * PAGE).min(before.len());
    after.get(range.clone()) == before.get(range)
}

async fn play(sample: &Sample, case: u64, folder: &Path) {
    let (mut file, mut wal, mut dice) = (sample.file.clone(), sample.wal.clone(), Dice(case));
    for _ in 0..=dice.below(3) {
        let part = if dice.below(4) == 0 { &mut wal } else { &mut file };
        damage(part, &mut dice);
    }
    let settings = settings(folder);
    let path = &settings.buffer_path;
    private_folder(path).unwrap();
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = entry.unwrap().path();
        // It takes longer to lay than all the rest.
        if file != sibling(path, "ballast") {
            std::fs::remove_file(file).unwrap();
        }
    }
    for (path, bytes) in [(path.clone(), &file), (sibling(path, "log"), &wal)] {
        drop(open_private(&path).unwrap());
        std::fs::write(path, bytes).unwrap();
    }
    let cut = sample.wal.len() != wal.len();
    if !cut {
        std::fs::OpenOptions::new()
            .write(true)
            .open(sibling(path, "log"))
            .unwrap()
            .set_len(LENGTH)
            .unwrap();
    }
    let must_be_there = sample.pending.iter().filter(|(_, pages)| {
        pages.iter().any(|(part, page)| match part {
            Part::File => is_intact(&sample.file, &file, *page),
            Part::Wal => is_intact(&sample.wal, &wal, *page),
        })
    });
    let must_be_there: HashSet<Version> = must_be_there.map(|(id, _)| *id).collect();
    let (buffer, _salvaged) = match Buffer::open(&settings) {
        Ok(buffer) => (buffer, None),
        Err(error) => {
            assert!(error.is_damage(), "case {case}: {error}");
            let salvaged = salvage(path, &settings).unwrap();
            (Buffer::open(&salvaged.settings).unwrap(), Some(salvaged))
        }
    };
    let found = drain(&buffer, sample, case).await;
    let lost: Vec<_> = must_be_there.difference(&found).collect();
    let pages: Vec<_> = lost.iter().map(|id| &sample.pending[*id]).collect();
    assert!(lost.is_empty(), "case {case}: lost {pages:?}");
    drop(buffer);
}

/// Drains a buffer to its end, repairing it where that does not go on. Returns what came out, or lies in
/// quarantine.
async fn drain(buffer: &Buffer, sample: &Sample, case: u64) -> HashSet<Version> {
    let (mut found, mut repairs) = (HashSet::new(), 0);
    // As the worker does after its start.
    if !buffer.check_indexes().await.is_ok_and(|found| found.problem_count == 0) {
        buffer.repair("a test", false).await.unwrap();
    }
    loop {
        let due = buffer.next_batch(unix_millis() + FAR, LIMITS, HashSet::new()).await;
        let settled = match due {
            Ok(due) => {
                let done = due
                    .entries
                    .iter()
                    .map(|it| Settlement { place: it.place, verdict: Verdict::Done });
                let aside = due.damaged.iter();
                let aside = aside.map(|(place, it)| Settlement {
                    place: *place,
                    verdict: Verdict::Damaged(*it),
                });
                let settlements: Vec<_> = done.chain(aside).collect();
                let is_empty = settlements.is_empty();
                for entry in &due.entries {
                    let expected = sample.operations.get(&entry.operation.id);
                    assert_eq!(expected, Some(&entry.operation), "case {case}");
                    found.insert(entry.operation.id);
                }
                let pending = buffer.stats().await.map_or(1, |stats| stats.pending);
                if is_empty && pending == 0 {
                    break;
                }
                !is_empty && buffer.settle(settlements).await.is_ok()
            }
            Err(_) => false,
        };
        if !settled {
            repairs += 1;
            assert!(repairs < 4, "case {case}: stuck");
            buffer.repair("a test", false).await.unwrap();
        }
    }
    for id in sample.pending.keys() {
        if matches!(buffer.find(*id).await, Ok(Some(Found::Quarantined { .. }))) {
            found.insert(*id);
        }
    }
    let dead = match buffer.dead_page(DeadFilter::default(), None, 100).await {
        Ok(dead) => dead,
        // Nothing has read those before.
        Err(_) => {
            buffer.repair("a test", false).await.unwrap();
            buffer.dead_page(DeadFilter::default(), None, 100).await.unwrap()
        }
    };
    for letter in dead.items {
        assert_eq!(sample.operations.get(&letter.operation.id), Some(&letter.operation));
    }
    found
}

/// A folder in memory, if there is one: nothing here is about the disk.
fn scratch() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Plays a quarter of all cases.
fn play_from(first: u64) {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    guard::install();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sample = SAMPLE.get_or_init(|| runtime.block_on(Sample::make()));
    let folder = scratch();
    for case in (first..CASES).step_by(4) {
        runtime.block_on(play(sample, case, folder.path()));
    }
}

// Four of them, so that they and all other tests use the processors evenly.

#[test]
fn no_damage_of_the_first_quarter_makes_anything_panic_stuck_or_wrong() {
    play_from(0);
}

#[test]
fn no_damage_of_the_second_quarter_makes_anything_panic_stuck_or_wrong() {
    play_from(1);
}

#[test]
fn no_damage_of_the_third_quarter_makes_anything_panic_stuck_or_wrong() {
    play_from(2);
}

#[test]
fn no_damage_of_the_fourth_quarter_makes_anything_panic_stuck_or_wrong() {
    play_from(3);
}
