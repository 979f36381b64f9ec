//! `drain`: waits until everything pending has been replayed. While no worker is active on the file,
//! this process is the worker.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use shared::buffer::Buffer;
use shared::settings::{BufferSettings, load};
use shared::telemetry;
use tokio_util::sync::CancellationToken;

use super::output::{json_line, line};
use super::{Format, open};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub(super) async fn drain(format: Format) -> anyhow::Result<()> {
    let path = load::<BufferSettings>()?.buffer_path;
    std::fs::symlink_metadata(&path).with_context(|| format!("BUFFER_PATH: {}", path.display()))?;
    // First, since this repairs a damaged file as any worker does.
    let context = crate::open().await?;
    let buffer = open().await?;
    let paused = buffer.paused().await?;
    anyhow::ensure!(paused.is_none(), "replay is paused: resume it first");
    let ended = CancellationToken::new();
    let mut work = tokio::spawn({
        let ended = ended.clone();
        async move { crate::work_until(context, ended).await }
    });
    let started = Instant::now();
    let watched = tokio::select! {
        watched = watch(&buffer, format) => watched,
        ended = &mut work => {
            ended.context("replay panicked")??;
            anyhow::bail!("replay has ended early");
        }
        () = telemetry::shutdown() => Err(anyhow::anyhow!("interrupted")),
    };
    ended.cancel();
    work.await.context("replay panicked")??;
    let (drained, dead) = watched?;
    let seconds = started.elapsed().as_secs_f64();
    if format.json {
        return json_line(&json!({ "drained": drained, "dead": dead, "seconds": seconds }));
    }
    line(&format!("drained {drained} operations in {seconds:.1} s; {dead} became dead letters"))
}

/// Shows progress until nothing is pending; how much was pending at the start, and how many dead
/// letters have come since.
async fn watch(buffer: &Buffer, format: Format) -> anyhow::Result<(u64, u64)> {
    let before = buffer.stats().await?;
    let bar = if format.json { ProgressBar::hidden() } else { ProgressBar::new(before.pending) };
    bar.set_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} {per_sec}, {eta} left {msg}",
    )?);
    loop {
        anyhow::ensure!(buffer.paused().await?.is_none(), "replay has been paused");
        let now = buffer.stats().await?;
        bar.set_length(before.pending.max(now.pending));
        bar.set_position(before.pending.max(now.pending).saturating_sub(now.pending));
        if now.waiting_lanes > 0 {
            bar.set_message(format!("({} lanes wait for another attempt)", now.waiting_lanes));
        }
        if now.pending == 0 {
            bar.finish_and_clear();
            return Ok((before.pending, now.dead.saturating_sub(before.dead)));
        }
        tokio::time::sleep(LOOK).await;
    }
}
