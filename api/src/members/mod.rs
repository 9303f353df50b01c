//! The members of an organization, and their roles.
//!
//! Changes are serialized by a lock on the organization's row. Their preconditions, such as the caller's role or the
//! existence of another owner, are read under this lock. A member cannot assign or take away a role above their own,
//! and an organization always has at least one owner.

pub mod list;
pub mod remove;
pub mod role;

use atrium_shared::{
    db::{DbError, OrgTx},
    ids::{OrgId, UserId},
    organizations,
    tenancy::Role,
};
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use crate::http::{
    caller::User,
    problem::Problem,
    response::List,
    schema::{Component, component, received},
};

#[derive(Serialize, JsonSchema)]
struct Member {
    user: User,
    role: Role,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    joined_at: OffsetDateTime,
}

/// Locks the organization's row, then reads the caller's role and the other member.
///
/// # Errors
/// When one of them is not a member, or the organization cannot be changed.
async fn lock(tx: &mut OrgTx, caller: UserId, other: UserId) -> Result<(Role, Member), Problem> {
    let (status, _) = organizations::lock(tx).await?;
    status.require_open()?;
    let caller_role = read(tx, caller).await?.role;
    Ok((caller_role, read(tx, other).await?))
}

async fn read(tx: &mut OrgTx, user: UserId) -> Result<Member, DbError> {
    let org = tx.org();
    let row = sqlx::query!(
        r#"SELECT user_name, role AS "role: Role", joined_at FROM members
          WHERE org_id = $1 AND user_id = $2"#,
        org as OrgId,
        user as UserId
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Member { user: User { id: user, name: row.user_name }, role: row.role, joined_at: row.joined_at })
}

/// Revokes what would outlast a member's loss of rights: their open invitations to roles that they may no longer
/// assign, and the access that processes have cached. `new_role` is `None` when they are no longer a member.
async fn end_rights(tx: &mut OrgTx, user: UserId, new_role: Option<Role>) -> Result<(), DbError> {
    let org = tx.org();
    let assignable: &[Role] = match new_role {
        Some(Role::Owner) => return Ok(()),
        Some(Role::Admin) => &[Role::Viewer, Role::Member, Role::Admin],
        Some(Role::Member | Role::Viewer) | None => &[],
    };
    sqlx::query!(
        "UPDATE invitations SET revoked_at = now()
          WHERE org_id = $1 AND created_by = $2 AND accepted_at IS NULL AND revoked_at IS NULL
            AND role <> ALL ($3)",
        org as OrgId,
        user as UserId,
        assignable as &[Role]
    )
    .execute(tx.conn())
    .await?;
    tx.revoke_access(Some(user.uuid()), None).await
}

/// The request and response types of this module, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![
        received::<role::RoleChange>("RoleChange"),
        received::<role::Transfer>("Transfer"),
        component::<Role>("Role"),
        component::<Member>("Member"),
        component::<List<Member>>("MemberList"),
    ]
}
