//! Batches of nothing but creates have a statement of their own, which looks for nothing before it
//! writes. What is in its way must come to what it comes to in any other batch.

use shared::domain::{Change, Clock, Operation, Outcome, Refusal, TaskChange};
use shared::store::Source;
use uuid::Uuid;

use crate::node::{Database, fields, operation};
use crate::story::user;

fn create(clock: &Clock, user_id: Uuid) -> Operation {
    let change = Change::Task(TaskChange::Create {
        task_id: clock.next().as_uuid(),
        fields: fields("a task"),
    });
    operation(clock.next(), user_id, change)
}

/// Applies a batch; the outcomes.
async fn apply(database: &Database, batch: &[&Operation]) -> Vec<Option<Outcome>> {
    let mut operations: Vec<Operation> = batch.iter().copied().cloned().collect();
    let applied = database.store.apply(&mut operations, Source::Replay).await;
    assert_eq!(applied.error, None);
    applied.effects.into_iter().map(|effect| effect.outcome).collect()
}

#[tokio::test]
async fn what_is_in_the_way_of_a_batch_of_creates_settles_as_in_any_other() {
    let database = Database::start().await;
    let (clock, one, other) = (Clock::default(), user(), user());
    let creates: Vec<Operation> = (0..6).map(|_| create(&clock, one)).collect();
    let of_other = create(&clock, other);
    let (applied, duplicate) = (Some(Outcome::Applied), Some(Outcome::Duplicate));

    assert_eq!(apply(&database, &[&creates[0], &creates[1]]).await, [applied, applied]);
    let again = [&creates[1], &creates[2]];
    assert_eq!(apply(&database, &again).await, [duplicate, applied], "a lost acknowledgement");
    let same_task = Operation { id: clock.next(), ..creates[2].clone() };
    let outcomes = apply(&database, &[&same_task, &creates[3]]).await;
    assert_eq!(outcomes, [duplicate, applied], "a task that is there");
    assert_eq!(database.postgres.psql("SELECT count(*) FROM tasks").await, "4");

    // As in a database that was restored from before the user was first seen.
    let lost = "DELETE FROM operations; DELETE FROM tasks; DELETE FROM users";
    database.postgres.psql(lost).await;
    assert_eq!(apply(&database, &[&creates[4]]).await, [applied], "a user who is not there");
    let ledger = database.ledger(&[creates[4].lane().id]).await;
    assert_eq!(ledger.len(), 1);

    database.postgres.psql("UPDATE users SET status = 'suspended'").await;
    let suspended = Some(Outcome::Refused(Refusal::Suspended));
    let outcomes = apply(&database, &[&creates[5], &of_other]).await;
    assert_eq!(outcomes, [suspended, applied], "a user who was suspended");
    assert_eq!(database.postgres.psql("SELECT count(*) FROM tasks").await, "2");
}
