//! Compares the components of the API description with the schemas of the Rust types that are sent and received.
//!
//! Both sides are reduced to what a Rust type expresses: its type, whether it may be null, the format of a text, the
//! values of a closed list, the fields of an object, which of them are required and whether other fields are allowed.
//! Lengths, patterns, descriptions and examples are in the document only.

use std::collections::{BTreeMap, BTreeSet};

use atrium_api::schemas;
use atrium_contract::Contract;
use serde_json::Value;

/// Components without a Rust type, and the reasons.
const WITHOUT_TYPE: &[(&[&str], &str)] = &[
    (
        &["Uuid", "Timestamp", "NullableTimestamp", "JsonValue"],
        "values that the components with a type refer to; they are compared there",
    ),
    (
        &["RequestId", "Name", "NextCursor", "StepName", "ConfigKey", "Revision", "Reason"],
        "texts and numbers within bounds, which a Rust type does not carry",
    ),
    (&["Jwks", "Jwk"], "types of the library that makes the tokens"),
    (
        &["OperationStreamData", "ChatStreamData", "ConfigStreamData"],
        "the events of a stream, which have a type each",
    ),
];

/// Paths where the document is narrower than the Rust type, and the reasons.
const NARROWER: &[(&str, &str)] = &[
    ("GuestSession/token_type", "a constant"),
    ("AuditEntry/before", "JSON in the database"),
    ("AuditEntry/after", "JSON in the database"),
    ("AuditEntryList/items[]/before", "JSON in the database"),
    ("AuditEntryList/items[]/after", "JSON in the database"),
    ("ConfigValue/schema", "a JSON Schema"),
    ("ConfigEntry/schema", "a JSON Schema"),
    ("ConfigList/items[]/schema", "a JSON Schema"),
];

/// What a Rust type expresses of a value. Without types, it is any JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shape {
    types: BTreeSet<String>,
    format: Option<String>,
    values: Option<BTreeSet<String>>,
    fields: BTreeMap<String, Shape>,
    required: BTreeSet<String>,
    others: Others,
    items: Option<Box<Shape>>,
}

/// The fields of an object that its schema does not name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Others {
    /// Any are allowed.
    #[default]
    Any,
    /// None are allowed.
    None,
    /// Fields with values of this shape are allowed.
    Of(Box<Shape>),
}

impl Shape {
    /// The shape that a schema describes; references are resolved in `document`.
    fn of(schema: &Value, document: &Value) -> Self {
        let mut shape = Self::default();
        if let Some(pointer) = schema["$ref"].as_str() {
            let target = document.pointer(pointer.trim_start_matches('#'));
            shape = Self::of(target.unwrap_or_else(|| panic!("{pointer} does not resolve")), document);
        }
        for name in ["oneOf", "anyOf"] {
            for part in schema[name].as_array().into_iter().flatten() {
                shape.add(Self::of(part, document));
            }
        }
        match &schema["type"] {
            Value::String(name) => shape.types = BTreeSet::from([name.clone()]),
            Value::Array(names) => {
                shape.types = names.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            }
            _ => {}
        }
        let constant = schema.get("const").map(std::slice::from_ref);
        if let Some(values) = schema["enum"].as_array().map(Vec::as_slice).or(constant) {
            let (nulls, values): (Vec<_>, Vec<_>) = values.iter().partition(|value| value.is_null());
            // Where a list of texts is the whole schema, it implies the type.
            if shape.types.is_empty() && values.iter().all(|value| value.is_string()) {
                shape.types.insert("string".to_owned());
                shape.types.extend(nulls.first().map(|_| "null".to_owned()));
            }
            shape.values = Some(values.iter().map(ToString::to_string).collect());
        }
        // The format of a number is its width in Rust, which is not part of the contract.
        if shape.types.contains("string")
            && let Some(format) = schema["format"].as_str()
        {
            shape.format = Some(format.to_owned());
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            shape.fields.insert(name.clone(), Self::of(field, document));
        }
        let required = schema["required"].as_array().into_iter().flatten();
        shape.required.extend(required.filter_map(Value::as_str).map(str::to_owned));
        shape.others = match &schema["additionalProperties"] {
            Value::Bool(false) => Others::None,
            values @ Value::Object(_) => Others::Of(Box::new(Self::of(values, document))),
            _ => shape.others,
        };
        if let Some(items) = schema.get("items") {
            shape.items = Some(Box::new(Self::of(items, document)));
        }
        shape
    }

    /// Merges another alternative of the same value.
    fn add(&mut self, other: Self) {
        let first = self.types.is_empty();
        let only_null = other.types.iter().eq(["null"]);
        self.types.extend(other.types);
        if only_null {
            return;
        }
        match (&mut self.values, other.values) {
            (Some(values), Some(others)) => values.extend(others),
            (values @ None, others) if first => *values = others,
            _ => {}
        }
        self.format = self.format.take().or(other.format);
        self.fields.extend(other.fields);
        self.required.extend(other.required);
        if self.others == Others::Any {
            self.others = other.others;
        }
        self.items = self.items.take().or(other.items);
    }
}

