//! All schemas of what the API sends, for the test that holds `docs/api/openapi.yaml` against them.
//!
//! Bodies of requests are not here: they are read field by field ([`crate::http::body`]), so that an answer can list
//! every mistake, and have no type.

use crate::{
    api_keys, audit, auth, chat, configuration,
    http::{problem, schema::Component},
    invitations, live, members, operations, organizations, projects,
};

/// Every component that has a type.
#[must_use]
pub fn components() -> Vec<Component> {
    [
        problem::components(),
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
