//! The test harness: the real product between real servers, with a line that can be broken.
//!
//! Nothing is mocked. A [`World`] is a private PostgreSQL (fsync on), a private Redis, a [`Proxy`]
//! in front of each, and the product's own binaries as separate processes. All of it listens on
//! 127.0.0.1 on free ports, lives in one folder under the target folder, and is gone when the
//! world is dropped. The same parts drive `holdfast-dev`, which `make dev` runs, and `holdfast-bench`,
//! which `make bench` runs.
//!
//! Linux only: processes are found and watched through `/proc`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness that cannot do its part must fail the test loudly, where it happened"
)]

pub mod bench;
pub mod dev;
pub mod fuzz;
pub mod signals;
pub mod token;

mod account;
mod binaries;
mod client;
mod disk;
mod faketime;
mod launch;
mod ports;
mod postgres;
mod preload;
mod probe;
mod process;
mod proxy;
mod redis;
mod scratch;
mod wait;
mod world;

pub use account::Account;
pub use binaries::binaries;
pub use client::{Answer, Client};
pub use disk::{Disk, DiskCall};
pub use faketime::WallClock;
pub use launch::Launch;
pub use ports::{free_port, is_free};
pub use postgres::{Cluster, Postgres, Programs};
pub use probe::Probe;
pub use process::Process;
pub use proxy::{Ending, LineCounts, Proxy};
pub use redis::Redis;
pub use scratch::{place, scratch_folder};
pub use wait::{wait_for, wait_until};
pub use world::{Builder, World};
