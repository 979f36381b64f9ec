//! The tests of the whole product, a file per theme.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod aging;
mod backoff;
mod bad_input;
mod conflicts;
mod error_classes;
mod harness;
mod lanes;
mod load;
mod lost_ack;
mod migration;
mod neighbours;
mod node;
mod online;
mod operator;
mod outage;
mod ownership;
mod redis;
mod retention;
mod settings;
mod startup;
mod story;
mod two_nodes;
mod workers;
