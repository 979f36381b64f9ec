//! The OpenAPI document: poem-openapi makes it of the code, and this file adds what poem-openapi cannot
//! express.
//!
//! - Each operation says which permission it needs and lists the codes it can fail with (`failures.rs`).
//! - Bodies allow no unknown fields. Texts have patterns, and enumerations list their values.
//! - A field that is another schema refers to it directly. poem-openapi wraps such a reference in an
//!   `allOf` to give the field a description of its own, and some generators of clients drop those.
//!
//! A test fails if a name that is used here is not in the document.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use shared::domain::{Action, OperationState};

use super::code::Code;
use super::error::has_retry_after;
use super::failures::codes_of;

/// A title: not blank, without NUL.
const TITLE: &str = r"^[^\u0000]*[^\s\u0000][^\u0000]*$";
const NO_NUL: &str = r"^[^\u0000]*$";
const UUID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

const TASK_BODIES: &[&str] = &["NewTask", "WholeTask", "TaskChange"];
/// The set of all codes.
const CODES: &str = "ErrorCode";
/// The states of dead letters.
const DEATHS: [OperationState; 2] = [OperationState::Rejected, OperationState::Expired];
/// Bodies that have to name a field.
const CHANGES: &[&str] = &["TaskChange", "UserChange"];

/// Completes a document.
pub(super) fn complete(document: &str) -> Value {
    // poem-openapi has just written it, so it is JSON.
    let mut document: Value = serde_json::from_str(document).unwrap_or_default();
    if let Some(schemas) =
        document.pointer_mut("/components/schemas").and_then(Value::as_object_mut)
    {
        refer_directly(schemas);
        complete_schemas(schemas);
    }
    let descriptions = descriptions(&document);
    let mut bodies = Vec::new();
    for (path, methods) in document["paths"].as_object_mut().into_iter().flatten() {
        for (_, operation) in methods.as_object_mut().into_iter().flatten() {
            complete_operation(path, operation);
            describe_answers(operation, &descriptions);
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            bodies.extend(schema["$ref"].as_str().map(str::to_owned));
        }
    }
    for body in bodies {
        if let Some(schema) = document.pointer_mut(body.trim_start_matches('#')) {
            schema["additionalProperties"] = false.into();
        }
    }
    document
}

/// What the fields of these schemas have beside what poem-openapi knows.
fn fields() -> Vec<(&'static [&'static str], &'static str, Value)> {
    vec![
        (TASK_BODIES, "title", json!({ "pattern": TITLE })),
        (TASK_BODIES, "description", json!({ "pattern": NO_NUL, "maxLength": 10_000 })),
        (&["TaskChange"], "description", json!({ "nullable": true })),
        (TASK_BODIES, "status", reference("TaskStatus")),
        (&["UserChange"], "role", reference("Role")),
        (&["UserChange"], "status", reference("UserStatus")),
    ]
}

