//! Reading one organization.

use std::sync::Arc;

use crate::{
    http::{problem::Problem, request::Request, response::Response},
    state::App,
};

/// `GET /v1/orgs/{org}`
///
/// # Errors
/// [`Code::NotFound`](crate::http::problem::Code::NotFound) when the caller is not a member, or the organization does
/// not exist.
pub async fn get(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org = request.path("org")?;
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    let role = tx.role();
    super::respond(&super::read(&mut tx, role).await?)
}
