//! Creating an organization: one transaction stores everything that must not be lost, and a saga does the rest.

use std::sync::Arc;

use atrium_shared::{
    audit::{self, Action, Change},
    crash_point::{CrashPoint, reached},
    db::{DbError, OrgTx},
    ids::{OrgId, SagaId},
    organizations,
    tenancy::Role,
};
use http::{HeaderValue, header};
use serde_json::json;

use super::Organization;
use crate::{
    http::{
        caller::SignedInUser, idempotency::IdempotentRequest, problem::Problem, request::Request,
        request_body::Naming, response::Response,
    },
    state::App,
};

/// `POST /v1/orgs`
///
/// # Errors
/// When the name is invalid, or the database is unavailable. Nothing is created then.
pub async fn create(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let Naming { name } = request.body().await?;
    let idempotent = IdempotentRequest::of(request).await?;
    let user = request.signed_in_user()?;

    let id = OrgId::new();
    let mut tx = app.database.create_org_tx(user.id, id).await?;
    if let Some(idempotent) = &idempotent
        && let Some(replayed) = idempotent.begin(&mut tx).await?
    {
        return Ok(replayed);
    }
    let accepted = insert_pending(&mut tx, user, &name).await?;
    let change = Change::new(Action::OrganizationCreated, "organization", id);
    let after = json!({ "name": name, "slug": accepted.organization.slug });
    audit::record(&mut tx, change.after(after)).await?;
    accepted.commit(tx, idempotent.as_ref()).await
}

/// A pending organization, and the operation that opens it.
pub(super) struct Accepted {
    organization: Organization,
    operation_id: SagaId,
}

/// Stores the transaction's organization as PENDING, with its founder as the owner, and starts the saga that opens it.
///
/// # Errors
/// When the database is unavailable.
pub(super) async fn insert_pending(
    tx: &mut OrgTx,
    founder: &SignedInUser,
    name: &str,
) -> Result<Accepted, DbError> {
    let operation_id = organizations::found(tx, founder.id, &founder.name, name).await?;
    let organization = super::read(tx, Role::Owner).await?;
    Ok(Accepted { organization, operation_id })
}

impl Accepted {
    /// Commits the creation. The response has the URLs of the organization and of the operation that shows the
    /// progress.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub(super) async fn commit(
        self,
        mut tx: OrgTx,
        idempotent: Option<&IdempotentRequest>,
    ) -> Result<Response, Problem> {
        let location =
            HeaderValue::try_from(format!("/v1/orgs/{}", self.organization.id)).map_err(Problem::internal)?;
        let mut response = super::accepted(self.organization, self.operation_id)?;
        response.headers_mut().insert(header::LOCATION, location);
        if let Some(idempotent) = idempotent {
            idempotent.record(&mut tx, &response).await?;
        }
        reached(CrashPoint::ApiBeforeCommit).await;
        tx.commit().await?;
        reached(CrashPoint::ApiAfterCommit).await;
        Ok(response)
    }
}
