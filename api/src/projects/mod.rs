//! Projects: the parts of an organization. Each has a chat and a configuration of its own.
//!
//! The version of a project is its entity tag. A change states the version that it is based on (`If-Match`).

use std::sync::Arc;

use atrium_shared::{
    audit::{self, Action, Change},
    db::{DbError, OrgTx},
    ids::{OrgId, ProjectId},
    tenancy::Role,
};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;

use crate::{
    http::{
        etag::etag,
        idempotency::IdempotentRequest,
        problem::Problem,
        query::{PAGE, Page},
        request::Request,
        request_body::Naming,
        response::{List, Response, empty, json},
        schema::{Component, component},
    },
    limits::resource_quotas::{Quota, require_capacity},
    state::App,
};

#[derive(Serialize, JsonSchema)]
struct Project {
    id: ProjectId,
    org_id: OrgId,
    name: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    updated_at: OffsetDateTime,
    #[serde(skip)]
    version: i64,
}

/// `POST /v1/orgs/{org}/projects`
///
/// # Errors
/// When the name is invalid, the caller lacks permission, or the quota is reached.
pub async fn create(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org: OrgId = request.path("org")?;
    let Naming { name } = request.body().await?;
    let idempotent = IdempotentRequest::of(request).await?;

    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_writable(Role::Admin)?;
    if let Some(idempotent) = &idempotent
        && let Some(replayed) = idempotent.begin(&mut tx).await?
    {
        return Ok(replayed);
    }
    let platform = app.configuration.platform();
    require_capacity(&mut tx, Quota::Projects, platform.organization()).await?;
    let id = ProjectId::new();
    sqlx::query!(
        "INSERT INTO projects (org_id, id, name) VALUES ($1, $2, $3)",
        org as OrgId,
        id as ProjectId,
        &name
    )
    .execute(tx.conn())
    .await?;
    audit::record(&mut tx, Change::new(Action::ProjectCreated, "project", id).after(json!({ "name": name })))
        .await?;
    let mut response = respond(StatusCode::CREATED, &read(&mut tx, id).await?)?;
    let location =
        HeaderValue::try_from(format!("/v1/orgs/{org}/projects/{id}")).map_err(Problem::internal)?;
    response.headers_mut().insert(header::LOCATION, location);
    if let Some(idempotent) = &idempotent {
        idempotent.record(&mut tx, &response).await?;
    }
    tx.commit().await?;
    Ok(response)
}

/// `GET /v1/orgs/{org}/projects`, newest first.
///
/// # Errors
/// When the caller is not a member.
pub async fn list(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org = request.path("org")?;
    let page: Page<ProjectId> = request.query(PAGE)?.page()?;
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    let projects = sqlx::query_as!(
        Project,
        "SELECT id, org_id, name, created_at, updated_at, version FROM projects
          WHERE org_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        org as OrgId,
        page.after as Option<ProjectId>,
        page.fetch()
    )
    .fetch_all(tx.conn())
    .await?;
    json(StatusCode::OK, &page.cut(projects, |project| project.id))
}

/// `GET /v1/orgs/{org}/projects/{project}`
///
/// # Errors
/// When the caller is not a member, or there is no such project.
pub async fn get(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let (org, id) = (request.path("org")?, request.path("project")?);
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    respond(StatusCode::OK, &read(&mut tx, id).await?)
}

/// `PATCH /v1/orgs/{org}/projects/{project}`
///
/// # Errors
/// When the name is invalid, the caller lacks permission, or the version has changed.
pub async fn rename(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let (org, id): (OrgId, ProjectId) = (request.path("org")?, request.path("project")?);
    let condition = request.if_match()?;
    let Naming { name } = request.body().await?;

    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_writable(Role::Admin)?;
    let old = sqlx::query!(
        "SELECT version, name FROM projects WHERE org_id = $1 AND id = $2 FOR UPDATE",
        org as OrgId,
        id as ProjectId
    )
    .fetch_one(tx.conn())
    .await?;
    condition.check(old.version)?;
    sqlx::query!(
        "UPDATE projects SET name = $3, version = version + 1, updated_at = clock_timestamp()
          WHERE org_id = $1 AND id = $2",
        org as OrgId,
        id as ProjectId,
        &name
    )
    .execute(tx.conn())
    .await?;
    let project = read(&mut tx, id).await?;
    let change = Change::new(Action::ProjectRenamed, "project", id);
    audit::record(&mut tx, change.before(json!({ "name": old.name })).after(json!({ "name": name }))).await?;
    tx.commit().await?;
    respond(StatusCode::OK, &project)
}

/// `DELETE /v1/orgs/{org}/projects/{project}`: deletes the project with its chat and its configuration.
///
/// # Errors
/// When the caller lacks permission, or there is no such project.
pub async fn delete(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let (org, id): (OrgId, ProjectId) = (request.path("org")?, request.path("project")?);
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_writable(Role::Admin)?;
    let name = sqlx::query_scalar!(
        "DELETE FROM projects WHERE org_id = $1 AND id = $2 RETURNING name",
        org as OrgId,
        id as ProjectId
    )
    .fetch_optional(tx.conn())
    .await?;
    let name = name.ok_or_else(Problem::not_found)?;
    tx.revoke_access(None, Some(id)).await?;
    audit::record(
        &mut tx,
        Change::new(Action::ProjectDeleted, "project", id).before(json!({ "name": name })),
    )
    .await?;
    tx.commit().await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Makes sure that the transaction's organization has this project.
///
/// # Errors
/// [`DbError::NotFound`] when it does not.
pub(crate) async fn require(tx: &mut OrgTx, id: ProjectId) -> Result<(), DbError> {
    read(tx, id).await.map(|_| ())
}

async fn read(tx: &mut OrgTx, id: ProjectId) -> Result<Project, DbError> {
    let org = tx.org();
    Ok(sqlx::query_as!(
        Project,
        "SELECT id, org_id, name, created_at, updated_at, version FROM projects
          WHERE org_id = $1 AND id = $2",
        org as OrgId,
        id as ProjectId
    )
    .fetch_one(tx.conn())
    .await?)
}

fn respond(status: StatusCode, project: &Project) -> Result<Response, Problem> {
    let mut response = json(status, project)?;
    response.headers_mut().insert(header::ETAG, etag(project.version));
    Ok(response)
}

/// The response types of this module, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![component::<Project>("Project"), component::<List<Project>>("ProjectList")]
}
