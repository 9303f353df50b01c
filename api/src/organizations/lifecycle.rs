//! An owner's control of the organization's lifecycle: suspend and resume, delete and restore.

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

/// `POST /v1/orgs/{org}/suspend`: the organization can still be read and exported, but not changed, and its event
/// streams end.
///
/// # Errors
/// When the caller is not an owner, or the organization's status does not allow it.
pub async fn suspend(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let mut tx = owner_tx(app, request).await?;
    organizations::suspend(&mut tx, SuspendedBy::Owner, None).await?;
    commit_and_respond(tx).await
}

/// `POST /v1/orgs/{org}/resume`
///
/// # Errors
/// When the caller is not an owner, or an operator suspended the organization.
pub async fn resume(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let mut tx = owner_tx(app, request).await?;
    organizations::resume(&mut tx, SuspendedBy::Owner, None).await?;
    commit_and_respond(tx).await
}

/// `DELETE /v1/orgs/{org}`: closes the organization immediately, and purges it after the grace period.
///
/// # Errors
/// When the caller is not an owner, or the organization's status does not allow it.
pub async fn delete(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let grace = app.configuration.platform().organization().deletion_grace();
    let user = request.signed_in_user()?.id;
    let mut tx = owner_tx(app, request).await?;
    let operation_id = organizations::request_deletion(&mut tx, user, grace).await?;
    let organization = super::read(&mut tx, Role::Owner).await?;
    tx.commit().await?;
    super::accepted(organization, operation_id)
}

/// `POST /v1/orgs/{org}/restore`: cancels the deletion. The organization returns to its earlier status.
///
/// # Errors
/// When the caller is not an owner;
/// [`Code::OrganizationNotDeleting`](crate::http::problem::Code::OrganizationNotDeleting) when there is no deletion to
/// cancel.
pub async fn restore(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let mut tx = owner_tx(app, request).await?;
    organizations::cancel_deletion(&mut tx).await?;
    commit_and_respond(tx).await
}

/// Begins a transaction of the organization's owner. The request body must have no fields.
async fn owner_tx(app: &App, request: &mut Request) -> Result<OrgTx, Problem> {
    let org = request.path("org")?;
    request.no_fields().await?;
    let tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require(Role::Owner)?;
    Ok(tx)
}

async fn commit_and_respond(mut tx: OrgTx) -> Result<Response, Problem> {
    let organization = super::read(&mut tx, Role::Owner).await?;
    tx.commit().await?;
    super::respond(&organization)
}
