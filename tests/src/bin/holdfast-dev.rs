//! `holdfast-dev`: the development stack, an outage at a word, and the recovery.

use std::process::ExitCode;

use clap::Parser;
use tests::dev;

/// Runs Holdfast with a PostgreSQL and a Redis of its own.
#[derive(Parser)]
#[command(name = "holdfast-dev")]
struct Arguments {
    #[command(subcommand)]
    command: dev::Command,
}

#[tokio::main]
async fn main() -> ExitCode {
    match dev::run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
