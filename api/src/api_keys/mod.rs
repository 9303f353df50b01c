//! API keys of services. The organization's admins create and revoke them. A key stays valid when its creator leaves.
//!
//! A key is shown only in the response that creates it, and only its hash is stored. So a create that is repeated with
//! its `Idempotency-Key` is rejected with the URL of the existing key, which the caller can revoke.

use std::{collections::BTreeSet, sync::Arc};

use atrium_shared::{
    api_key::{ApiKeyText, ApiScope},
    audit::{self, Action, Change},
    ids::{ApiKeyId, OrgId, UserId},
    tenancy::Role,
};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    http::{
        body::{integer, name},
        idempotency::{IdempotentRequest, location_only, response_not_stored},
        problem::Problem,
        query::{PAGE, Page},
        request::Request,
        request_body::request_body,
        response::{List, Response, empty, json},
        schema::{Component, component, received},
    },
    state::App,
};

/// Whether a key is valid.
#[derive(Serialize, JsonSchema, sqlx::Type)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
enum ApiKeyStatus {
    /// It is valid.
    Active,
    /// Its expiry time has passed.
    Expired,
    /// It was revoked.
    Revoked,
}

#[derive(Serialize, JsonSchema)]
struct ApiKey {
    id: ApiKeyId,
    name: String,
    #[schemars(with = "Vec<ApiScope>")]
    scopes: Vec<String>,
    status: ApiKeyStatus,
    created_by: UserId,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    last_used_at: Option<OffsetDateTime>,
}

#[derive(Serialize, JsonSchema)]
struct Created {
    #[serde(flatten)]
    api_key: ApiKey,
    key: String,
}

const MAX_LIFETIME_SECONDS: i64 = 366 * 86_400;

request_body! {
    /// The API key to create.
    struct ApiKeyCreate {
        name: String = required(name),
        scopes: Vec<ApiScope> = required(scopes),
        expires_in_seconds: Option<i64> = optional(integer(60..=MAX_LIFETIME_SECONDS)),
    }
}