/// Adds each difference between the document and the type to `faults`. Listed narrowings go to `narrower`.
fn compare(
    path: &str,
    rust: &Shape,
    document: &Shape,
    faults: &mut Vec<String>,
    narrower: &mut BTreeSet<String>,
) {
    if NARROWER.iter().any(|(known, _)| *known == path) {
        let any = rust.types.is_empty();
        let fewer_types = any || document.types.is_subset(&rust.types);
        let fewer_values = match (&rust.values, &document.values) {
            (Some(all), Some(some)) => some.is_subset(all),
            (Some(_), None) => document.types.iter().eq(["null"]),
            (None, _) => true,
        };
        let same_format = any || rust.format == document.format || document.types.iter().eq(["null"]);
        if !(fewer_types && fewer_values && same_format) {
            faults.push(format!(
                "{path}: the document is not narrower: {rust:?} in Rust, {document:?} in the document"
            ));
        }
        if rust != document {
            narrower.insert(path.to_owned());
        }
        return;
    }
    if rust.types != document.types {
        faults.push(format!("{path}: {:?} in Rust, {:?} in the document", rust.types, document.types));
    }
    if rust.format != document.format {
        faults
            .push(format!("{path}: format {:?} in Rust, {:?} in the document", rust.format, document.format));
    }
    if rust.values != document.values {
        faults
            .push(format!("{path}: values {:?} in Rust, {:?} in the document", rust.values, document.values));
    }
    if rust.required != document.required {
        faults.push(format!(
            "{path}: required are {:?} in Rust, {:?} in the document",
            rust.required, document.required
        ));
    }
    let names: BTreeSet<_> = rust.fields.keys().chain(document.fields.keys()).collect();
    for name in names {
        match (rust.fields.get(name), document.fields.get(name)) {
            (Some(rust_field), Some(field)) => {
                let mut rust_field = rust_field.clone();
                // A field that is omitted when it is `None` is never null.
                if !rust.required.contains(name) {
                    rust_field.types.remove("null");
                }
                compare(&format!("{path}/{name}"), &rust_field, field, faults, narrower);
            }
            (Some(_), None) => faults.push(format!("{path}/{name}: missing in the document")),
            _ => faults.push(format!("{path}/{name}: missing in Rust")),
        }
    }
    match (&rust.others, &document.others) {
        (Others::Of(rust), Others::Of(document)) => {
            compare(&format!("{path}/*"), rust, document, faults, narrower);
        }
        (rust, document) if rust == document => {}
        (rust, document) => {
            faults.push(format!("{path}: other fields: {rust:?} in Rust, {document:?} in the document"));
        }
    }
    match (&rust.items, &document.items) {
        (Some(rust), Some(document)) => compare(&format!("{path}[]"), rust, document, faults, narrower),
        (None, None) => {}
        _ => faults.push(format!("{path}: only one side has items")),
    }
}

#[test]
fn contract_components_match_their_rust_types() {
    let contract = Contract::load().unwrap();
    let document = contract.document();
    let documented = document["components"]["schemas"].as_object().unwrap();
    let mut faults = Vec::new();
    let mut narrower = BTreeSet::new();
    let mut known = BTreeSet::new();
    for component in schemas::components() {
        assert!(known.insert(component.name), "{} is registered twice", component.name);
        let Some(schema) = documented.get(component.name) else {
            faults.push(format!("{}: missing in the document", component.name));
            continue;
        };
        let rust = Shape::of(&component.schema, &component.schema);
        compare(component.name, &rust, &Shape::of(schema, document), &mut faults, &mut narrower);
    }
    for name in WITHOUT_TYPE.iter().flat_map(|(names, _)| *names) {
        assert!(known.insert(name), "{name} has a type, and is listed as one without");
        if !documented.contains_key(*name) {
            faults.push(format!("{name}: listed as one without a type, and missing in the document"));
        }
    }
    for name in documented.keys().filter(|name| !known.contains(name.as_str())) {
        faults.push(format!("{name}: neither registered in api/src nor listed as one without a type"));
    }
    for (path, _) in NARROWER.iter().filter(|(path, _)| !narrower.contains(*path)) {
        faults.push(format!("{path}: listed as narrower than its type, and is not"));
    }
    assert!(faults.is_empty(), "docs/api/openapi.yaml and the types differ:\n{}", faults.join("\n"));
}

#[test]
fn contract_events_match_their_rust_types() {
    let contract = Contract::load().unwrap();
    let mut documented = BTreeSet::new();
    for operation in contract.document()["paths"].as_object().unwrap().values() {
        let events = &operation["get"]["responses"]["200"]["content"]["text/event-stream"]["x-sse-events"];
        for (name, data) in events.as_object().into_iter().flatten() {
            documented.insert((name.as_str(), data["$ref"].as_str().unwrap().to_owned()));
        }
    }
    let components = schemas::components();
    let sent: BTreeSet<_> = components
        .iter()
        .filter_map(|component| Some((component.event?, format!("#/components/schemas/{}", component.name))))
        .collect();
    assert_eq!(sent, documented, "the events in Rust, and those in docs/api/openapi.yaml");
}
