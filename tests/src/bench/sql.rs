//! SQL to any database of the private PostgreSQL, and the table of a plain server.

use std::path::Path;

use super::plan::Plan;
use crate::launch::Launch;

/// The table of the other server, and of `pgbench`.
pub(super) const PLAIN_TABLE: &str = "CREATE TABLE tasks (id uuid PRIMARY KEY, user_id uuid NOT NULL, \
    title varchar(255) NOT NULL, description text, status varchar(50) NOT NULL DEFAULT 'pending', \
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now()); \
    CREATE INDEX ON tasks (user_id); CREATE INDEX ON tasks (status)";

/// The address of a database.
pub(super) fn url(port: u16, database: &str) -> String {
    format!("postgres://holdfast@127.0.0.1:{port}/{database}")
}

/// Runs one command with `psql`, for as long as it takes.
pub(super) async fn run(
    plan: &Plan,
    port: u16,
    database: &str,
    command: &str,
) -> anyhow::Result<String> {
    let launch = Launch::new(&plan.psql, Path::new("/dev/null")).args([
        "-AtXq",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        &url(port, database),
        "-c",
        command,
    ]);
    Ok(launch.output().await?.trim_end().to_owned())
}
