//! Operations: long-running work as a resource. Each is a saga, seen from outside.

pub mod events;

use std::sync::Arc;

use atrium_shared::saga;
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
    let mut tx = app.database.operation_tx(request.identity()?.user, id).await?;
    json(StatusCode::OK, &saga::operation(&mut tx, id).await?)
}
