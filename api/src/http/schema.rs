//! JSON Schemas of request and response bodies, generated from the Rust types. A test compares the API description with
//! them.

use atrium_shared::messages::LiveEvent;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

/// A body or a part of one: its name in the API description, and its schema.
#[derive(Clone, Debug)]
pub struct Component {
    /// The name in `components.schemas`.
    pub name: &'static str,
    /// The schema of the type, without references.
    pub schema: Value,
    /// The name of the event whose data this is, if any.
    pub event: Option<&'static str>,
}

/// The component for a `T` that the API sends.
pub(crate) fn component<T: JsonSchema>(name: &'static str) -> Component {
    generate::<T>(name, SchemaSettings::draft2020_12().for_serialize())
}

/// The component for the data of an event.
pub(crate) fn event_component<E: LiveEvent + JsonSchema>(name: &'static str) -> Component {
    Component { event: Some(E::NAME), ..component::<E>(name) }
}

/// The component for a `T` that the API receives. The type decides whether unknown fields are rejected.
pub(crate) fn received<T: JsonSchema>(name: &'static str) -> Component {
    generate::<T>(name, SchemaSettings::draft2020_12().for_deserialize())
}

fn generate<T: JsonSchema>(name: &'static str, settings: SchemaSettings) -> Component {
    let settings = settings.with(|settings| settings.inline_subschemas = true);
    Component { name, schema: settings.into_generator().into_root_schema_for::<T>().to_value(), event: None }
}