/// What these parameters of these operations have.
fn parameters() -> Vec<(&'static [&'static str], &'static str, Value)> {
    let etag = format!("^(\\*|\"{UUID}\")$");
    let text = json!({ "pattern": TITLE, "minLength": 1, "maxLength": 255 });
    let task_cursor = format!("^[0-9]{{1,17}}_{UUID}$");
    let dead_cursor = format!("^[0-9]{{1,18}}_{UUID}$");
    vec![
        (&["listTasks"], "status", reference("TaskStatus")),
        (&["listTasks"], "order", json!({ "enum": ["asc", "desc"] })),
        (&["listTasks"], "q", text),
        (&["listTasks"], "cursor", json!({ "pattern": task_cursor })),
        (&["listUsers"], "role", reference("Role")),
        (&["listUsers"], "status", reference("UserStatus")),
        (&["listPending"], "action", json!({ "enum": Action::ALL.map(Action::as_str) })),
        (&["listPending"], "cursor", json!({ "pattern": "^[0-9]{1,19}$" })),
        (&["listDead"], "state", json!({ "enum": DEATHS.map(OperationState::as_str) })),
        (&["listDead"], "cursor", json!({ "pattern": dead_cursor })),
        (&["replaceTask", "changeTask", "deleteTask"], "If-Match", json!({ "pattern": etag })),
        (&["createTask"], "Idempotency-Key", json!({ "pattern": "^[!-~]{1,255}$" })),
    ]
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn complete_schemas(schemas: &mut Map<String, Value>) {
    for (bodies, field, more) in fields() {
        for body in bodies {
            if let Some(schema) = schemas.get_mut(*body) {
                complete_schema(&mut schema["properties"][field], &more);
            }
        }
    }
    for change in CHANGES {
        if let Some(schema) = schemas.get_mut(*change) {
            schema["minProperties"] = 1.into();
        }
    }
    if let Some(schema) = schemas.get_mut(CODES) {
        let first =
            "Why a request failed, for programs. Later versions may add codes.\n".to_owned();
        let lines = Code::ALL
            .iter()
            .map(|code| format!("- `{code}` ({}): {}", code.status().as_u16(), code.meaning()));
        let lines: Vec<_> = std::iter::once(first).chain(lines).collect();
        schema["description"] = lines.join("\n").into();
    }
}

/// Gives a schema more; one that refers to another is nothing beside the reference.
fn complete_schema(schema: &mut Value, more: &Value) {
    if more.get("$ref").is_some() {
        *schema = more.clone();
        return;
    }
    for (key, value) in more.as_object().into_iter().flatten() {
        schema[key] = value.clone();
    }
}

/// Takes the fields of all schemas out of the `allOf` in which poem-openapi has wrapped them. A field that
/// may be null as well cannot be a mere reference: it gets the words of the set it refers to.
fn refer_directly(schemas: &mut Map<String, Value>) {
    let named = schemas.clone();
    for (_, schema) in schemas {
        let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
        for (_, field) in fields.into_iter().flatten() {
            let Some(to) = field["allOf"][0]["$ref"].as_str().map(str::to_owned) else { continue };
            if field["nullable"] != true {
                *field = json!({ "$ref": to });
                continue;
            }
            let target = to.rsplit('/').next().and_then(|name| named.get(name));
            let Some(words) = target.and_then(|target| target["enum"].as_array()) else { continue };
            let words: Vec<_> = words.iter().cloned().chain([Value::Null]).collect();
            let description = field["description"].take();
            *field = json!({ "type": "string", "nullable": true, "enum": words });
            if description.is_string() {
                field["description"] = description;
            }
        }
    }
}

fn complete_operation(path: &str, operation: &mut Value) {
    let permission = operation["security"][0]["bearer"][0].as_str();
    if let Some(permission) = permission.map(str::to_owned) {
        let needs = format!("Needs the permission `{permission}`.");
        let described = operation["description"].as_str().map(|more| format!("{more}\n\n{needs}"));
        operation["description"] = described.unwrap_or(needs).into();
    }
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    let listed = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in listed.into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        for (operations, named, more) in parameters() {
            if named == name && operations.contains(&id.as_str()) {
                complete_schema(&mut parameter["schema"], &more);
            }
        }
    }
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes_of(path, operation) {
        by_status.entry(code.status().as_u16()).or_default().push(code);
    }
    for codes in by_status.into_values() {
        add_failures(&mut operation["responses"], &codes);
    }
}

/// The descriptions of all schemas, by the references to them.
fn descriptions(document: &Value) -> BTreeMap<String, Value> {
    let schemas = document["components"]["schemas"].as_object().into_iter().flatten();
    schemas
        .map(|(name, schema)| {
            (format!("#/components/schemas/{name}"), schema["description"].clone())
        })
        .collect()
}

