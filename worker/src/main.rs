//! The `holdfast-worker` binary: `run`, `metrics`, and the operator's commands on the live buffer file.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shared::guard;
use shared::metric::{COMMON, table};
use shared::settings::{LogSettings, load};
use shared::telemetry;
use worker::cli::{self, Format};
use worker::metric::METRICS;

/// Many small allocations on several threads: the system's allocator is the slowest part of them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Replays buffered writes to PostgreSQL, watches over what is up, and lets an operator look into the
/// buffer. Settings come from the environment: see .env.example.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Work, or stand by while another worker is active on the same buffer file.
    Run,
    /// Print the tables of metrics, in Markdown: those of this process alone, and those of both.
    Metrics,
    #[command(flatten)]
    Operator(cli::Command),
}

fn main() -> ExitCode {
    let Arguments { format, command } = Arguments::parse();
    telemetry::exit_code(match command {
        Command::Run => work(),
        Command::Metrics => print(&format!("{}\n{}", table(&METRICS), table(&COMMON))),
        Command::Operator(command) => operate(command, format),
    })
}

#[tokio::main]
async fn work() -> anyhow::Result<()> {
    let metrics = telemetry::start(&load::<LogSettings>()?, &METRICS)?;
    let context = worker::open().await?;
    worker::run(context, metrics, telemetry::shutdown()).await
}

#[tokio::main]
async fn operate(command: cli::Command, format: Format) -> anyhow::Result<()> {
    guard::install();
    cli::carry_out(command, format).await
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", text.trim_end())?)
}
