//! The interface: which groups of routes it has, and the OpenAPI document that describes them.

use poem_openapi::{OpenApi, OpenApiService};

use super::{buffer, document, health, operations, profile, sessions, tasks, users};
use crate::permission::Routes;

/// The description of the interface and its implementation.
pub(super) fn service() -> OpenApiService<impl OpenApi + 'static, ()> {
    let apis = (
        tasks::TasksApi,
        profile::ProfileApi,
        operations::OperationsApi,
        sessions::SessionsApi,
        users::UsersApi,
        buffer::BufferApi,
        health::HealthApi,
    );
    OpenApiService::new(apis, "Holdfast", env!("CARGO_PKG_VERSION")).description(
        "Tasks and profiles that can be written while the database is away.\n\n\
         A write is answered 201, 200 or 204 when PostgreSQL has committed it. It is answered 202 \
         when the buffer of this host holds it, synced to the disk: PostgreSQL takes no writes, or earlier \
         changes of the same entity are waiting. \
         `meta.sync.state` says which. `GET /api/v1/operations/{id}` says what became of a write.\n\n\
         With PostgreSQL away, reads answer what this host knows and set `meta.stale`. A field of a \
         task or profile that this host does not know is null.\n\n\
         A failure has a code in `error.code`. Each operation lists the codes that it can fail with.",
    )
}

/// The OpenAPI document.
pub(super) fn document() -> serde_json::Value {
    document::complete(&service().spec())
}

/// The OpenAPI document, as YAML; `api/openapi.yaml` is kept equal to it.
#[must_use]
pub fn openapi_yaml() -> String {
    yaml(&document())
}

pub(super) fn yaml(document: &serde_json::Value) -> String {
    // Whatever is JSON can be written as YAML.
    serde_yaml::to_string(document).unwrap_or_default()
}

/// The routes, as the OpenAPI document shows them.
#[must_use]
pub fn documented_routes() -> Routes {
    Routes::of(&document())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_openapi_document_is_the_one_that_is_served() {
        let committed = include_str!("../../openapi.yaml");
        let made = super::openapi_yaml();
        assert!(
            committed.trim_end() == made.trim_end(),
            "run `cargo run -p api -- openapi > api/openapi.yaml`"
        );
    }
}
