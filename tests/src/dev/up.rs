//! `holdfast-dev up`: from nothing to a running stack, until Ctrl-C.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::folder::Folder;
use super::stack::Stack;
use super::welcome::Welcome;
use crate::binaries::binaries;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Whose token is printed; it stays the same, so that tasks of the last run are still one's own.
const DEVELOPMENT_USER: &str = "0190d3e0-0000-7000-8000-000000000001";

pub(super) async fn run() -> anyhow::Result<()> {
    let folder = Folder::of_this_tree();
    let _lock = folder.lock()?;
    let told_to_stop = told_to_stop()?;
    tokio::pin!(told_to_stop);
    println!("Building what has changed ...");
    tokio::task::spawn_blocking(binaries).await?;
    println!("Starting PostgreSQL, Redis, api and worker ...");
    let mut stack = Stack::prepare(&folder).await?;
    let ended = tokio::select! {
        () = &mut told_to_stop => Ok(()),
        ended = serve(&folder, &mut stack) => ended,
    };
    println!("\nStopping ...");
    stack.stop().await;
    println!(
        "Stopped. The data stays in {}; `make clean-dev` removes it.",
        folder.path().display()
    );
    ended
}

/// Runs until something cannot be helped; otherwise for ever.
async fn serve(folder: &Folder, stack: &mut Stack) -> anyhow::Result<()> {
    stack.start().await.with_context(|| format!("the logs are in {}", folder.path().display()))?;
    let token = stack.token(DEVELOPMENT_USER).await.context("asking the api for a token")?;
    let ports = stack.ports();
    print!(
        "{}",
        Welcome {
            ports,
            database_url: &stack.database_url(),
            user: DEVELOPMENT_USER,
            token: &token,
            folder: folder.path()
        }
    );
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for message in stack.look_after() {
            println!("{message}");
        }
    }
}

/// Ctrl-C, a terminal that closes, or a polite request from elsewhere.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}
