//! What this run measures, how long, and with how much data.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use super::Arguments;
use super::bars::BARS;
use crate::launch::find_program;
use crate::postgres::Programs;

/// A run, decided before anything starts.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) arguments: Arguments,
    pub(super) sizes: Sizes,
    pub(super) wrk: PathBuf,
    pub(super) pgbench: PathBuf,
    pub(super) psql: PathBuf,
}

/// How much data each measurement has.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    /// Users that send creates.
    pub(super) users: usize,
    /// Tasks that are read by id.
    pub(super) tasks_read: usize,
    /// Tasks of the users whose lists are read, ascending.
    pub(super) lists: [u64; 3],
    /// The page of the longest list that is read by cursor.
    pub(super) page: u64,
    /// Operations that are replayed against the clock.
    pub(super) replayed: u64,
    /// Operations of the buffer whose file is to be given back.
    pub(super) reclaimed: u64,
    /// Depths of the buffer at which appending is measured, ascending, from 0.
    pub(super) depths: [u64; 4],
    /// Users whose operations fill the buffer.
    pub(super) users_in_buffer: usize,
    /// Connections for which creating is measured.
    pub(super) connections: &'static [u32],
}

impl Sizes {
    const FULL: Self = Self {
        users: 200,
        tasks_read: 5_000,
        lists: [100, 10_000, 100_000],
        page: 1_000,
        replayed: 100_000,
        reclaimed: 200_000,
        depths: [0, 10_000, 100_000, 1_000_000],
        users_in_buffer: 10_000,
        connections: &[1, 4, 16, 64, 128, 256, 512],
    };

    const QUICK: Self = Self {
        users: 50,
        tasks_read: 500,
        lists: [100, 1_000, 10_000],
        page: 100,
        replayed: 10_000,
        reclaimed: 20_000,
        depths: [0, 1_000, 10_000, 50_000],
        users_in_buffer: 1_000,
        connections: &[1, 16, 128],
    };

    pub(super) fn deepest(&self) -> u64 {
        self.depths[self.depths.len() - 1]
    }
}

impl Plan {
    /// Decides, and makes sure that the programs are there.
    pub(super) fn new(arguments: Arguments) -> anyhow::Result<Self> {
        for name in &arguments.only {
            let known = BARS.iter().any(|bar| bar.name.contains(name.as_str()));
            let names = || BARS.iter().map(|bar| bar.name).collect::<Vec<_>>().join(", ");
            known.then_some(()).with_context(|| format!("no row {name}; there are {}", names()))?;
        }
        let sizes = if arguments.quick { Sizes::QUICK } else { Sizes::FULL };
        let wrk = find_program("wrk");
        let wrk = wrk.context("wrk is not installed; try `scripts/setup.sh bench`")?;
        let programs = Programs::newest()?;
        let (pgbench, psql) = (programs.program("pgbench"), programs.program("psql"));
        Ok(Self { arguments, sizes, wrk, pgbench, psql })
    }

    /// Whether a row is to be measured.
    pub(super) fn wants(&self, row: &str) -> bool {
        let only = &self.arguments.only;
        only.is_empty() || only.iter().any(|name| row.contains(name.as_str()))
    }

    /// Whether any of these rows is to be measured.
    pub(super) fn wants_any(&self, rows: &[&str]) -> bool {
        rows.iter().any(|row| self.wants(row))
    }

    /// Whether it is to be measured how figures grow.
    pub(super) fn grows(&self) -> bool {
        let everything = !self.arguments.quick && self.arguments.only.is_empty();
        self.arguments.growth || everything
    }

    pub(super) fn rounds(&self) -> u32 {
        self.arguments.rounds
    }

    /// How long one round of load takes.
    pub(super) fn round(&self) -> Duration {
        Duration::from_secs(self.arguments.seconds.into())
    }
}
