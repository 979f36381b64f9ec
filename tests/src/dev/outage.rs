//! What other terminals do to a running stack: break its PostgreSQL, mend it, and clean up after it.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::folder::Folder;
use crate::signals;

const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Kills PostgreSQL the hard way.
pub(super) async fn outage() -> anyhow::Result<()> {
    let folder = Folder::of_this_tree();
    let cluster = folder.cluster(&folder.ports_of_running()?)?;
    let killed = cluster.kill();
    ensure!(!killed.is_empty(), "PostgreSQL is down already; `make recover` starts it again");
    let started = Instant::now();
    while killed.iter().any(|pid| signals::is_alive(*pid)) {
        ensure!(started.elapsed() < STOP_DEADLINE, "PostgreSQL got SIGKILL and does not go");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!(
        "PostgreSQL on port {} is gone: {} processes killed with SIGKILL.",
        cluster.port(),
        killed.len()
    );
    println!("Writes are answered 202 from now on. `make recover` starts it again.");
    Ok(())
}

/// Starts PostgreSQL again; it belongs to the running `up`, which stops it in the end.
pub(super) async fn recover() -> anyhow::Result<()> {
    let folder = Folder::of_this_tree();
    let cluster = folder.cluster(&folder.ports_of_running()?)?;
    ensure!(cluster.server().is_none(), "PostgreSQL is up already");
    let started = Instant::now();
    let mut child = cluster.spawn(true)?;
    let up = cluster.wait_until_up(|| match child.try_wait()? {
        Some(status) => bail!("PostgreSQL ended with {status}"),
        None => Ok(()),
    });
    let took = up.await?.duration_since(started);
    println!(
        "PostgreSQL accepts connections again on port {}, after {} ms.",
        cluster.port(),
        took.as_millis()
    );
    Ok(())
}

/// Removes the folder of the stack.
pub(super) async fn clean() -> anyhow::Result<()> {
    let folder = Folder::of_this_tree();
    let lock = folder.lock()?;
    if let Some(ports) = folder.ports().filter(|ports| ports.cluster.is_dir()) {
        if let Ok(cluster) = folder.cluster(&ports) {
            cluster.stop_fast(STOP_DEADLINE).await?;
        }
        std::fs::remove_dir_all(&ports.cluster)?;
        if !ports.cluster.starts_with(folder.path()) {
            // Its own folders elsewhere go with it, unless something else lies there.
            for above in ports.cluster.ancestors().skip(1).take(2) {
                let _ = std::fs::remove_dir(above);
            }
        }
    }
    std::fs::remove_dir_all(folder.path())?;
    drop(lock);
    println!("The data of the development stack is gone.");
    Ok(())
}
