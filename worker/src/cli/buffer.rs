//! `buffer stats | list | show | retry | discard | audit | export | verify | rekey | repair | import`.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use shared::buffer::{Buffer, DeadEntry, DeadFilter, Entry, Found, PendingFilter, Verification};
use shared::domain::{Action, EntityKind, Lane, Operation, OperationState, Priority, Version};
use shared::status::{WORKER, WorkerStatus};
use uuid::Uuid;

use super::import::import;
use super::output::{done, json_line, line, moment, table};
use super::rekey::rekey;
use super::repair::{repair, salvage};
use super::{Format, operator};

/// Records read at once when all are written out.
const CHUNK: usize = 500;

/// A command on the buffer.
#[derive(Debug, Subcommand)]
pub enum BufferCommand {
    /// How full it is, by state and priority, how old, and how fast it drains.
    Stats,
    /// Pending operations, in order of acceptance, or dead letters.
    List {
        /// List dead letters instead.
        #[arg(long)]
        dead: bool,
        /// Of this user.
        #[arg(long)]
        user: Option<Uuid>,
        /// Of this task.
        #[arg(long, conflicts_with = "dead")]
        task: Option<Uuid>,
        /// Of this priority.
        #[arg(long, conflicts_with = "dead", value_parser = clap::value_parser!(u8).range(1..=5))]
        priority: Option<Priority>,
        /// Of this kind of change: create, replace, patch or delete.
        #[arg(long, conflicts_with = "dead")]
        action: Option<String>,
        /// Dead for this reason.
        #[arg(long, requires = "dead")]
        reason: Option<String>,
        /// Entries at the most.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// One operation, pending or dead.
    Show {
        /// The operation's id.
        id: Uuid,
        /// Show what it is to change as well.
        #[arg(long)]
        payload: bool,
    },
    /// Put a dead letter, or a quarantined operation that can be read by now, back among the pending.
    Retry {
        /// The operation's id.
        id: Uuid,
    },
    /// Drop a dead letter for good.
    Discard {
        /// The operation's id.
        id: Uuid,
    },
    /// What operators did, newest first.
    Audit {
        /// Entries at the most.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Write all pending operations and dead letters, with payloads, as JSON lines.
    Export,
    /// Check every record and the integrity of the file, changing nothing: also of one that is refused.
    Verify,
    /// Check the file, and make it anew from its records if it is damaged; the damaged one is kept.
    Repair {
        /// Say what is wrong, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Write what can be read of a buffer file and of the write-ahead log beside it, as `export` does.
    /// Its tables must have the format of this version.
    Salvage {
        /// The file.
        file: PathBuf,
    },
    /// Take operations in that `export` or `salvage` wrote, each once, in their order.
    Import {
        /// The file that was written; `-` is standard input.
        file: PathBuf,
        /// Take in dead letters as well, as pending operations.
        #[arg(long)]
        dead: bool,
    },
    /// Seal everything with the newest key of BUFFER_KEYS, and overwrite what was sealed with others.
    Rekey,
}

pub(super) async fn carry_out(
    command: BufferCommand,
    format: Format,
    buffer: &Buffer,
) -> anyhow::Result<()> {
    match command {
        BufferCommand::Stats => stats(format, buffer).await,
        BufferCommand::List { dead: true, user, reason, limit, .. } => {
            let filter = DeadFilter { user_id: user, state: None, reason };
            list_dead(format, buffer, filter, limit).await
        }
        BufferCommand::List { user, task, priority, action, limit, .. } => {
            let filter = PendingFilter {
                user_id: user,
                lane: task.map(|id| Lane { kind: EntityKind::Task, id }),
                priority,
                action: action.as_deref().map(Action::parse).transpose()?,
            };
            list_pending(format, buffer, filter, limit).await
        }
        BufferCommand::Show { id, payload } => show(format, buffer, id, payload).await,
        BufferCommand::Retry { id } => {
            buffer.retry_dead(Version::from_uuid(id), &operator()).await?;
            done(format, "pending")
        }
        BufferCommand::Discard { id } => {
            buffer.discard_dead(Version::from_uuid(id), &operator()).await?;
            done(format, "discarded")
        }
        BufferCommand::Audit { limit } => audit(format, buffer, limit).await,
        BufferCommand::Export => export(buffer).await,
        BufferCommand::Verify => verify(format, buffer).await,
        BufferCommand::Rekey => rekey(format, buffer).await,
        BufferCommand::Repair { dry_run } => repair(format, buffer, dry_run).await,
        BufferCommand::Import { file, dead } => import(format, buffer, &file, dead).await,
        BufferCommand::Salvage { file } => salvage(&file).await,
    }
}

async fn stats(format: Format, buffer: &Buffer) -> anyhow::Result<()> {
    let stats = buffer.stats().await?;
    let worker = buffer.published::<WorkerStatus>(WORKER).await?;
    let paused = buffer.paused().await?;
    let rate = worker.as_ref().map_or(0, |worker| worker.replay.drain_rate);
    let left = (rate > 0).then(|| stats.pending.div_ceil(rate));
    let heartbeat = worker.as_ref().map(|worker| worker.heartbeat_at);
    if format.json {
        return json_line(&json!({
            "pending": stats.pending, "pending_by_priority": stats.by_priority,
            "bytes": stats.bytes, "dead": stats.dead, "quarantined": stats.quarantined,
            "waiting_lanes": stats.waiting_lanes,
            "oldest_queued_at": Some(moment(stats.oldest_queued_at)).filter(|at| !at.is_empty()),
            "drain_rate": rate, "estimated_seconds_left": left, "paused": paused,
            "worker": worker,
        }));
    }
    let [one, two, three, four, five] = stats.by_priority;
    let since =
        paused.map(|paused| format!("since {}, by {}", moment(Some(paused.since)), paused.by));
    let rows = [
        ("pending", stats.pending.to_string()),
        ("  of priority 5 to 1", format!("{five} {four} {three} {two} {one}")),
        ("  bytes", stats.bytes.to_string()),
        ("  oldest", moment(stats.oldest_queued_at)),
        ("  lanes that wait", stats.waiting_lanes.to_string()),
        ("dead", stats.dead.to_string()),
        ("quarantined", stats.quarantined.to_string()),
        ("drained per second", rate.to_string()),
        ("seconds left", left.map_or_else(String::new, |left| left.to_string())),
        ("paused", since.unwrap_or_else(|| "no".to_owned())),
        ("worker heard of", moment(heartbeat)),
    ];
    rows.iter().try_for_each(|(name, value)| line(format!("{name:<22}{value}").trim_end()))
}

async fn list_pending(
    format: Format,
    buffer: &Buffer,
    filter: PendingFilter,
    limit: usize,
) -> anyhow::Result<()> {
    let (mut entries, mut after) = (Vec::new(), None);
    while entries.len() < limit {
        let page = buffer.pending_page(filter, after, limit - entries.len()).await?;
        entries.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if format.json {
        return entries.iter().try_for_each(|entry| json_line(&pending_json(entry, false)));
    }
    let head = ["OPERATION", "PRIORITY", "ACTION", "ENTITY", "USER", "ATTEMPTS", "ACCEPTED"];
    let rows: Vec<Vec<String>> =
        entries.iter().map(|entry| row(&entry.operation, entry.tries.in_all())).collect();
    table(&head, &rows)
}

async fn list_dead(
    format: Format,
    buffer: &Buffer,
    filter: DeadFilter,
    limit: usize,
) -> anyhow::Result<()> {
    let (mut letters, mut after) = (Vec::new(), None);
    while letters.len() < limit {
        let page = buffer.dead_page(filter.clone(), after, limit - letters.len()).await?;
        letters.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if format.json {
        return letters.iter().try_for_each(|letter| json_line(&dead_json(letter, false)));
    }
    let head = [
        "OPERATION",
        "PRIORITY",
        "ACTION",
        "ENTITY",
        "USER",
        "ATTEMPTS",
        "ACCEPTED",
        "STATE",
        "REASON",
    ];
    let rows: Vec<Vec<String>> = letters
        .iter()
        .map(|letter| {
            let mut row = row(&letter.operation, letter.attempts);
            row.extend([letter.state.as_str().to_owned(), letter.reason.clone()]);
            row
        })
        .collect();
    table(&head, &rows)
}

fn row(operation: &Operation, attempts: u32) -> Vec<String> {
    vec![
        operation.id.to_string(),
        operation.priority().to_string(),
        operation.action().as_str().to_owned(),
        operation.lane().to_string(),
        operation.actor.user_id.to_string(),
        attempts.to_string(),
        moment(Some(operation.accepted_at.timestamp_millis())),
    ]
}

fn operation_json(operation: &Operation, state: OperationState, payload: bool) -> Value {
    let lane = operation.lane();
    let mut value = json!({
        "id": operation.id, "state": state, "user_id": operation.actor.user_id,
        "entity": lane.kind.as_str(), "entity_id": lane.id, "action": operation.action(),
        "priority": operation.priority(), "accepted_at": operation.accepted_at,
        "request_id": operation.request_id,
    });
    if payload {
        // All that `import` needs.
        value["role"] = json!(operation.actor.role);
        value["session_id"] = json!(operation.actor.session_id);
        value["traceparent"] = json!(operation.traceparent);
        value["payload"] = json!(operation.change);
    }
    value
}

fn pending_json(entry: &Entry, payload: bool) -> Value {
    let mut value = operation_json(&entry.operation, OperationState::Pending, payload);
    value["attempts"] = json!(entry.tries.in_all());
    let waits = Some(entry.not_before).filter(|at| *at > 0);
    value["next_attempt_at"] = json!(waits.map(|at| moment(Some(at))));
    value
}

fn dead_json(letter: &DeadEntry, payload: bool) -> Value {
    let mut value = operation_json(&letter.operation, letter.state, payload);
    value["attempts"] = json!(letter.attempts);
    value["died_at"] = json!(moment(Some(letter.died_at)));
    value["reason"] = json!(letter.reason);
    value
}

async fn show(format: Format, buffer: &Buffer, id: Uuid, payload: bool) -> anyhow::Result<()> {
    let value = match buffer.find(Version::from_uuid(id)).await? {
        None => bail!("there is no operation {id} in this buffer"),
        Some(Found::Quarantined { .. }) => json!({ "id": id, "state": "quarantined" }),
        Some(Found::Discarded(act)) => json!({ "id": id, "state": "discarded", "act": act }),
        Some(Found::Pending { operation, attempts, not_before }) => {
            let mut value = operation_json(&operation, OperationState::Pending, payload);
            value["attempts"] = json!(attempts);
            value["next_attempt_at"] = json!(not_before.map(|at| moment(Some(at))));
            value
        }
        Some(Found::Dead(letter)) => {
            let mut value = operation_json(&letter.operation, letter.state, payload);
            value["attempts"] = json!(letter.attempts);
            value["reason"] = json!(letter.reason);
            value
        }
    };
    if format.json { json_line(&value) } else { line(&serde_json::to_string_pretty(&value)?) }
}

async fn audit(format: Format, buffer: &Buffer, limit: usize) -> anyhow::Result<()> {
    let acts = buffer.audit(limit).await?;
    if format.json {
        return acts.iter().try_for_each(json_line);
    }
    let rows: Vec<Vec<String>> = acts
        .iter()
        .map(|act| {
            let kind = json!(act.kind).as_str().unwrap_or_default().to_owned();
            let operation = act.operation.as_ref().map(|operation| operation.id.to_string());
            vec![moment(Some(act.at)), kind, operation.unwrap_or_default(), act.by.clone()]
        })
        .collect();
    table(&["WHEN", "ACT", "OPERATION", "BY"], &rows)
}

pub(super) async fn export(buffer: &Buffer) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let page = buffer.pending_page(PendingFilter::default(), after, CHUNK).await?;
        page.items.iter().try_for_each(|entry| json_line(&pending_json(entry, true)))?;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut after = None;
    loop {
        let page = buffer.dead_page(DeadFilter::default(), after, CHUNK).await?;
        page.items.iter().try_for_each(|letter| json_line(&dead_json(letter, true)))?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

async fn verify(format: Format, buffer: &Buffer) -> anyhow::Result<()> {
    let bar = if format.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    bar.set_style(ProgressStyle::with_template("{spinner} {pos} entries checked")?);
    let shown = bar.clone();
    let found = buffer.verify(move |seen| shown.set_position(seen)).await?;
    bar.finish_and_clear();
    print_verification(format, &found)?;
    ensure!(found.problem_count == 0, "the buffer file is damaged");
    Ok(())
}

pub(super) fn print_verification(format: Format, found: &Verification) -> anyhow::Result<()> {
    if format.json {
        json_line(&json!({
            "records": found.records, "dead": found.dead, "quarantined": found.quarantined,
            "problems": found.problems, "problem_count": found.problem_count,
        }))?;
    } else {
        found.problems.iter().try_for_each(|problem| line(problem))?;
        line(&format!(
            "{} pending, {} dead and {} quarantined records: {} problems",
            found.records, found.dead, found.quarantined, found.problem_count
        ))?;
    }
    Ok(())
}
