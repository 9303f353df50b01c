//! Renaming an organization.

use std::sync::Arc;

use atrium_shared::{
    audit::{self, Action, Change},
    ids::OrgId,
    tenancy::Role,
};
use serde_json::json;

use crate::{
    http::{body, problem::Problem, request::Request, response::Response},
    state::App,
};

/// `PATCH /v1/orgs/{org}`
///
/// # Errors
/// When the name is not one, the caller may not, or somebody else was first.
pub async fn rename(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org: OrgId = request.path("org")?;
    let condition = request.if_match()?;
    let mut body = request.object().await?;
    let name = body.required("name", body::name);
    let name = body.finish(name)?;

    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_writable(Role::Admin)?;
    let (version, old_name): (i64, String) =
        sqlx::query_as("SELECT version, name FROM orgs WHERE id = $1 FOR NO KEY UPDATE")
            .bind(org)
            .fetch_one(tx.conn())
            .await?;
    condition.check(version)?;
    sqlx::query(
        "UPDATE orgs SET name = $2, version = version + 1, updated_at = clock_timestamp() WHERE id = $1",
    )
    .bind(org)
    .bind(&name)
    .execute(tx.conn())
    .await?;
    let role = tx.role();
    let organization = super::read(&mut tx, role).await?;
    let change = Change::new(Action::OrganizationRenamed, "organization", org);
    audit::record(&mut tx, change.before(json!({ "name": old_name })).after(json!({ "name": name }))).await?;
    tx.commit().await?;
    super::respond(&organization)
}
