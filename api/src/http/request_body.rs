//! What handlers take from the bodies of requests: a type for each, so that a field stands in one place.
//!
//! `request_body!` declares the type and how each field is taken. All fields are taken before the first mistake
//! counts, so an answer lists every mistake. The type's schema is held against the API description by a test.

use schemars::JsonSchema;

use super::{
    body::{Object, name},
    schema::{Component, received},
};

/// The body of a request, made from the fields of a JSON object.
pub trait RequestBody: JsonSchema + Sized {
    /// Takes all fields from the object, which collects what is wrong with them. `None` when something is.
    fn take(object: &mut Object) -> Option<Self>;
}

/// Declares the body of a request. Each field names the method of [`Object`] that takes it, with the check of its
/// value: `name: Type = required(check)`, or `name: Option<Type> = optional(check)`. Unknown fields are refused.
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

/// The body of a request that takes no input.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Empty {}

impl RequestBody for Empty {
    fn take(_object: &mut Object) -> Option<Self> {
        Some(Self {})
    }
}

request_body! {
    /// A name for what is created or renamed.
    pub struct Naming {
        /// The name.
        pub name: String = required(name),
    }
}

/// What this module reads, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![received::<Empty>("Empty"), received::<Naming>("Naming")]
}
