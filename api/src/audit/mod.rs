//! The audit log, for admins and owners: the changes in an organization and their actors, newest first.
//!
//! The entries are written by the transactions that make the changes; here they are only read.

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

/// `GET /v1/orgs/{org}/audit`, in every state of the organization.
///
/// # Errors
/// When the caller is no admin, or the query is invalid.
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

/// What this module sends, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![
        component::<Action>("AuditAction"),
        component::<ActorKind>("ActorKind"),
        component::<Entry>("AuditEntry"),
        component::<List<Entry>>("AuditEntryList"),
    ]
}
