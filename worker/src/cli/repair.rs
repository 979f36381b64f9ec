//! `buffer repair`: makes a damaged file anew from its records. `buffer salvage`: writes out what can be
//! read of one that cannot be opened.

use std::path::Path;

use anyhow::bail;
use shared::buffer::{
    Buffer, OpenError, Repaired, Verification, repair_refused as repair_closed, salvage as read_out,
};
use shared::settings::{BufferSettings, load};

use super::buffer::{export, print_verification};
use super::output::{json_line, line};
use super::{Format, operator};

pub(super) async fn repair(format: Format, buffer: &Buffer, dry_run: bool) -> anyhow::Result<()> {
    print(format, &buffer.repair(&operator(), dry_run).await?, dry_run)
}

/// Repairs a file that was refused.
pub(super) async fn repair_refused(
    format: Format,
    settings: BufferSettings,
    refused: OpenError,
    dry_run: bool,
) -> anyhow::Result<()> {
    print(format, &look_at_refused(settings, refused, dry_run).await?, dry_run)
}

/// Says what is wrong with a file that was refused.
pub(super) async fn verify_refused(
    format: Format,
    settings: BufferSettings,
    refused: OpenError,
) -> anyhow::Result<()> {
    let mut checked = Verification::default();
    let why = refused.to_string();
    match look_at_refused(settings, refused, true).await {
        Ok(found) => {
            (checked.records, checked.dead) = (found.pending, found.dead);
            checked.quarantined = found.quarantined;
            checked.problems = found.refused.clone().into_iter().chain(problems(&found)).collect();
        }
        Err(error) => checked.problems = vec![why.clone(), error.to_string()],
    }
    checked.problem_count = checked.problems.len() as u64;
    print_verification(format, &checked)?;
    bail!(why)
}

async fn look_at_refused(
    settings: BufferSettings,
    refused: OpenError,
    dry_run: bool,
) -> anyhow::Result<Repaired> {
    let repair = move || repair_closed(&settings, &refused, dry_run, &operator());
    Ok(tokio::task::spawn_blocking(repair).await??)
}

/// What is wrong with the tables, each in one line.
fn problems(found: &Repaired) -> Vec<String> {
    let table = |table| format!("{table}: pages cannot be read, or do not match their checksums");
    let tables = found.damaged_tables.iter().map(table);
    let wrong = found.wrong_entries;
    let entries =
        format!("{wrong} entries of indexes, and counters, are not what the records make of them");
    tables.chain([entries]).collect()
}

fn print(format: Format, found: &Repaired, dry_run: bool) -> anyhow::Result<()> {
    if format.json {
        return json_line(found);
    }
    if !found.found_damage() {
        return line("nothing is damaged");
    }
    let refused = found.refused.iter();
    refused.chain(&problems(found)).try_for_each(|problem| line(problem))?;
    let (verb, there) = if dry_run { ("would have", "") } else { ("has", " now") };
    line(&format!(
        "the file {verb} {} pending, {} dead and {} quarantined records{there}",
        found.pending, found.dead, found.quarantined
    ))?;
    found
        .kept_as
        .as_ref()
        .map_or(Ok(()), |path| line(&format!("the damaged file is {}", path.display())))
}

pub(super) async fn salvage(file: &Path) -> anyhow::Result<()> {
    let (settings, path): (BufferSettings, _) = (load()?, file.to_owned());
    let salvaged = tokio::task::spawn_blocking(move || read_out(&path, &settings)).await??;
    let buffer = Buffer::open_in_time(salvaged.settings.clone(), Buffer::open_existing).await?;
    export(&buffer).await
}
