//! Operations: long-running work as a resource. Each is a saga, seen from outside.

pub mod events;

use std::sync::Arc;

use atrium_shared::{
    db::{DbError, OrgTx, Principal},
    ids::{OrgId, SagaId, UserId},
    saga,
};
use http::StatusCode;

use crate::{
    edge::{
        problem::Problem,
        request::Request,
        respond::{Response, json},
    },
    state::App,
};

/// `GET /v1/operations/{operation}`
///
/// # Errors
/// When the caller neither asked for it nor is a member of its organization.
pub async fn get(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let id = request.path("operation")?;
    let mut tx = open(app, request.identity()?.user, id).await?;
    json(StatusCode::OK, &saga::operation(&mut tx, id).await?)
}

/// A transaction in the organization of an operation that `user` may see: their own, or one of an organization
/// they are a member of. The wall decides which, before any organization is named.
///
/// # Errors
/// When they may not, which is the same as that there is none.
pub(crate) async fn open(app: &App, user: UserId, operation: SagaId) -> Result<OrgTx, Problem> {
    let mut own = app.database.user_tx(user).await?;
    let org: OrgId = sqlx::query_scalar("SELECT org_id FROM sagas WHERE id = $1")
        .bind(operation)
        .fetch_one(own.conn())
        .await?;
    // Both transactions at once could starve each other of connections.
    drop(own);
    match app.database.org_tx(&Principal::User(user), org).await {
        // The organization was never founded, and its founder is no member any more; but the operation is theirs.
        Err(DbError::NotFound) => Ok(app.database.founding_tx(user, org).await?),
        opened => Ok(opened?),
    }
}
