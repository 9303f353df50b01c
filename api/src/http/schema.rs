//! The shape of what is sent, as JSON Schema made from the Rust type: a test holds the API description against it.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

/// A body, or a part of one: its name among the components of the API description, and its schema.
#[derive(Clone, Debug)]
pub struct Component {
    /// The name in `components.schemas`.
    pub name: &'static str,
    /// The schema of the type as it is sent, without references.
    pub schema: Value,
}

/// The component that `T` is.
pub(crate) fn component<T: JsonSchema>(name: &'static str) -> Component {
    let settings =
        SchemaSettings::draft2020_12().for_serialize().with(|settings| settings.inline_subschemas = true);
    Component { name, schema: settings.into_generator().into_root_schema_for::<T>().to_value() }
}
