//! The fuzzing behind `make fuzz`: schemathesis, a program from PyPI, asks what the OpenAPI document
//! allows and what it does not, and checks each answer against it; `checks.py` adds that a failure has a code
//! which its route lists. Six runs: online and in an outage of
//! PostgreSQL and Redis, each with an admin's token, with a user's, and without any.
#![allow(clippy::print_stdout, reason = "it talks to a person at a terminal")]

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Parser;
use tokio::process::Command;
use uuid::Uuid;

use crate::World;

const CONFIGURATION: &str = include_str!("schemathesis.toml");
const CHECKS: &str = include_str!("checks.py");

/// How to fuzz.
#[derive(Clone, Debug, Parser)]
#[command(name = "holdfast-fuzz")]
pub struct Arguments {
    /// The `schemathesis` program.
    #[arg(long)]
    schemathesis: PathBuf,
    /// Cases for each route in each run at the most.
    #[arg(long, default_value_t = 100)]
    examples: u32,
    /// The seed of the cases; one that is drawn is printed by schemathesis.
    #[arg(long)]
    seed: Option<u64>,
    /// Just the runs whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// More arguments for schemathesis.
    #[arg(last = true)]
    more: Vec<String>,
}

/// One run.
struct Run {
    name: &'static str,
    in_an_outage: bool,
    role: Option<&'static str>,
}

const RUNS: [Run; 6] = [
    Run { name: "online, as an admin", in_an_outage: false, role: Some("admin") },
    Run { name: "online, as a user", in_an_outage: false, role: Some("user") },
    Run { name: "online, without a token", in_an_outage: false, role: None },
    Run { name: "in an outage, as an admin", in_an_outage: true, role: Some("admin") },
    Run { name: "in an outage, as a user", in_an_outage: true, role: Some("user") },
    Run { name: "in an outage, without a token", in_an_outage: true, role: None },
];

/// Fuzzes; every run is made, whatever the ones before have found.
///
/// # Errors
/// When a run finds something, or cannot be made.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for run in RUNS.iter().filter(|run| run.name.contains(&arguments.only)) {
        println!("\n==> {}", run.name);
        let mut world = World::builder().env("BUFFER_USER_SHARE", "1000000").start().await;
        if run.in_an_outage {
            world.postgres.kill().await;
            world.redis.kill();
        }
        if !fuzz(arguments, run, &world).await? {
            found.push(run.name);
        }
    }
    ensure!(found.is_empty(), "something was found: {}", found.join("; "));
    Ok(())
}

async fn fuzz(arguments: &Arguments, run: &Run, world: &World) -> anyhow::Result<bool> {
    let configuration = world.folder().join("schemathesis.toml");
    std::fs::write(&configuration, CONFIGURATION)?;
    std::fs::write(world.folder().join("checks.py"), CHECKS)?;
    let mut command = command(arguments, &configuration, &world.api_url());
    if let Some(role) = run.role {
        let client = world.client_as(Uuid::new_v4(), role);
        let token = client.token().context("a token")?.to_owned();
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    let status = command.current_dir(world.folder()).status().await;
    Ok(status.with_context(|| format!("{}", arguments.schemathesis.display()))?.success())
}

fn command(arguments: &Arguments, configuration: &Path, api: &str) -> Command {
    let mut command = Command::new(&arguments.schemathesis);
    command.arg("--config-file").arg(configuration);
    // The module `checks` in the folder in which it runs.
    command.env("SCHEMATHESIS_HOOKS", "checks");
    command.args(["run", &format!("{api}/openapi.json"), "--checks", "all"]);
    command.args(["--max-examples", &arguments.examples.to_string(), "--continue-on-failure"]);
    if let Some(seed) = arguments.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    command.args(&arguments.more).kill_on_drop(true);
    command
}
