//! The HTTP interface: routes, bodies of requests and answers, and errors.

mod auth;
mod body;
mod buffer;
mod buffer_view;
mod code;
mod document;
mod envelope;
mod error;
mod failures;
mod headers;
mod health;
mod interface;
mod list_query;
mod metered;
mod operations;
mod parameters;
mod profile;
mod ready;
mod sessions;
mod shell;
mod site;
mod task_answers;
mod task_input;
mod tasks;
mod user_view;
mod users;
mod written;

pub use interface::{documented_routes, openapi_yaml};
pub use shell::connection_refusal;
pub use site::Site;
