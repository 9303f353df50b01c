//! Who belongs to an organization.

use std::sync::Arc;

use atrium_shared::{db::Principal, ids::UserId, tenancy::Role};
use http::StatusCode;
use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    auth::User,
    edge::{
        problem::Problem,
        query::{PAGE, Page},
        request::Request,
        respond::{Response, json},
    },
    state::App,
};

#[derive(Serialize)]
struct Member {
    user: User,
    role: Role,
    #[serde(with = "time::serde::rfc3339")]
    joined_at: OffsetDateTime,
}

/// Where a page of members ends: microseconds since 1970, as PostgreSQL counts them, and who joined then.
type Key = (i64, UserId);

/// `GET /v1/orgs/{org}/members`, in the order they joined.
///
/// # Errors
/// When the caller is no member.
pub async fn list(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org = request.path("org")?;
    let page: Page<Key> = request.query(PAGE)?.page()?;
    let (after, user) = page.after.unzip();
    let after =
        after.and_then(|after| OffsetDateTime::from_unix_timestamp_nanos(i128::from(after) * 1000).ok());

    let mut tx = app.database.org_tx(&Principal::User(request.identity()?.user), org).await?;
    let rows: Vec<(UserId, String, Role, OffsetDateTime)> = sqlx::query_as(
        "SELECT user_id, user_key, role, joined_at FROM members
          WHERE org_id = $1 AND ($2::timestamptz IS NULL OR (joined_at, user_id) > ($2, $3))
          ORDER BY joined_at, user_id LIMIT $4",
    )
    .bind(org)
    .bind(after)
    .bind(user)
    .bind(page.fetch())
    .fetch_all(tx.conn())
    .await?;
    let members =
        rows.into_iter().map(|(id, key, role, joined_at)| Member { user: User { id, key }, role, joined_at });
    let list = page.cut(members.collect(), |member: &Member| {
        let microseconds = member.joined_at.unix_timestamp_nanos() / 1000;
        (i64::try_from(microseconds).unwrap_or(i64::MAX), member.user.id)
    });
    json(StatusCode::OK, &list)
}
