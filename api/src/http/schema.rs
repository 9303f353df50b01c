//! The shape of request and response bodies, as JSON Schema derived from the Rust type: a test compares the API
//! description with it.

use atrium_shared::messages::LiveEvent;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

/// A body, or a part of one: its name among the components of the API description, and its schema.
#[derive(Clone, Debug)]
pub struct Component {
    /// The name in `components.schemas`.
    pub name: &'static str,
    /// The schema of the type, without references.
    pub schema: Value,
    /// The event's name, if it is the data of one.
    pub event: Option<&'static str>,
}

/// The component for `T` as it is sent.
pub(crate) fn component<T: JsonSchema>(name: &'static str) -> Component {
    generate::<T>(name, SchemaSettings::draft2020_12().for_serialize())
}

/// The component for the data of an event.
pub(crate) fn event_component<E: LiveEvent + JsonSchema>(name: &'static str) -> Component {
    Component { event: Some(E::NAME), ..component::<E>(name) }
}

/// The component for `T` as it is received. Whether other fields are rejected is up to the type.
pub(crate) fn received<T: JsonSchema>(name: &'static str) -> Component {
    generate::<T>(name, SchemaSettings::draft2020_12().for_deserialize())
}

fn generate<T: JsonSchema>(name: &'static str, settings: SchemaSettings) -> Component {
    let settings = settings.with(|settings| settings.inline_subschemas = true);
    Component { name, schema: settings.into_generator().into_root_schema_for::<T>().to_value(), event: None }
}
