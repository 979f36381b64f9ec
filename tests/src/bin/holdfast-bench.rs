//! `holdfast-bench`: how fast it is, measured beside something else on the same machine.

use std::process::ExitCode;

use clap::Parser;
use tests::bench;

/// Measures Holdfast between a PostgreSQL and a Redis of its own. Fails when a bar is missed.
#[derive(Parser)]
#[command(name = "holdfast-bench")]
struct Program {
    #[command(flatten)]
    arguments: bench::Arguments,
}

#[tokio::main]
async fn main() -> ExitCode {
    match bench::run(Program::parse().arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
