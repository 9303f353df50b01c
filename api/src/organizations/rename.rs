//! Renaming an organization.

use std::sync::Arc;

use atrium_shared::{
    audit::{self, Action, Change},
    ids::OrgId,
    organizations,
    tenancy::Role,
};
use serde_json::json;

use crate::{
    http::{problem::Problem, request::Request, request_body::Naming, response::Response},
    state::App,
};

/// `PATCH /v1/orgs/{org}`
///
/// # Errors
/// When the name is invalid, the caller lacks permission, or the version has changed.
pub async fn rename(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org: OrgId = request.path("org")?;
    let condition = request.if_match()?;
    let Naming { name } = request.body().await?;

    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_writable(Role::Admin)?;
    let current = organizations::lock_name(&mut tx).await?;
    condition.check(current.version)?;
    organizations::rename(&mut tx, &name).await?;
    let role = tx.role();
    let organization = super::read(&mut tx, role).await?;
    let change = Change::new(Action::OrganizationRenamed, "organization", org);
    audit::record(&mut tx, change.before(json!({ "name": current.name })).after(json!({ "name": name })))
        .await?;
    tx.commit().await?;
    super::respond(&organization)
}
