//! Listing the caller's organizations.

use std::sync::Arc;

use atrium_shared::{
    ids::{OrgId, UserId},
    organizations::SuspendedBy,
    tenancy::{OrgStatus, Role},
};
use http::StatusCode;

use super::Organization;
use crate::{
    http::{
        problem::Problem,
        query::{PAGE, Page},
        request::Request,
        response::{Response, json},
    },
    state::App,
};

/// `GET /v1/orgs`, newest first. Ids are ordered by time, so the list is sorted by id.
///
/// # Errors
/// When the query is invalid, or the database is unavailable.
pub async fn list(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let page: Page<OrgId> = request.query(PAGE)?.page()?;
    let user = request.signed_in_user()?.id;
    let mut tx = app.database.user_tx(user).await?;
    let organizations = sqlx::query_as!(
        Organization,
        r#"SELECT orgs.id, name, slug, status AS "status: OrgStatus",
                suspended_by AS "suspended_by: SuspendedBy", delete_at, role AS "role: Role", created_at,
                updated_at, version
           FROM members JOIN orgs ON orgs.id = members.org_id
          WHERE members.user_id = $1 AND ($2::uuid IS NULL OR orgs.id < $2)
          ORDER BY orgs.id DESC LIMIT $3"#,
        user as UserId,
        page.after as Option<OrgId>,
        page.fetch()
    )
    .fetch_all(tx.conn())
    .await?;
    json(StatusCode::OK, &page.cut(organizations, |organization| organization.id))
}
