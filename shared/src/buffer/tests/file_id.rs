//! Which file it is, how far it has come, and what is oldest in it.

use super::*;

#[tokio::test]
async fn a_file_keeps_its_number_and_its_generation_grows_with_what_it_takes_in() {
    let host = Host::new();
    let buffer = host.open();
    let (clock, before) = (Clock::default(), buffer.file_id().await.unwrap());
    buffer.append(operation(&clock, 1, create(1)), None).await.unwrap();
    buffer.next_batch(unix_millis(), LIMITS, HashSet::new()).await.unwrap();
    let after = buffer.file_id().await.unwrap();
    assert_eq!(after.file, before.file);
    assert!(after.generation > before.generation);
    drop(buffer);
    let again = host.open();
    assert!(again.file_id().await.unwrap().generation >= after.generation);
}

#[tokio::test]
async fn the_oldest_is_told_in_log_and_tables_and_spared_lanes_are_passed_over() {
    let host = Host::new();
    let buffer = host.open();
    let clock = Clock::default();
    let oldest = async |spared: &[Lane]| {
        buffer.oldest_task_but(spared.iter().copied().collect()).await.unwrap()
    };
    buffer.append(operation(&clock, 1, prefer()), None).await.unwrap();
    assert_eq!(oldest(&[]).await, None, "a profile");
    let first = operation(&clock, 1, create(1));
    let lane = first.lane();
    buffer.append(first, None).await.unwrap();
    let batch = buffer.next_batch(unix_millis(), LIMITS, HashSet::new()).await.unwrap();
    assert_eq!(oldest(&[]).await, Some(batch.entries[0].queued_at));
    assert_eq!(oldest(&[lane]).await, None);
    buffer.append(operation(&clock, 1, create(2)), None).await.unwrap();
    assert!(oldest(&[lane]).await >= oldest(&[]).await);
    let settled = Settlement { place: batch.entries[0].place, verdict: Verdict::Done };
    buffer.settle(vec![settled]).await.unwrap();
    assert!(oldest(&[]).await.is_some());
}
