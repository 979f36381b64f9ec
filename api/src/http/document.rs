//! The OpenAPI document: what poem-openapi makes of the code, completed with what it cannot express.
//! Bodies take no other fields than theirs, names come from closed sets, texts have patterns, and each
//! operation tells its permission.

use serde_json::{Map, Value, json};
use shared::domain::{Action, Role, Standing, TaskStatus};

/// A title: not blank, without NUL.
const TITLE: &str = r"^[^\u0000]*[^\s\u0000][^\u0000]*$";
const NO_NUL: &str = r"^[^\u0000]*$";
const UUID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

/// Completes a document.
pub(super) fn complete(document: &str) -> Value {
    // poem-openapi has just written it, so it is JSON.
    let mut document: Value = serde_json::from_str(document).unwrap_or_default();
    let schemas = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut);
    if let Some(schemas) = schemas {
        complete_schemas(schemas);
    }
    let mut bodies = Vec::new();
    for (_, methods) in document["paths"].as_object_mut().into_iter().flatten() {
        for (_, operation) in methods.as_object_mut().into_iter().flatten() {
            complete_operation(operation);
            if operation["operationId"] == "health" {
                // It has two answers with this status: degraded, or not even that can be told.
                let told = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
                operation["responses"]["503"]["content"]["application/json"]["schema"] =
                    json!({ "oneOf": [told("HealthRead"), told("ErrorEnvelope")] });
            }
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

fn complete_schemas(schemas: &mut Map<String, Value>) {
    let statuses = || names(TaskStatus::ALL.map(TaskStatus::as_str));
    for body in ["NewTask", "WholeTask", "TaskChange"] {
        let Some(schema) = schemas.get_mut(body) else { continue };
        let fields = &mut schema["properties"];
        fields["title"]["pattern"] = TITLE.into();
        fields["description"]["pattern"] = NO_NUL.into();
        fields["description"]["maxLength"] = 10_000.into();
        fields["status"]["enum"] = statuses();
    }
    if let Some(change) = schemas.get_mut("UserChange") {
        change["properties"]["role"]["enum"] = names(Role::ALL.map(Role::as_str));
        change["properties"]["status"]["enum"] = names(Standing::ALL.map(Standing::as_str));
    }
    for change in ["TaskChange", "UserChange"] {
        if let Some(schema) = schemas.get_mut(change) {
            schema["minProperties"] = 1.into();
        }
    }
}

fn complete_operation(operation: &mut Value) {
    let permission = operation["security"][0]["bearer"][0].as_str();
    if let Some(permission) = permission.map(str::to_owned) {
        operation["description"] = format!("Needs the permission `{permission}`.").into();
    }
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        for (key, value) in constraints(&id, &name) {
            parameter["schema"][key] = value;
        }
    }
}

/// What a parameter's schema lacks.
fn constraints(operation: &str, parameter: &str) -> Vec<(&'static str, Value)> {
    let one = |key: &'static str, value: Value| vec![(key, value)];
    match (operation, parameter) {
        ("listTasks", "status") => one("enum", names(TaskStatus::ALL.map(TaskStatus::as_str))),
        ("listTasks", "order") => one("enum", json!(["asc", "desc"])),
        ("listTasks", "q") => {
            vec![("pattern", TITLE.into()), ("minLength", 1.into()), ("maxLength", 255.into())]
        }
        ("listTasks", "cursor") => one("pattern", format!("^[0-9]{{1,17}}_{UUID}$").into()),
        ("listUsers", "role") => one("enum", names(Role::ALL.map(Role::as_str))),
        ("listUsers", "status") => one("enum", names(Standing::ALL.map(Standing::as_str))),
        ("listPending", "action") => one("enum", names(Action::ALL.map(Action::as_str))),
        ("listPending", "cursor") => one("pattern", "^[0-9]{1,19}$".into()),
        ("listDead", "state") => one("enum", json!(["rejected", "expired"])),
        ("listDead", "cursor") => one("pattern", format!("^[0-9]{{1,18}}_{UUID}$").into()),
        (_, "If-Match") => one("pattern", format!("^(\\*|\"{UUID}\")$").into()),
        (_, "Idempotency-Key") => one("pattern", "^[!-~]{1,255}$".into()),
        _ => Vec::new(),
    }
}

fn names<const N: usize>(names: [&str; N]) -> Value {
    json!(names.as_slice())
}
