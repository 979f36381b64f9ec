//! What `make dev` tells when everything is up.

use std::fmt;
use std::path::Path;

use super::folder::Ports;
use super::stack::redis_url;

pub(super) struct Welcome<'a> {
    pub(super) ports: &'a Ports,
    pub(super) database_url: &'a str,
    pub(super) user: &'a str,
    pub(super) token: &'a str,
    pub(super) folder: &'a Path,
}

impl fmt::Display for Welcome<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ports, database_url, user, token, folder } = self;
        let api = format!("http://127.0.0.1:{}", ports.api);
        writeln!(out, "\nHoldfast is up.\n")?;
        writeln!(out, "  API              {api}/api/v1")?;
        writeln!(out, "  Swagger UI       {api}/docs")?;
        writeln!(out, "  Health           {api}/health")?;
        writeln!(out, "  Worker metrics   http://127.0.0.1:{}/metrics", ports.worker)?;
        writeln!(out, "  PostgreSQL       psql {database_url}")?;
        writeln!(out, "  Redis            {}", redis_url(ports))?;
        writeln!(out, "  Logs             {}/*.log", folder.display())?;
        writeln!(out, "\nA bearer token for the user {user}:\n\n{token}\n")?;
        writeln!(out, "Create a task, list your tasks, look at the health:\n")?;
        let bearer = format!("-H 'Authorization: Bearer {token}'");
        let task = r#"-H 'Content-Type: application/json' -d '{"title": "Water the plants"}'"#;
        writeln!(out, "curl -sS {api}/api/v1/tasks {bearer} {task}\n")?;
        writeln!(out, "curl -sS {api}/api/v1/tasks {bearer}\n")?;
        writeln!(out, "curl -sS {api}/health\n")?;
        writeln!(
            out,
            "In another terminal: `make outage` kills this PostgreSQL, `make recover` starts it again."
        )?;
        writeln!(out, "Ctrl-C here stops everything.\n")
    }
}
