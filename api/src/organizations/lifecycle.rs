//! An organization's life in its owner's hands: suspend and resume, delete and restore.

use std::sync::Arc;

use atrium_shared::{
    db::OrgTx,
    organizations::{self, SuspendedBy},
    tenancy::Role,
};

use crate::{
    http::{problem::Problem, request::Request, response::Response},
    state::App,
};

/// `POST /v1/orgs/{org}/suspend`: from now on it can be read and exported, not changed, and nothing in it is live.
///
/// # Errors
/// When the caller is no owner, or the organization is in no state for it.
pub async fn suspend(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let mut tx = owned(app, request).await?;
    organizations::suspend(&mut tx, SuspendedBy::Owner, None).await?;
    changed(tx).await
}

/// `POST /v1/orgs/{org}/resume`
///
/// # Errors
/// If the caller is no owner, or if an operator suspended it.
pub async fn resume(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let mut tx = owned(app, request).await?;
    organizations::resume(&mut tx, SuspendedBy::Owner, None).await?;
    changed(tx).await
}

/// `DELETE /v1/orgs/{org}`: closed immediately, purged after the grace period.
///
/// # Errors
/// When the caller is no owner, or the organization is in no state for it.
pub async fn delete(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let grace = app.configuration.platform().organization().deletion_grace();
    let user = request.signed_in_user()?.id;
    let mut tx = owned(app, request).await?;
    let operation_id = organizations::request_deletion(&mut tx, user, grace).await?;
    let organization = super::read(&mut tx, Role::Owner).await?;
    tx.commit().await?;
    super::accepted(organization, operation_id)
}

/// `POST /v1/orgs/{org}/restore`: cancels the deletion. The organization is as it was before.
///
/// # Errors
/// When the caller is no owner; [`Code::OrganizationNotDeleting`](crate::http::problem::Code::OrganizationNotDeleting) when there is nothing to cancel.
pub async fn restore(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let mut tx = owned(app, request).await?;
    organizations::cancel_deletion(&mut tx).await?;
    changed(tx).await
}

/// A transaction of the organization's owner. Nothing is sent along.
async fn owned(app: &App, request: &mut Request) -> Result<OrgTx, Problem> {
    let org = request.path("org")?;
    request.no_fields().await?;
    let tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require(Role::Owner)?;
    Ok(tx)
}

async fn changed(mut tx: OrgTx) -> Result<Response, Problem> {
    let organization = super::read(&mut tx, Role::Owner).await?;
    tx.commit().await?;
    super::respond(&organization)
}
