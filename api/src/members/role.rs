//! Changing a member's role, and transferring the ownership of an organization.

use std::sync::Arc;

use atrium_shared::{
    audit::{self, Action, Change},
    db::{DbError, OrgTx},
    ids::{OrgId, UserId},
    organizations::require_another_owner,
    tenancy::Role,
};
use http::StatusCode;
use serde_json::json;

use super::{Member, end_rights, lock};
use crate::{
    http::{
        body::one_of,
        problem::{FieldError, Problem},
        request::Request,
        request_body::request_body,
        response::{Response, json},
    },
    organizations,
    state::App,
};

request_body! {
    /// The member's new role.
    pub(super) struct RoleChange {
        role: Role = required(one_of("owner, admin, member or viewer")),
    }
}

request_body! {
    /// The organization's new owner.
    pub(super) struct Transfer {
        user_id: UserId = required(one_of("a member's id")),
    }
}

/// `PATCH /v1/orgs/{org}/members/{user}`
///
/// # Errors
/// When the caller may not assign the role, or not to this member;
/// [`Code::LastOwner`](crate::http::problem::Code::LastOwner).
pub async fn change(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org = request.path("org")?;
    let user: UserId = request.path("user")?;
    let RoleChange { role } = request.body().await?;

    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_writable(Role::Admin)?;
    let (caller_role, mut member) = lock(&mut tx, request.signed_in_user()?.id, user).await?;
    // Checked again under the lock: the caller's role may have changed while this request waited for it.
    let required = Role::Admin.max(role).max(member.role);
    if caller_role < required {
        return Err(Problem::forbidden(required));
    }
    if member.role == Role::Owner && role != Role::Owner {
        require_another_owner(&mut tx, user).await?;
    }
    set(&mut tx, &mut member, role).await?;
    tx.commit().await?;
    json(StatusCode::OK, &member)
}

/// `POST /v1/orgs/{org}/transfer`: makes another member an owner, and the caller an admin.
///
/// # Errors
/// When the caller is not an owner, or the other user is not a member.
pub async fn transfer(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org = request.path("org")?;
    let Transfer { user_id } = request.body().await?;

    let caller = request.signed_in_user()?.id;
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_writable(Role::Owner)?;
    if user_id == caller {
        let error = FieldError::body("/user_id", "must be the id of another member");
        return Err(Problem::validation(vec![error]));
    }
    let (caller_role, mut new_owner) = lock(&mut tx, caller, user_id).await?;
    if caller_role < Role::Owner {
        return Err(Problem::forbidden(Role::Owner));
    }
    let mut former_owner = super::read(&mut tx, caller).await?;
    set(&mut tx, &mut new_owner, Role::Owner).await?;
    set(&mut tx, &mut former_owner, Role::Admin).await?;
    let organization = organizations::read(&mut tx, Role::Admin).await?;
    tx.commit().await?;
    organizations::respond(&organization)
}

/// Sets a member's role. The caller must have locked the organization's row.
async fn set(tx: &mut OrgTx, member: &mut Member, role: Role) -> Result<(), DbError> {
    let (org, user) = (tx.org(), member.user.id);
    let before = std::mem::replace(&mut member.role, role);
    if role == before {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE members SET role = $3 WHERE org_id = $1 AND user_id = $2",
        org as OrgId,
        user as UserId,
        role as Role
    )
    .execute(tx.conn())
    .await?;
    if role < before {
        end_rights(tx, user, Some(role)).await?;
    }
    let change = Change::new(Action::MemberRoleChanged, "user", user);
    audit::record(tx, change.before(json!({ "role": before })).after(json!({ "role": role }))).await
}
