//! Reading the audit log: who changed what, newest first. Admins and owners can read it.
//!
//! The transactions that make the changes write the entries.

use std::sync::Arc;

use atrium_shared::{
    audit::{self, Action, ActorKind, Entry},
    tenancy::Role,
};
use http::StatusCode;

use crate::{
    http::{
        problem::{FieldError, Problem},
        query::Page,
        request::Request,
        response::{List, Response, json},
        schema::{Component, component},
    },
    state::App,
};

/// `GET /v1/orgs/{org}/audit`, in every status of the organization.
///
/// # Errors
/// When the caller is not an admin, or the query is invalid.
pub async fn list(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org = request.path("org")?;
    let query = request.query(&["limit", "cursor", "action"])?;
    let page: Page<i64> = query.page()?;
    let action = query.get("action").map(action).transpose()?;
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require(Role::Admin)?;
    let entries = audit::entries(&mut tx, action, page.after, page.fetch()).await?;
    json(StatusCode::OK, &page.cut(entries, |entry| entry.seq))
}

fn action(name: &str) -> Result<Action, Problem> {
    Action::named(name).ok_or_else(|| {
        Problem::validation(vec![FieldError::parameter("action", "must be an action of the audit log")])
    })
}

/// The response types of this module, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![
        component::<Action>("AuditAction"),
        component::<ActorKind>("ActorKind"),
        component::<Entry>("AuditEntry"),
        component::<List<Entry>>("AuditEntryList"),
    ]
}