/// Describes each answer that the code leaves without a description by its schema.
fn describe_answers(operation: &mut Value, descriptions: &BTreeMap<String, Value>) {
    for (_, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        let schema = &response["content"]["application/json"]["schema"]["$ref"];
        let description = schema.as_str().and_then(|schema| descriptions.get(schema));
        if let Some(description) = description.filter(|_| response["description"] == "") {
            response["description"] = description.clone();
        }
    }
}

/// Adds the answer with these codes, which have one status. An operation may have another answer with it.
fn add_failures(responses: &mut Value, codes: &[Code]) {
    let Some(status) = codes.first().map(|code| code.status()) else { return };
    let response = &mut responses[status.as_str()];
    let envelope = reference("ErrorEnvelope");
    let schema = response.pointer("/content/application~1json/schema").cloned();
    let other = schema.filter(|schema| *schema != envelope);
    let listed = codes.iter().map(|code| format!("- `{code}`: {}", code.meaning()));
    let mut lines: Vec<String> = listed.collect();
    if other.is_some() {
        let description = response["description"].as_str().unwrap_or_default();
        lines.insert(0, format!("{description} Or a failure:\n"));
    }
    let schema = match other {
        Some(other) => json!({ "oneOf": [other, envelope] }),
        None => envelope,
    };
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    *response = json!({
        "description": lines.join("\n"),
        "content": { "application/json": { "schema": schema } },
        "x-error-codes": names,
    });
    if has_retry_after(status) {
        response["headers"]["Retry-After"] = json!({
            "description": "Seconds after which to try again.",
            "schema": { "type": "integer", "minimum": 1 },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document before it is completed.
    fn made() -> Value {
        serde_json::from_str(&super::super::interface::service().spec()).unwrap()
    }

    #[test]
    fn every_schema_and_field_that_is_completed_is_in_the_document() {
        let document = made();
        let schemas = &document["components"]["schemas"];
        for (bodies, field, more) in fields() {
            for body in bodies {
                assert!(schemas[body]["properties"][field].is_object(), "{body}.{field}");
            }
            assert!(leads_somewhere(&more, &document), "{field}: {more}");
        }
        for named in CHANGES.iter().chain([&CODES]) {
            assert!(schemas[named].is_object(), "{named}");
        }
        assert!(leads_somewhere(&reference("ErrorEnvelope"), &document));
    }

    #[test]
    fn every_parameter_that_is_completed_is_in_the_document() {
        let document = made();
        let has = |id: &str, name: &str| {
            let paths = document["paths"].as_object().unwrap().values();
            let mut operations = paths.flat_map(|methods| methods.as_object().unwrap().values());
            let operation = operations.find(|operation| operation["operationId"] == id);
            let parameters = operation.and_then(|operation| operation["parameters"].as_array());
            parameters.is_some_and(|listed| listed.iter().any(|listed| listed["name"] == name))
        };
        for (operations, name, more) in parameters() {
            for operation in operations {
                assert!(has(operation, name), "{operation}: {name}");
            }
            assert!(leads_somewhere(&more, &document), "{name}: {more}");
        }
    }

    #[test]
    fn every_schema_is_sound_none_is_wrapped_and_every_reference_leads_somewhere() {
        let document = super::super::interface::document();
        let mut waiting = vec![&document];
        while let Some(value) = waiting.pop() {
            assert!(value.get("allOf").is_none(), "{value}");
            assert!(value.get("properties").is_none_or(Value::is_object), "{value}");
            assert!(leads_somewhere(value, &document), "{value}");
            match value {
                Value::Object(map) => waiting.extend(map.values()),
                Value::Array(items) => waiting.extend(items),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
    }

    /// Whether a reference, if the value is one, is to something in the document.
    fn leads_somewhere(value: &Value, document: &Value) -> bool {
        let target = value.get("$ref").and_then(Value::as_str);
        target.is_none_or(|to| document.pointer(to.trim_start_matches('#')).is_some())
    }
}
