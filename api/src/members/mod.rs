//! The members of an organization, and their roles.
//!
//! Changes are serialized by a lock on the organization's row; their conditions (the caller is still an admin, there is
//! another owner) are read under it. No member can grant or remove more rights than they have, and every organization
//! has an owner.

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

/// Takes the organization's row, and reads what the caller and the other are at that moment.
///
/// # Errors
/// When one of them is no member, or the organization cannot be changed.
async fn lock(tx: &mut OrgTx, caller: UserId, other: UserId) -> Result<(Role, Member), Problem> {
    let (status, _) = organizations::lock(tx).await?;
    status.require_open()?;
    let mine = read(tx, caller).await?.role;
    Ok((mine, read(tx, other).await?))
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

/// Revokes what a member could still do after losing rights: the invitations they created for roles above their own
/// (`kept`: `None` if they are no longer a member), and the memberships that processes have cached.
async fn end_rights(tx: &mut OrgTx, user: UserId, kept: Option<Role>) -> Result<(), DbError> {
    let org = tx.org();
    let grants: &[Role] = match kept {
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
        grants as &[Role]
    )
    .execute(tx.conn())
    .await?;
    tx.revoke_access(Some(user.uuid()), None).await
}

/// What this module reads and sends, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![
        received::<role::RoleChange>("RoleChange"),
        received::<role::Transfer>("Transfer"),
        component::<Role>("Role"),
        component::<Member>("Member"),
        component::<List<Member>>("MemberList"),
    ]
}
