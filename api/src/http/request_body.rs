//! Typed bodies of requests. Each field is declared in one place.
//!
//! `request_body!` declares the type and how each field is parsed. All fields are parsed even if one is invalid, so
//! that a response lists every error. A test compares the type's schema with the API description.

use schemars::JsonSchema;

use super::{
    body::{Object, name},
    schema::{Component, received},
};

/// A request body, read from the fields of a JSON object.
pub trait RequestBody: JsonSchema + Sized {
    /// Takes all fields from the object, which collects their errors. `None` if any field is invalid.
    fn take(object: &mut Object) -> Option<Self>;
}

/// Declares the body of a request. Each field names the method of [`Object`] that takes it, and the function that
/// parses its value: `name: Type = required(parse)`, or `name: Option<Type> = optional(parse)`. Unknown fields are
/// rejected.
macro_rules! request_body {
    (
        $(#[$about:meta])*
        $visibility:vis struct $body:ident {
            $($(#[$about_field:meta])* $field_visibility:vis $field:ident: $type:ty = $method:ident($check:expr),)*
        }
    ) => {
        $(#[$about])*
        #[derive(schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        $visibility struct $body {
            $($(#[$about_field])* $field_visibility $field: $type,)*
        }

        impl $crate::http::request_body::RequestBody for $body {
            fn take(object: &mut $crate::http::body::Object) -> Option<Self> {
                $(let $field = object.$method(stringify!($field), $check);)*
                Some(Self { $($field: $field?,)* })
            }
        }
    };
}

pub(crate) use request_body;

/// The body of a request without input.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Empty {}

impl RequestBody for Empty {
    fn take(_object: &mut Object) -> Option<Self> {
        Some(Self {})
    }
}

request_body! {
    /// The name of a resource that is created or renamed.
    pub struct Naming {
        /// The name.
        pub name: String = required(name),
    }
}

/// The schemas of the bodies that this module reads, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![received::<Empty>("Empty"), received::<Naming>("Naming")]
}
