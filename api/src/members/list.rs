//! Listing members, in the order they joined.

use std::sync::Arc;

use atrium_shared::{
    ids::{OrgId, UserId},
    tenancy::Role,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::Member;
use crate::{
    http::{
        caller::User,
        problem::Problem,
        query::{PAGE, Page},
        request::Request,
        response::{Response, json},
    },
    state::App,
};

/// The position of a page's last member: when they joined, and their id.
type PageKey = (Joined, UserId);

/// A time in a cursor: microseconds since 1970, which is PostgreSQL's precision. Any other time is rejected when the
/// cursor is read, because a forged cursor could contain a time outside of PostgreSQL's range.
#[derive(Clone, Deserialize, Serialize)]
#[serde(try_from = "u64", into = "i128")]
struct Joined(OffsetDateTime);

/// `GET /v1/orgs/{org}/members`, in the order they joined.
///
/// # Errors
/// When the caller is not a member.
pub async fn list(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org = request.path("org")?;
    let page: Page<PageKey> = request.query(PAGE)?.page()?;
    let (after, user) = page.after.as_ref().map(|(Joined(after), user)| (*after, *user)).unzip();

    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    let rows = sqlx::query!(
        r#"SELECT user_id AS "user_id: UserId", user_name, role AS "role: Role", joined_at FROM members
          WHERE org_id = $1 AND ($2::timestamptz IS NULL OR (joined_at, user_id) > ($2, $3))
          ORDER BY joined_at, user_id LIMIT $4"#,
        org as OrgId,
        after,
        user as Option<UserId>,
        page.fetch()
    )
    .fetch_all(tx.conn())
    .await?;
    let members = rows.into_iter().map(|row| Member {
        user: User { id: row.user_id, name: row.user_name },
        role: row.role,
        joined_at: row.joined_at,
    });
    let list = page.cut(members.collect(), |member: &Member| (Joined(member.joined_at), member.user.id));
    json(StatusCode::OK, &list)
}

impl From<Joined> for i128 {
    fn from(Joined(at): Joined) -> Self {
        at.unix_timestamp_nanos() / 1000
    }
}

impl TryFrom<u64> for Joined {
    type Error = time::error::ComponentRange;

    fn try_from(microseconds: u64) -> Result<Self, Self::Error> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(microseconds) * 1000).map(Self)
    }
}
