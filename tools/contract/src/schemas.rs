//! The schemas inside the document, compiled when they are first used.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use jsonschema::{Draft, Validator};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// How many errors of a value are shown.
const SHOWN_ERRORS: usize = 10;

/// Validators by the JSON pointer of their schema.
#[derive(Debug)]
pub(crate) struct Schemas {
    document: Value,
    compiled: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Schemas {
    /// The document's schemas, closed: clients have to accept fields that they do not know, so the document leaves
    /// objects open; what the API sends today has to be documented all the same.
    pub(crate) fn new(document: &Value) -> Self {
        let mut document = document.clone();
        close(&mut document["components"]["schemas"]);
        Self { document, compiled: Mutex::default() }
    }

    /// Checks a value against the schema at this pointer of the document.
    pub(crate) fn check(&self, pointer: &str, value: &Value) -> Result<(), String> {
        let validator = self.validator(pointer)?;
        let mut reasons = String::new();
        for error in validator.iter_errors(value).take(SHOWN_ERRORS) {
            let at = error.instance_path().to_string();
            let at = if at.is_empty() { "(root)" } else { &at };
            let _ = writeln!(reasons, "  {at}: {error}");
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    fn validator(&self, pointer: &str) -> Result<Arc<Validator>, String> {
        let mut compiled = self.compiled.lock();
        if let Some(validator) = compiled.get(pointer) {
            return Ok(Arc::clone(validator));
        }
        let schema =
            self.document.pointer(pointer).ok_or_else(|| format!("there is no schema at {pointer}"))?;
        // The components are at the root, so that references resolve.
        let root = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [schema],
            "components": self.document["components"],
        });
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true)
            .build(&root)
            .map_err(|error| format!("the schema at {pointer} cannot be used: {error}"))?;
        let validator = Arc::new(validator);
        compiled.insert(pointer.to_owned(), Arc::clone(&validator));
        Ok(validator)
    }
}

/// Allows no other fields in any object that names its fields.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(keywords) => {
            keywords.values_mut().for_each(close);
            if keywords.get("properties").is_some_and(Value::is_object)
                && keywords.get("type").is_some_and(|kind| kind == "object")
            {
                keywords.entry("additionalProperties").or_insert(Value::Bool(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}
