//! Organizations. Creating one starts a saga; until it commits, the organization can be read but not used.
//!
//! Creation, import and deletion are stored in one transaction together with the saga that does the rest. Their
//! response is 202 with the operation that shows the progress. Suspending and resuming take effect immediately.

pub mod create;
pub mod export;
mod export_format;
mod export_reader;
pub mod get;
pub mod import;
pub mod lifecycle;
pub mod list;
pub mod rename;

use atrium_shared::{
    db::{DbError, OrgTx},
    ids::{OrgId, SagaId},
    organizations::SuspendedBy,
    tenancy::{OrgStatus, Role},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use crate::http::{
    etag::etag,
    problem::Problem,
    response::{List, Response, json},
    schema::{Component, component},
};

/// An organization, as one of its members sees it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Organization {
    /// Its id.
    pub id: OrgId,
    /// Its name.
    pub name: String,
    /// Its name in URLs, which never changes.
    pub slug: String,
    /// Its position in the lifecycle.
    pub status: OrgStatus,
    /// Who suspended it, also while it is being deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_by: Option<SuspendedBy>,
    /// When it will be purged, if its deletion was requested and not canceled.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub delete_at: Option<OffsetDateTime>,
    /// The member's role.
    pub role: Role,
    /// When its creation was requested.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: OffsetDateTime,
    /// When it last changed.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub updated_at: OffsetDateTime,
    /// The version, which grows with every change. Sent as the entity tag.
    #[serde(skip)]
    pub version: i64,
}

/// The transaction's organization, as `role` sees it.
///
/// # Errors
/// When the database is unavailable.
pub(crate) async fn read(tx: &mut OrgTx, role: Role) -> Result<Organization, DbError> {
    let org = tx.org();
    Ok(sqlx::query_as!(
        Organization,
        r#"SELECT id, name, slug, status AS "status: OrgStatus", suspended_by AS "suspended_by: SuspendedBy",
                delete_at, $2 AS "role!: Role", created_at, updated_at, version
           FROM orgs WHERE id = $1"#,
        org as OrgId,
        role as Role
    )
    .fetch_one(tx.conn())
    .await?)
}

#[derive(Serialize, JsonSchema)]
struct Accepted {
    #[serde(flatten)]
    organization: Organization,
    operation_id: SagaId,
}

/// The response to a request that a saga completes: the organization in its current state, and the URL of the
/// operation.
pub(crate) fn accepted(organization: Organization, operation_id: SagaId) -> Result<Response, Problem> {
    let mut response = json(StatusCode::ACCEPTED, &Accepted { organization, operation_id })?;
    let location =
        HeaderValue::try_from(format!("/v1/operations/{operation_id}")).map_err(Problem::internal)?;
    response.headers_mut().insert(HeaderName::from_static("operation-location"), location);
    Ok(response)
}

pub(crate) fn respond(organization: &Organization) -> Result<Response, Problem> {
    let mut response = json(StatusCode::OK, organization)?;
    response.headers_mut().insert(header::ETAG, etag(organization.version));
    Ok(response)
}

/// The response types of this module, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![
        component::<Organization>("Organization"),
        component::<OrgStatus>("OrganizationStatus"),
        component::<SuspendedBy>("SuspendedBy"),
        component::<List<Organization>>("OrganizationList"),
        component::<Accepted>("OrganizationAccepted"),
    ]
}