/// `POST /v1/orgs/{org}/api-keys`
///
/// # Errors
/// When the caller may not create keys, or not with those scopes; when the `Idempotency-Key` was used before.
pub async fn create(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org: OrgId = request.path("org")?;
    let ApiKeyCreate { name, scopes, expires_in_seconds } = request.body().await?;
    let idempotent = IdempotentRequest::of(request).await?;

    let user = request.signed_in_user()?.id;
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_writable(Role::Admin)?;
    // A member cannot create a key with scopes above their own role.
    for scope in &scopes {
        tx.require(scope.role())?;
    }
    if let Some(idempotent) = &idempotent
        && let Some(previous) = idempotent.begin(&mut tx).await?
    {
        return Err(response_not_stored(
            &previous,
            "This `Idempotency-Key` already created the API key at `Location`, and its secret cannot be shown again; if \
             the first response was lost, revoke that API key and create one with a new `Idempotency-Key`.",
        ));
    }
    let scopes: Vec<&str> = scopes.into_iter().map(ApiScope::name).collect();
    let key = ApiKeyText::new(org);
    let api_key = sqlx::query_as!(
        ApiKey,
        r#"INSERT INTO api_keys (org_id, id, name, hash, scopes, created_by, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, now() + $7::bigint * interval '1 second')
         RETURNING id, name, scopes, 'ACTIVE' AS "status!: ApiKeyStatus", created_by, created_at, expires_at,
                   last_used_at"#,
        org as OrgId,
        key.id as ApiKeyId,
        &name,
        &key.hash()[..],
        &scopes as &[&str],
        user as UserId,
        expires_in_seconds
    )
    .fetch_one(tx.conn())
    .await?;
    let change = Change::new(Action::ApiKeyCreated, "api_key", key.id);
    audit::record(&mut tx, change.after(json!({ "name": name, "scopes": scopes }))).await?;
    let location =
        HeaderValue::try_from(format!("/v1/orgs/{org}/api-keys/{}", key.id)).map_err(Problem::internal)?;
    if let Some(idempotent) = &idempotent {
        idempotent.record(&mut tx, &location_only(&location)).await?;
    }
    tx.commit().await?;
    let mut response = json(StatusCode::CREATED, &Created { api_key, key: key.to_text() })?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// `GET /v1/orgs/{org}/api-keys`, newest first.
///
/// # Errors
/// When the caller is not an admin.
pub async fn list(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org: OrgId = request.path("org")?;
    let page: Page<ApiKeyId> = request.query(PAGE)?.page()?;
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require(Role::Admin)?;
    let keys = sqlx::query_as!(
        ApiKey,
        r#"SELECT id, name, scopes, created_by, created_at, expires_at, last_used_at,
                CASE WHEN revoked_at IS NOT NULL THEN 'REVOKED' WHEN expires_at <= now() THEN 'EXPIRED'
                     ELSE 'ACTIVE' END AS "status!: ApiKeyStatus"
           FROM api_keys WHERE org_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"#,
        org as OrgId,
        page.after as Option<ApiKeyId>,
        page.fetch()
    )
    .fetch_all(tx.conn())
    .await?;
    json(StatusCode::OK, &page.cut(keys, |key| key.id))
}

/// `GET /v1/orgs/{org}/api-keys/{api_key}`: without the key itself.
///
/// # Errors
/// If the caller is no admin, or the key does not exist.
pub async fn get(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org: OrgId = request.path("org")?;
    let id: ApiKeyId = request.path("api_key")?;
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require(Role::Admin)?;
    let key = sqlx::query_as!(
        ApiKey,
        r#"SELECT id, name, scopes, created_by, created_at, expires_at, last_used_at,
                CASE WHEN revoked_at IS NOT NULL THEN 'REVOKED' WHEN expires_at <= now() THEN 'EXPIRED'
                     ELSE 'ACTIVE' END AS "status!: ApiKeyStatus"
           FROM api_keys WHERE org_id = $1 AND id = $2"#,
        org as OrgId,
        id as ApiKeyId
    )
    .fetch_one(tx.conn())
    .await?;
    json(StatusCode::OK, &key)
}

/// `DELETE /v1/orgs/{org}/api-keys/{api_key}`
///
/// # Errors
/// When the caller is not an admin, or there is no such key.
pub async fn revoke(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org: OrgId = request.path("org")?;
    let id: ApiKeyId = request.path("api_key")?;
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_writable(Role::Admin)?;
    let key = sqlx::query!(
        r#"SELECT name, revoked_at IS NOT NULL AS "revoked!" FROM api_keys
          WHERE org_id = $1 AND id = $2 FOR UPDATE"#,
        org as OrgId,
        id as ApiKeyId
    )
    .fetch_one(tx.conn())
    .await?;
    if !key.revoked {
        sqlx::query!(
            "UPDATE api_keys SET revoked_at = now() WHERE org_id = $1 AND id = $2",
            org as OrgId,
            id as ApiKeyId
        )
        .execute(tx.conn())
        .await?;
        // Each request looks the key up again, but an open stream does not: this ends the key's streams.
        tx.revoke_access(Some(id.uuid()), None).await?;
        let change = Change::new(Action::ApiKeyRevoked, "api_key", id);
        audit::record(&mut tx, change.before(json!({ "name": key.name }))).await?;
    }
    tx.commit().await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Parses a field as a list of distinct scopes.
fn scopes(value: Value) -> Result<Vec<ApiScope>, String> {
    let names = || ApiScope::ALL.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(", ");
    let scopes: Vec<ApiScope> = serde_json::from_value(value)
        .map_err(|_| format!("must be a list of scopes, each one of {}", names()))?;
    let distinct: BTreeSet<_> = scopes.iter().map(|scope| scope.name()).collect();
    if scopes.is_empty() || distinct.len() != scopes.len() {
        return Err("must have at least one scope, and none twice".to_owned());
    }
    Ok(scopes)
}

/// The request and response types of this module, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![
        received::<ApiKeyCreate>("ApiKeyCreate"),
        component::<ApiScope>("ApiScope"),
        component::<Vec<ApiScope>>("ApiScopes"),
        component::<ApiKeyStatus>("ApiKeyStatus"),
        component::<ApiKey>("ApiKey"),
        component::<Created>("ApiKeyCreated"),
        component::<List<ApiKey>>("ApiKeyList"),
    ]
}
