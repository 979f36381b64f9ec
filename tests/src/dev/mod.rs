//! The development stack behind `make dev`: a private PostgreSQL and Redis, api and worker, and an
//! outage on demand. Everything lies under `data/dev`; nothing outside it is touched.
#![allow(clippy::print_stdout, reason = "it talks to a person at a terminal")]

use clap::Subcommand;

mod folder;
mod outage;
mod stack;
mod up;
mod welcome;

/// What `holdfast-dev` can be told to do.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Start everything, print how to use it, and stop it all on Ctrl-C.
    Up,
    /// Kill the PostgreSQL of a running `up` with SIGKILL.
    Outage,
    /// Start that PostgreSQL again.
    Recover,
    /// Remove all data of the development stack.
    Clean,
}

/// Does what was told.
///
/// # Errors
/// In words for the person at the terminal.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up => up::run().await,
        Command::Outage => outage::outage().await,
        Command::Recover => outage::recover().await,
        Command::Clean => outage::clean().await,
    }
}
