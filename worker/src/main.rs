//! The `holdfast-worker` binary: `run`.

use clap::{Parser, Subcommand};
use shared::settings::{LogSettings, load};
use shared::telemetry;

/// Replays buffered writes to PostgreSQL, and watches over what is up. Settings come from the
/// environment: see .env.example.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Work, or stand by while another worker is active on the same buffer file.
    Run,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run => work(),
    }
}

#[tokio::main]
async fn work() -> anyhow::Result<()> {
    let metrics = telemetry::start(&load::<LogSettings>()?)?;
    let context = worker::open().await?;
    worker::run(context, metrics, telemetry::shutdown()).await
}
