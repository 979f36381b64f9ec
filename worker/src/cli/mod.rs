//! What an operator may do from the command line, on the live buffer file. Tables for people, JSON
//! for scripts; anything that cannot be done ends with a message and exit code 1, and changes
//! nothing.

mod buffer;
mod drain;
mod import;
mod output;
mod rekey;
mod repair;

use clap::{Args, Subcommand};
use shared::buffer::{Buffer, OpenError};
use shared::settings::{BufferSettings, load};

pub use buffer::BufferCommand;

/// How results are printed.
#[derive(Args, Clone, Copy, Debug)]
pub struct Format {
    /// Print JSON, for scripts.
    #[arg(long, global = true)]
    json: bool,
}

/// A command on the live file.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look into the buffer, and act on dead letters.
    #[command(subcommand)]
    Buffer(BufferCommand),
    /// Stop replay until it is resumed.
    Pause,
    /// Let replay go on.
    Resume,
    /// Wait until everything pending has been replayed; replay it here if no worker is active.
    Drain,
}

/// Carries a command out.
///
/// # Errors
/// If it cannot be: the message says why.
pub async fn carry_out(command: Command, format: Format) -> anyhow::Result<()> {
    match command {
        // What it is for may not be a file that can be opened.
        Command::Buffer(BufferCommand::Salvage { file }) => repair::salvage(&file).await,
        Command::Buffer(command) => {
            let settings: BufferSettings = load()?;
            match (open_as_it_is(&settings).await, command) {
                (Ok(buffer), command) => buffer::carry_out(command, format, &buffer).await,
                (Err(refused), BufferCommand::Repair { dry_run }) if refused.is_damage() => {
                    repair::repair_refused(format, settings, refused, dry_run).await
                }
                (Err(refused), BufferCommand::Verify) if refused.is_damage() => {
                    repair::verify_refused(format, settings, refused).await
                }
                (Err(refused), _) => Err(refused.into()),
            }
        }
        Command::Pause => {
            open().await?.pause(&operator()).await?;
            output::done(format, "paused")
        }
        Command::Resume => {
            open().await?.resume(&operator()).await?;
            output::done(format, "resumed")
        }
        Command::Drain => drain::drain(format).await,
    }
}

/// Opens the buffer file, which must be there and not be damaged.
async fn open() -> anyhow::Result<Buffer> {
    Ok(open_as_it_is(&load()?).await?)
}

async fn open_as_it_is(settings: &BufferSettings) -> Result<Buffer, OpenError> {
    Buffer::open_in_time(settings.clone(), Buffer::open_existing).await
}

/// How the audit log names who runs the command.
fn operator() -> String {
    let uid = nix::unistd::getuid();
    let name = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    format!("account {}", name.unwrap_or_else(|| uid.to_string()))
}
