//! The bodies of requests about tasks, and how they are parsed. One answer names all that is wrong with
//! a body.

use poem_openapi::Object;
use poem_openapi::types::MaybeUndefined;
use serde::Deserialize;
use shared::domain::{Description, Invalid, TaskFields, TaskPatch, TaskStatus, Title};

use super::error::{ApiError, FieldProblem};
use crate::shapes::Nullable;

/// The fields of a new task. `status` is `pending` if it is not given.
#[derive(Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
pub struct NewTask {
    /// 1 to 255 characters, not blank.
    #[oai(validator(min_length = 1, max_length = 255))]
    title: String,
    /// Up to 10,000 characters, or null.
    #[oai(default)]
    #[serde(default)]
    description: Nullable<String>,
    /// How far the task is; `pending` if not given.
    #[serde(default, deserialize_with = "present")]
    status: Option<String>,
}

/// All fields of a task.
#[derive(Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
pub struct WholeTask {
    /// 1 to 255 characters, not blank.
    #[oai(validator(min_length = 1, max_length = 255))]
    title: String,
    /// Up to 10,000 characters, or null.
    #[serde(deserialize_with = "Nullable::deserialize")]
    description: Nullable<String>,
    /// How far the task is.
    status: String,
}

/// The fields of a task that are to change, at least one.
#[derive(Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
pub struct TaskChange {
    /// 1 to 255 characters, not blank.
    #[oai(validator(min_length = 1, max_length = 255))]
    #[serde(default, deserialize_with = "present")]
    title: Option<String>,
    /// Up to 10,000 characters. Null removes the description.
    #[oai(validator(max_length = 10_000))]
    #[serde(default)]
    description: MaybeUndefined<String>,
    /// How far the task is.
    #[serde(default, deserialize_with = "present")]
    status: Option<String>,
}

/// Takes a field that may be missing but not null.
pub(super) fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// Collects what is wrong with a body, so that a client learns all of it at once.
#[derive(Default)]
struct Problems(Vec<FieldProblem>);

impl Problems {
    fn take<T>(&mut self, field: &str, parsed: Result<T, Invalid>) -> Option<T> {
        parsed
            .map_err(|invalid| {
                self.0.push(FieldProblem { field: field.to_owned(), message: invalid.to_string() });
            })
            .ok()
    }

    fn fields(
        mut self,
        title: String,
        description: Option<String>,
        status: Option<&str>,
    ) -> Result<TaskFields, ApiError> {
        let title = self.take("title", Title::try_from(title));
        let description = description.map(Description::try_from).transpose();
        let description = self.take("description", description);
        let status = status.map_or(Ok(TaskStatus::default()), TaskStatus::parse);
        let status = self.take("status", status);
        match (title, description, status) {
            (Some(title), Some(description), Some(status)) => {
                Ok(TaskFields { title, description, status })
            }
            _ => Err(ApiError::fields(self.0)),
        }
    }
}

impl NewTask {
    pub(super) fn parse(self) -> Result<TaskFields, ApiError> {
        Problems::default().fields(self.title, self.description.0, self.status.as_deref())
    }
}

impl WholeTask {
    pub(super) fn parse(self) -> Result<TaskFields, ApiError> {
        Problems::default().fields(self.title, self.description.0, Some(&self.status))
    }
}

impl TaskChange {
    pub(super) fn parse(self) -> Result<TaskPatch, ApiError> {
        let mut problems = Problems::default();
        let title = self.title.map(Title::try_from).transpose();
        let title = problems.take("title", title).flatten();
        let description = match self.description {
            MaybeUndefined::Undefined => None,
            MaybeUndefined::Null => Some(None),
            MaybeUndefined::Value(text) => {
                problems.take("description", Description::try_from(text)).map(Some)
            }
        };
        let status = self.status.as_deref().map(TaskStatus::parse).transpose();
        let status = problems.take("status", status).flatten();
        let patch = TaskPatch { title, description, status };
        if !problems.0.is_empty() {
            return Err(ApiError::fields(problems.0));
        }
        if patch.is_empty() {
            return Err(ApiError::field("body", "must name at least one field"));
        }
        Ok(patch)
    }
}
