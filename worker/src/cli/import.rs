//! `buffer import`: takes operations in that were written out, each under its own id, in the order in which
//! they were written, which is that of their acceptance.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use futures::future::join_all;
use serde::Deserialize;
use serde_json::json;
use shared::buffer::{Buffer, BufferError};
use shared::domain::{Actor, Change, Operation, OperationState, Role, Version};
use uuid::Uuid;

use super::output::{json_line, line};
use super::{Format, operator};

/// Operations that are on their way to the file at once: they share commits.
const CHUNK: usize = 500;
/// Refusals that are told one by one.
const TOLD: usize = 20;

/// An operation as it was written out.
#[derive(Debug, Deserialize)]
struct Written {
    id: Version,
    state: OperationState,
    user_id: Uuid,
    role: Role,
    session_id: Option<Uuid>,
    accepted_at: DateTime<Utc>,
    request_id: Uuid,
    traceparent: Option<String>,
    payload: Change,
}

impl Written {
    fn operation(self) -> Operation {
        let (user_id, role, session_id) = (self.user_id, self.role, self.session_id);
        Operation {
            id: self.id,
            actor: Actor { user_id, role, session_id },
            change: self.payload,
            accepted_at: self.accepted_at,
            request_id: self.request_id,
            traceparent: self.traceparent,
        }
    }
}

/// What became of all lines.
#[derive(Debug, Default)]
struct Tally {
    taken: u64,
    known: u64,
    dead: u64,
    refused: u64,
    problems: Vec<String>,
}

impl Tally {
    fn refused(&mut self, problem: String) {
        self.refused += 1;
        if self.problems.len() < TOLD {
            self.problems.push(problem);
        }
    }
}

pub(super) async fn import(
    format: Format,
    buffer: &Buffer,
    file: &Path,
    dead: bool,
) -> anyhow::Result<()> {
    let lines: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let opened = File::open(file).with_context(|| file.display().to_string())?;
        Box::new(BufReader::new(opened))
    };
    let (mut tally, mut chunk) = (Tally::default(), Vec::new());
    for (number, text) in (1_u64..).zip(lines.lines()) {
        match serde_json::from_str::<Written>(&text?) {
            Ok(written) if written.state == OperationState::Pending || dead => {
                chunk.push(written.operation());
            }
            Ok(_) => tally.dead += 1,
            Err(error) => tally.refused(format!("line {number}: {error}")),
        }
        if chunk.len() == CHUNK {
            take_in(buffer, std::mem::take(&mut chunk), &mut tally).await?;
        }
    }
    take_in(buffer, chunk, &mut tally).await?;
    buffer.note_import(&operator()).await?;
    let Tally { taken, known, dead, refused, problems } = tally;
    if format.json {
        json_line(&json!({
            "taken": taken, "already_there": known, "dead_left_out": dead, "refused": refused,
            "problems": problems,
        }))?;
    } else {
        problems.iter().try_for_each(|problem| line(problem))?;
        line(&format!(
            "took in {taken}; {known} were there already, {dead} dead letters left out, {refused} refused"
        ))?;
    }
    anyhow::ensure!(refused == 0, "{refused} operations were not taken in");
    Ok(())
}

/// Appends operations in their order; those of the file are not looked for among these.
async fn take_in(
    buffer: &Buffer,
    operations: Vec<Operation>,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut fresh = Vec::new();
    for operation in operations {
        if buffer.find(operation.id).await?.is_some() {
            tally.known += 1;
        } else {
            fresh.push(operation);
        }
    }
    // In the order in which they are first polled.
    let ids: Vec<Version> = fresh.iter().map(|operation| operation.id).collect();
    let appended = join_all(fresh.into_iter().map(|it| buffer.append(it, None))).await;
    for (id, appended) in ids.into_iter().zip(appended) {
        match appended {
            Ok(_) => tally.taken += 1,
            Err(error @ (BufferError::Full | BufferError::UserShare | BufferError::LaneFull)) => {
                tally.refused(format!("{id}: {error}"));
            }
            Err(error) => return Err(error).with_context(|| format!("operation {id}")),
        }
    }
    Ok(())
}
