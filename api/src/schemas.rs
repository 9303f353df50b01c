//! The schemas of all bodies that the API reads and sends. A test compares them with `docs/api/openapi.yaml`.

use crate::{
    api_keys, audit, auth, chat, configuration,
    http::{problem, request_body, schema::Component},
    invitations, live, members, operations, organizations, projects,
};

/// Every component of the API description that has a Rust type.
#[must_use]
pub fn components() -> Vec<Component> {
    [
        problem::components(),
        request_body::components(),
        live::answer::components(),
        auth::components(),
        organizations::components(),
        members::components(),
        invitations::components(),
        api_keys::components(),
        projects::components(),
        chat::components(),
        configuration::components(),
        operations::components(),
        audit::components(),
    ]
    .concat()
}
