//! Removing a member, and leaving an organization.

use std::sync::Arc;

use atrium_shared::{
    audit::{self, Action, Change},
    ids::{OrgId, UserId},
    organizations::require_another_owner,
    tenancy::Role,
};
use http::StatusCode;
use serde_json::json;

use super::{end_rights, lock};
use crate::{
    http::{
        problem::Problem,
        request::Request,
        response::{Response, empty},
    },
    state::App,
};

/// `DELETE /v1/orgs/{org}/members/{user}`: admins remove members up to their own role, and any member may leave. The
/// removed member's access and streams end within a second.
///
/// # Errors
/// When the caller lacks permission, or there is no such member;
/// [`Code::LastOwner`](crate::http::problem::Code::LastOwner).
pub async fn remove(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org = request.path("org")?;
    let user: UserId = request.path("user")?;
    let caller = request.signed_in_user()?.id;
    let leaves = user == caller;

    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_writable(if leaves { Role::Viewer } else { Role::Admin })?;
    let (caller_role, member) = lock(&mut tx, caller, user).await?;
    let required = Role::Admin.max(member.role);
    if !leaves && caller_role < required {
        return Err(Problem::forbidden(required));
    }
    if member.role == Role::Owner {
        require_another_owner(&mut tx, user).await?;
    }
    sqlx::query!("DELETE FROM members WHERE org_id = $1 AND user_id = $2", tx.org() as OrgId, user as UserId)
        .execute(tx.conn())
        .await?;
    end_rights(&mut tx, user, None).await?;
    let change = Change::new(Action::MemberRemoved, "user", user);
    audit::record(&mut tx, change.before(json!({ "role": member.role, "name": member.user.name }))).await?;
    tx.commit().await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
