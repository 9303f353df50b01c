//! All schemas of request and response bodies, for the test that compares `docs/api/openapi.yaml` with them.

use crate::{
    api_keys, audit, auth, chat, configuration,
    http::{problem, request_body, schema::Component},
    invitations, live, members, operations, organizations, projects,
};

/// Every component that has a type.
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
