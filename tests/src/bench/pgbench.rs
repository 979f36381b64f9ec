//! How fast PostgreSQL itself takes rows, one to a statement, without any server before it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::plan::Plan;
use super::wrk::Run;
use crate::launch::Launch;

/// One row in each transaction, into a table like a plain server would have.
const SCRIPT: &str = "\\set user random(1, 200)
INSERT INTO tasks (id, user_id, title, description, status, created_at, updated_at) VALUES \
(gen_random_uuid(), md5(:user::text)::uuid, 'Water the plants on the balcony', \
'The two on the left need more than the others, and the fern needs none at all this week.', \
'pending', now(), now());
";

/// It counts connecting as part of its time, though not of its rate: many clients take a while.
const CONNECTING: Duration = Duration::from_secs(3);

/// `pgbench` with prepared statements, in one thread as `wrk` is.
#[derive(Clone, Debug)]
pub(super) struct Pgbench {
    port: u16,
    database: &'static str,
    clients: u32,
    script: PathBuf,
}

impl Pgbench {
    /// Into the table `tasks` of a database of the PostgreSQL at `port`.
    pub(super) fn new(
        folder: &Path,
        port: u16,
        database: &'static str,
        clients: u32,
    ) -> anyhow::Result<Self> {
        let script = folder.join("insert.pgbench");
        std::fs::write(&script, SCRIPT)?;
        Ok(Self { port, database, clients, script })
    }

    pub(super) async fn load(&self, plan: &Plan, time: Duration) -> anyhow::Result<Run> {
        let (clients, port) = (self.clients.to_string(), self.port.to_string());
        let seconds = (time + CONNECTING).as_secs();
        let launch = Launch::new(&plan.pgbench, self.script.with_extension("log"))
            .args(["-n", "-M", "prepared", "-j", "1", "-c", &clients, "-T", &seconds.to_string()])
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "holdfast", "-f"])
            .args([self.script.as_path(), Path::new(self.database)]);
        let said = launch.output().await?;
        let figure = |label: &str| -> anyhow::Result<f64> {
            let line = said.lines().find_map(|line| line.strip_prefix(label));
            let figure = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            figure.with_context(|| format!("pgbench did not say {label}: {said}"))
        };
        // Its rate is over the time without connecting: that is the time to count with.
        let (requests, rate) =
            (figure("number of transactions actually processed: ")?, figure("tps = ")?);
        let seconds = if rate > 0.0 { requests / rate } else { 0.0 };
        Ok(Run { requests: requests as u64, seconds, ..Run::default() })
    }
}
