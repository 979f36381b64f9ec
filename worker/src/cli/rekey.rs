//! `buffer rekey`: seals everything in the live file with the newest key.

use anyhow::ensure;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use shared::buffer::Buffer;

use super::output::{json_line, line};
use super::{Format, operator};

pub(super) async fn rekey(format: Format, buffer: &Buffer) -> anyhow::Result<()> {
    let stats = buffer.stats().await?;
    let all = stats.pending + stats.dead;
    let bar = if format.json { ProgressBar::hidden() } else { ProgressBar::new(all) };
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {per_sec}, {eta} left {msg}",
    )?);
    let progress = |seen| {
        bar.set_length(all.max(seen));
        bar.set_position(seen);
        if seen >= all {
            bar.set_message("(overwriting what was before)");
        }
    };
    let done = buffer.rekey(&operator(), progress).await?;
    bar.finish_and_clear();
    if format.json {
        json_line(&json!({
            "seen": done.seen, "pending": done.pending, "dead": done.dead,
            "unreadable": done.unreadable,
        }))?;
    } else {
        line(&format!(
            "sealed {} pending operations and {} dead letters with the newest key",
            done.pending, done.dead
        ))?;
    }
    let unreadable = done.unreadable;
    ensure!(unreadable == 0, "{unreadable} records cannot be read and were left as they are");
    Ok(())
}
