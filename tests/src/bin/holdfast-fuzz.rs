//! `holdfast-fuzz`: schemathesis against the OpenAPI document, online and in an outage, with a token and
//! without.

use std::process::ExitCode;

use clap::Parser;
use tests::fuzz;

#[tokio::main]
async fn main() -> ExitCode {
    match fuzz::run(&fuzz::Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
