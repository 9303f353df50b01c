//! Operations: long-running work as a resource. Each is a saga, seen from outside.

pub mod events;

use std::sync::Arc;

use atrium_shared::{
    db::DbError,
    ids::{SagaId, UserId},
    organization::Certificate,
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
    let user = request.identity()?.user;
    let operation = match app.database.operation_tx(user, id).await {
        Ok(mut tx) => saga::operation(&mut tx, id).await,
        Err(error) => Err(error),
    };
    let operation = match operation {
        // A deletion that is done took its own record with it.
        Err(DbError::NotFound) => certificate(app, user, id).await?.into_operation(id),
        operation => operation?,
    };
    json(StatusCode::OK, &operation)
}

/// What remains of a deletion that this user asked for.
async fn certificate(app: &App, user: UserId, id: SagaId) -> Result<Certificate, DbError> {
    Certificate::read(&mut app.database.user_tx(user).await?, id).await
}
