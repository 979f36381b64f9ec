//! Folding a lane: what it costs to lay pending operations over a task.
//! `cargo bench -p shared --bench fold`

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use shared::domain::{
    Actor, Change, Clock, Operation, Role, TaskChange, TaskFields, TaskPatch, TaskStatus, Title,
    apply_to_task,
};
use uuid::Uuid;

fn main() {
    divan::main();
}

/// A create, then changes of the title.
fn lane(length: usize) -> Vec<Operation> {
    let clock = Clock::default();
    let task_id = clock.next().as_uuid();
    let title = |number: usize| Title::stored(format!("Water the plants {number}"));
    let change = |number: usize| match number {
        0 => {
            let status = TaskStatus::Pending;
            let fields = TaskFields { title: title(0), description: None, status };
            Change::Task(TaskChange::Create { task_id, fields })
        }
        _ => {
            let patch = TaskPatch { title: Some(title(number)), description: None, status: None };
            Change::Task(TaskChange::Patch { task_id, patch, if_match: None })
        }
    };
    let actor = Actor { user_id: Uuid::from_u128(1), role: Role::User, session_id: None };
    let operation = |number| Operation {
        id: clock.next(),
        actor,
        change: change(number),
        accepted_at: chrono::Utc::now(),
        request_id: Uuid::nil(),
        traceparent: None,
    };
    (0..length).map(operation).collect()
}

/// All operations of a lane, one after the other, onto no task.
#[divan::bench(args = [1, 10, 100])]
fn fold(bencher: Bencher<'_, '_>, length: usize) {
    let operations = lane(length);
    bencher.counter(ItemsCount::new(length)).bench(|| {
        let mut task = None;
        for operation in black_box(&operations) {
            black_box(apply_to_task(&mut task, operation));
        }
        task
    });
}
