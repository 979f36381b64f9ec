//! What the api and the worker have in common: the types of the domain, the buffer file, the store in
//! PostgreSQL, and the write path that chooses between the two.
//!
//! Dependencies run one way: [`writes`] uses [`store`], [`buffer`] and [`cache`], which use [`domain`].
//! The cache uses the buffer. The domain uses neither sea-orm, redis nor redb.

pub mod attention;
pub mod buffer;
pub mod cache;
pub mod domain;
pub mod gather;
pub mod guard;
pub mod host_clock;
pub mod metric;
pub mod online;
pub mod redis;
pub mod sessions;
pub mod settings;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod writes;
