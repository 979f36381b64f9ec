//! `buffer repair`: makes a damaged file anew from its records. `buffer salvage`: writes out what can be
//! read of one that cannot be opened.

use std::path::Path;

use shared::buffer::{Buffer, salvage as read_out};
use shared::settings::{BufferSettings, load};

use super::buffer::export;
use super::output::{json_line, line};
use super::{Format, operator};

pub(super) async fn repair(format: Format, buffer: &Buffer, dry_run: bool) -> anyhow::Result<()> {
    let found = buffer.repair(&operator(), dry_run).await?;
    if format.json {
        return json_line(&found);
    }
    if !found.found_damage() {
        return line("nothing is damaged");
    }
    for table in &found.damaged_tables {
        line(&format!("{table}: pages cannot be read, or do not match their checksums"))?;
    }
    let wrong = found.wrong_entries;
    line(&format!(
        "{wrong} entries of indexes, and counters, are not what the records make of them"
    ))?;
    let (verb, there) = if dry_run { ("would have", "") } else { ("has", " now") };
    line(&format!(
        "the file {verb} {} pending, {} dead and {} quarantined records{there}",
        found.pending, found.dead, found.quarantined
    ))?;
    found.kept_as.map_or(Ok(()), |path| line(&format!("the damaged file is {}", path.display())))
}

pub(super) async fn salvage(file: &Path) -> anyhow::Result<()> {
    let (settings, path): (BufferSettings, _) = (load()?, file.to_owned());
    let salvaged = tokio::task::spawn_blocking(move || read_out(&path, &settings)).await??;
    let buffer = Buffer::open_in_time(salvaged.settings.clone(), Buffer::open_existing).await?;
    export(&buffer).await
}
