//! The OpenAPI document, generated from the handlers and the view types; the flow document's own
//! schema is put into it.

use std::sync::OnceLock;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use utoipa::openapi::{Ref, RefOr, schema::Schema};

/// The whole document.
pub fn document() -> Value {
    let (_, api) = super::documented().split_for_parts();
    let mut document = serde_json::to_value(&api).unwrap_or_default();
    document["info"] = json!({
        "title": "Tenure",
        "version": env!("CARGO_PKG_VERSION"),
        "license": { "name": "Apache-2.0" },
        "description": "Keeps every feed running on exactly one node of a cluster. Errors are application/problem+json with a stable code.",
    });
    for call in document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut)
    {
        let changing = call.iter_mut().filter(|(method, _)| matches!(method.as_str(), "put" | "post" | "delete"));
        changing.for_each(|(_, operation)| repeatable(operation));
    }
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        embed_flow(schemas);
    }
    document
}

/// A call that changes something may be repeated under one key.
fn repeatable(operation: &mut Value) {
    let key = json!({
        "name": "Idempotency-Key",
        "in": "header",
        "required": false,
        "description": "The same call with the same key, sent again to the same server, gets the first answer again.",
        "schema": { "type": "string", "minLength": 1, "maxLength": super::idempotency::KEY_MAX },
    });
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.push(key),
        None => operation["parameters"] = json!([key]),
    }
}

/// The JSON Schema of a flow document.
pub fn flow_schema() -> Value {
    serde_json::to_value(schemars::schema_for!(tenure_core::flow::Document)).unwrap_or_default()
}

/// Points at the flow document's schema.
pub(super) fn flow_ref() -> RefOr<Schema> {
    RefOr::Ref(Ref::new("#/components/schemas/Flow"))
}

/// Answers `/openapi.json`.
pub(super) async fn answer() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| document().to_string());
    ([(header::CONTENT_TYPE, "application/json")], text.as_str()).into_response()
}

/// Moves the schema's own definitions among the document's.
fn embed_flow(schemas: &mut Map<String, Value>) {
    let mut flow = flow_schema();
    let parts = flow.as_object_mut().and_then(|f| f.remove("$defs"));
    if let Some(object) = flow.as_object_mut() {
        object.remove("$schema");
    }
    repoint(&mut flow);
    for (name, mut part) in parts.as_ref().and_then(Value::as_object).cloned().unwrap_or_default() {
        repoint(&mut part);
        schemas.insert(format!("Flow.{name}"), part);
    }
    schemas.insert("Flow".to_owned(), flow);
    schemas.insert("Flows".to_owned(), json!({ "type": "array", "items": { "$ref": "#/components/schemas/Flow" } }));
}

fn repoint(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref") {
                *target = target.replace("#/$defs/", "#/components/schemas/Flow.");
            }
            map.values_mut().for_each(repoint);
        }
        Value::Array(items) => items.iter_mut().for_each(repoint),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}
