//! The tests of the whole product, a file per theme.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod aging;
mod asserted;
mod at_rest;
mod backoff;
mod bad_input;
mod cache;
mod cache_and_postgres;
mod clocks;
mod columns;
mod conflicts;
mod connections;
mod creates;
mod damage;
mod disk;
mod erasure;
mod error_classes;
mod harness;
mod headers;
mod health;
mod interleavings;
mod keys;
mod lanes;
mod limits;
mod lists;
mod load;
mod lost_ack;

mod metrics;
mod migration;
mod neighbours;
mod node;
mod online;
mod operator;
mod outage;
mod ownership;
mod redis;
mod repeats;
mod retention;
mod roaming;
mod security;
mod sessions;
mod settings;
mod silence;
mod startup;
mod story;
mod two_nodes;
mod users;
mod workers;
