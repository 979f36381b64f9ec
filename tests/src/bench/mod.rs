//! The benchmark behind `make bench`: the release builds of api and worker between a private
//! PostgreSQL (fsync on) and a private Redis, under load from `wrk`.
//!
//! What is compared runs in the same run, side by side and by turns, several rounds of each; the
//! figures are medians. The other side is a server with the same routes that is given by its
//! address or its command, PostgreSQL itself (`pgbench`, `COPY`), or ourselves under another
//! load. `bars` has every row with its bar; the sections measure them.
#![allow(clippy::print_stdout, reason = "it talks to a person at a terminal")]

use std::panic::AssertUnwindSafe;

use anyhow::anyhow;
use clap::Args;
use futures::FutureExt;
use futures::future::LocalBoxFuture;

mod bars;
mod depth;
mod faults;
mod fill;
mod growth;
mod lists;
mod machine;
mod micro;
mod online;
mod outage;
mod peer;
mod pgbench;
mod plan;
mod plot;
mod replay;
mod report;
mod requests;
mod rounds;
mod servers;
mod sql;
mod stage;
mod wrk;

use plan::Plan;
use report::Report;

/// What to measure, and against what.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The address of a running server with the same routes, to compare with while PostgreSQL is
    /// there.
    #[arg(long, value_name = "URL", conflicts_with = "peer_command")]
    pub peer: Option<String>,
    /// A shell command that starts such a server: {pg} becomes the address of its database, {port}
    /// where it is to listen on 127.0.0.1, {buffer} its buffer file, {secret} the HS256 secret of
    /// its tokens, {batch} `-batch` or nothing.
    #[arg(long, value_name = "COMMAND")]
    pub peer_command: Option<String>,
    /// The HS256 secret of the other server's tokens.
    #[arg(long, default_value = "holdfast-bench-holdfast-bench-holdfast")]
    pub peer_secret: String,
    /// Only rows whose name contains this; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Rounds of each measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// Seconds of each round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// A tenth and less of the data, to see whether all of it works. Its figures mean little.
    #[arg(long)]
    pub quick: bool,
    /// Measure how figures grow also with `--quick` or `--only`.
    #[arg(long)]
    pub growth: bool,
    /// Run the micro-benchmarks of the buffer and of folding instead.
    #[arg(long)]
    pub micro: bool,
}

/// Measures, prints the table and writes the report; whether every bar was met.
///
/// # Errors
/// When there is nothing to measure with, or the report cannot be written.
pub async fn run(arguments: Arguments) -> anyhow::Result<bool> {
    if arguments.micro {
        return micro::run();
    }
    let plan = Plan::new(arguments)?;
    let mut report = Report::new(&plan);
    for section in SECTIONS {
        if section.rows.iter().any(|row| plan.wants(row)) || (section.grows && plan.grows()) {
            println!("{} ...", section.what);
            run_section(section, &plan, &mut report).await;
        }
    }
    report.print();
    report.write()?;
    Ok(report.is_good())
}

/// Rows that are measured in the same world, one after the other.
struct Section {
    what: &'static str,
    rows: &'static [&'static str],
    /// Whether it also measures how figures grow.
    grows: bool,
    measure: for<'a> fn(&'a Plan, &'a mut Report) -> LocalBoxFuture<'a, anyhow::Result<()>>,
}

const SECTIONS: &[Section] = &[
    Section {
        what: "with PostgreSQL",
        rows: online::ROWS,
        grows: true,
        measure: |plan, report| Box::pin(online::measure(plan, report)),
    },
    Section {
        what: "lists",
        rows: lists::ROWS,
        grows: true,
        measure: |plan, report| Box::pin(lists::measure(plan, report)),
    },
    Section {
        what: "in an outage",
        rows: outage::ROWS,
        grows: false,
        measure: |plan, report| Box::pin(outage::measure(plan, report)),
    },
    Section {
        what: "when PostgreSQL goes away",
        rows: faults::ROWS,
        grows: false,
        measure: |plan, report| Box::pin(faults::measure(plan, report)),
    },
    Section {
        what: "when PostgreSQL comes back",
        rows: replay::ROWS,
        grows: false,
        measure: |plan, report| Box::pin(replay::measure(plan, report)),
    },
    Section {
        what: "with a full buffer",
        rows: depth::ROWS,
        grows: true,
        measure: |plan, report| Box::pin(depth::measure(plan, report)),
    },
];

/// The harness panics when it cannot do its part: that ends a section, and not the report.
async fn run_section(section: &Section, plan: &Plan, report: &mut Report) {
    let measuring = AssertUnwindSafe((section.measure)(plan, report)).catch_unwind();
    let ended = measuring.await.unwrap_or_else(|_| Err(anyhow!("the harness gave up")));
    if let Err(error) = ended {
        println!("  broken off: {error:#}");
        report.break_off(section.what, section.rows, &format!("{error:#}"));
    }
}
