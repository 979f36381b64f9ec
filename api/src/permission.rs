//! What roles may do. A handler states the permission it needs as its scope; OpenAPI shows it, and
//! requests are held to what OpenAPI shows.

use std::collections::HashMap;
use std::sync::Arc;

use poem::http::Method;
use poem::{PathPattern, Request};
use poem_openapi::OAuthScopes;
use poem_openapi::registry::MetaOAuthScope;
use serde_json::Value;
use shared::domain::Role;

use crate::memo::Memo;

/// What a request needs to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Read one's own tasks.
    TaskRead,
    /// Write one's own tasks.
    TaskWrite,
    /// Read one's own profile.
    ProfileRead,
    /// Write one's own profile.
    ProfileWrite,
    /// Read what became of operations of one's own.
    OperationRead,
    /// Read one's own sessions.
    SessionRead,
    /// End one's own sessions.
    SessionWrite,
    /// Look into the buffer, and read everybody's operations.
    BufferRead,
    /// Act on dead letters and replay.
    BufferWrite,
    /// Read users.
    UserRead,
    /// Set users' roles and standings; erase users.
    UserWrite,
}

impl Permission {
    const ALL: [Self; 11] = [
        Self::TaskRead,
        Self::TaskWrite,
        Self::ProfileRead,
        Self::ProfileWrite,
        Self::OperationRead,
        Self::SessionRead,
        Self::SessionWrite,
        Self::BufferRead,
        Self::BufferWrite,
        Self::UserRead,
        Self::UserWrite,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::TaskRead => "task:read",
            Self::TaskWrite => "task:write",
            Self::ProfileRead => "profile:read",
            Self::ProfileWrite => "profile:write",
            Self::OperationRead => "operation:read",
            Self::SessionRead => "session:read",
            Self::SessionWrite => "session:write",
            Self::BufferRead => "buffer:read",
            Self::BufferWrite => "buffer:write",
            Self::UserRead => "user:read",
            Self::UserWrite => "user:write",
        }
    }

    /// Whether a role has the permission.
    #[must_use]
    pub const fn is_given_to(self, role: Role) -> bool {
        match self {
            Self::TaskRead
            | Self::TaskWrite
            | Self::ProfileRead
            | Self::ProfileWrite
            | Self::OperationRead
            | Self::SessionRead
            | Self::SessionWrite => true,
            Self::BufferRead | Self::BufferWrite => matches!(role, Role::Operator | Role::Admin),
            Self::UserRead | Self::UserWrite => matches!(role, Role::Admin),
        }
    }
}

impl OAuthScopes for Permission {
    fn meta() -> Vec<MetaOAuthScope> {
        let scope = |name: Self| MetaOAuthScope { name: name.as_str(), description: None };
        Self::ALL.into_iter().map(scope).collect()
    }

    fn name(&self) -> &'static str {
        self.as_str()
    }
}

/// The routes as OpenAPI shows them: which methods they have, and which permission each needs.
#[derive(Debug, Default)]
pub struct Routes {
    methods: HashMap<String, Vec<String>>,
    permissions: HashMap<(String, String), Permission>,
    /// What was looked up before: so many as there are routes.
    known: Memo<Route, Option<Permission>>,
}

/// A route as the router names it: its pattern, with the router's own names of parameters.
type Route = (Arc<str>, Method);

impl Routes {
    /// Takes them from an OpenAPI document. A route that names none is left out, and so denied to
    /// everybody who has to show a token for it.
    #[must_use]
    pub fn of(document: &Value) -> Self {
        let mut routes = Self::default();
        let paths = document["paths"].as_object().into_iter().flatten();
        for (path, methods) in paths {
            for (method, operation) in methods.as_object().into_iter().flatten() {
                let (method, path) = (method.to_uppercase(), shape(path));
                routes.methods.entry(path.clone()).or_default().push(method.clone());
                let scope = operation["security"].as_array().and_then(|schemes| {
                    schemes.iter().find_map(|scheme| scheme["bearer"][0].as_str())
                });
                let named = |permission: &Permission| Some(permission.as_str()) == scope;
                if let Some(permission) = Permission::ALL.into_iter().find(named) {
                    routes.permissions.insert((method, path), permission);
                }
            }
        }
        routes
    }

    /// The permission that the route of a request needs; `None` if it states none.
    #[must_use]
    pub fn needed_for(&self, request: &Request) -> Option<Permission> {
        let route = (Arc::clone(&request.data::<PathPattern>()?.0), request.method().clone());
        self.known.of(route, |(pattern, method)| {
            self.permissions.get(&(method.as_str().to_owned(), shape(pattern))).copied()
        })
    }

    /// The methods of the route with this pattern, as the header `Allow` lists them. What is not in
    /// the document can be read.
    #[must_use]
    pub fn allowed_at(&self, pattern: &PathPattern) -> String {
        let methods = self.methods.get(&shape(&pattern.0));
        methods.map_or_else(|| "GET, HEAD".to_owned(), |methods| methods.join(", "))
    }
}

/// A path without the names of its parameters: the router calls `{id}` something else.
fn shape(path: &str) -> String {
    let parts = path
        .trim_end_matches('/')
        .split('/')
        .map(|part| if part.starts_with(':') || part.starts_with('{') { "*" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_that_needs_a_token_states_its_permission() {
        let document: Value = serde_yaml::from_str(&crate::http::openapi_yaml()).unwrap();
        let routes = Routes::of(&document);
        let mut guarded = 0;
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                if operation["security"].as_array().is_none_or(Vec::is_empty) {
                    continue;
                }
                guarded += 1;
                let route = (method.to_uppercase(), shape(path));
                assert!(routes.permissions.contains_key(&route), "{method} {path}");
            }
        }
        assert!(guarded > 20, "{guarded}");
    }

    #[test]
    fn a_route_has_the_same_shape_for_the_router_and_in_the_document() {
        let path = "/api/v1/buffer/dead/{id}/retry";
        assert_eq!(shape("/api/v1/buffer/dead/:param0/retry"), shape(path));
        assert_eq!(shape("/api/v1/buffer/"), shape("/api/v1/buffer"));
        assert_ne!(shape("/api/v1/tasks/:param0"), shape("/api/v1/tasks"));
    }
}
