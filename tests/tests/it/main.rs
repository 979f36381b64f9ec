//! The tests of the whole product, a file per theme.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod bad_input;
mod error_classes;
mod harness;
mod load;
mod lost_ack;
mod migration;
mod online;
mod outage;
mod ownership;
mod redis;
mod settings;
mod startup;
mod story;
