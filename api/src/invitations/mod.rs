//! Invitations: codes that one user can use once to join an organization. No address is needed or stored.
//!
//! A code consists of the organization's id, which says where to look the code up, and a secret. Only a hash of the
//! secret is stored, so the code can be shown only once. For the same reason, a create that is repeated with its
//! `Idempotency-Key` does not return the first response, whose record has no code. It is rejected with the URL of the
//! existing invitation, which the caller can revoke before creating another.

use std::sync::Arc;

use atrium_shared::{
    audit::{self, Action, Change},
    ids::{InvitationId, OrgId, UserId},
    tenancy::Role,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    http::{
        body::{integer, one_of},
        idempotency::{IdempotentRequest, location_only, response_not_stored},
        problem::{Code, Problem},
        query::{PAGE, Page},
        request::Request,
        request_body::request_body,
        response::{List, Response, empty, json},
        schema::{Component, component, received},
    },
    limits::resource_quotas::{Quota, require_capacity},
    organizations::{self, Organization},
    state::App,
};

/// Whether an invitation can be accepted.
#[derive(Serialize, JsonSchema, sqlx::Type)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
enum InvitationStatus {
    /// It can be accepted.
    Open,
    /// A user has joined with it.
    Accepted,
    /// It was revoked.
    Revoked,
    /// It was not accepted in time.
    Expired,
}

#[derive(Serialize, JsonSchema)]
struct Invitation {
    id: InvitationId,
    role: Role,
    status: InvitationStatus,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    expires_at: OffsetDateTime,
}

#[derive(Serialize, JsonSchema)]
struct Created {
    #[serde(flatten)]
    invitation: Invitation,
    code: String,
}

#[derive(Serialize, JsonSchema)]
struct Joined {
    org: Organization,
}

const DEFAULT_LIFETIME_SECONDS: i64 = 86_400;
const MAX_LIFETIME_SECONDS: i64 = 604_800;

request_body! {
    /// The invitation to create.
    struct InvitationCreate {
        role: Role = required(one_of("owner, admin, member or viewer")),
        expires_in_seconds: Option<i64> = optional(integer(60..=MAX_LIFETIME_SECONDS)),
    }
}

request_body! {
    /// The code to join with.
    struct InvitationAccept {
        code: String = required(one_of("a string")),
    }
}

/// `POST /v1/orgs/{org}/invitations`
///
/// # Errors
/// When the caller may not invite, or not to that role; when the `Idempotency-Key` was used before.
pub async fn create(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org = request.path("org")?;
    let InvitationCreate { role, expires_in_seconds } = request.body().await?;
    let idempotent = IdempotentRequest::of(request).await?;

    let user = request.signed_in_user()?.id;
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_writable(Role::Admin)?;
    // A member cannot invite to a role above their own.
    tx.require(role)?;
    if let Some(idempotent) = &idempotent
        && let Some(previous) = idempotent.begin(&mut tx).await?
    {
        return Err(response_not_stored(
            &previous,
            "This `Idempotency-Key` already created the invitation at `Location`, and its code cannot be shown again; if \
             the first response was lost, revoke that invitation and create one with a new `Idempotency-Key`.",
        ));
    }
    let code = InvitationCode::new(org);
    let invitation = sqlx::query_as!(
        Invitation,
        r#"INSERT INTO invitations (org_id, id, code_hash, role, created_by, expires_at)
         VALUES ($1, $2, $3, $4, $5, now() + $6::bigint * interval '1 second')
         RETURNING id, role AS "role: Role", 'OPEN' AS "status!: InvitationStatus", created_at, expires_at"#,
        org as OrgId,
        InvitationId::new() as _,
        code.hash(),
        role as Role,
        user as UserId,
        expires_in_seconds.unwrap_or(DEFAULT_LIFETIME_SECONDS)
    )
    .fetch_one(tx.conn())
    .await?;
    let change = Change::new(Action::InvitationCreated, "invitation", invitation.id);
    audit::record(&mut tx, change.after(json!({ "role": role }))).await?;
    let location = HeaderValue::try_from(format!("/v1/orgs/{org}/invitations/{}", invitation.id))
        .map_err(Problem::internal)?;
    if let Some(idempotent) = &idempotent {
        idempotent.record(&mut tx, &location_only(&location)).await?;
    }
    tx.commit().await?;
    let mut response = json(StatusCode::CREATED, &Created { invitation, code: code.to_text() })?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// `GET /v1/orgs/{org}/invitations`, newest first.
///
/// # Errors
/// When the caller may not invite.
pub async fn list(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org = request.path("org")?;
    let page: Page<InvitationId> = request.query(PAGE)?.page()?;
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require(Role::Admin)?;
    let invitations = sqlx::query_as!(
        Invitation,
        r#"SELECT id, role AS "role: Role", created_at, expires_at,
                CASE WHEN accepted_at IS NOT NULL THEN 'ACCEPTED' WHEN revoked_at IS NOT NULL THEN 'REVOKED'
                     WHEN expires_at <= now() THEN 'EXPIRED' ELSE 'OPEN' END AS "status!: InvitationStatus"
           FROM invitations WHERE org_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"#,
        org as OrgId,
        page.after as Option<InvitationId>,
        page.fetch()
    )
    .fetch_all(tx.conn())
    .await?;
    json(StatusCode::OK, &page.cut(invitations, |invitation| invitation.id))
}

/// `GET /v1/orgs/{org}/invitations/{invitation}`: without the code.
///
/// # Errors
/// If the caller is no admin, or the invitation does not exist.
pub async fn get(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org = request.path("org")?;
    let id: InvitationId = request.path("invitation")?;
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require(Role::Admin)?;
    let invitation = sqlx::query_as!(
        Invitation,
        r#"SELECT id, role AS "role: Role", created_at, expires_at,
                CASE WHEN accepted_at IS NOT NULL THEN 'ACCEPTED' WHEN revoked_at IS NOT NULL THEN 'REVOKED'
                     WHEN expires_at <= now() THEN 'EXPIRED' ELSE 'OPEN' END AS "status!: InvitationStatus"
           FROM invitations WHERE org_id = $1 AND id = $2"#,
        org as OrgId,
        id as InvitationId
    )
    .fetch_one(tx.conn())
    .await?;
    json(StatusCode::OK, &invitation)
}

/// `DELETE /v1/orgs/{org}/invitations/{invitation}`
///
/// # Errors
/// When the caller may not invite, or there is no such invitation.
pub async fn revoke(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org = request.path("org")?;
    let id: InvitationId = request.path("invitation")?;
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    tx.require_writable(Role::Admin)?;
    let invitation = sqlx::query!(
        r#"SELECT role AS "role: Role", accepted_at IS NOT NULL OR revoked_at IS NOT NULL AS "ended!"
           FROM invitations WHERE org_id = $1 AND id = $2 FOR UPDATE"#,
        org as OrgId,
        id as InvitationId
    )
    .fetch_one(tx.conn())
    .await?;
    // An invitation that is accepted or revoked stays unchanged.
    if invitation.ended {
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    sqlx::query!(
        "UPDATE invitations SET revoked_at = now() WHERE org_id = $1 AND id = $2",
        org as OrgId,
        id as InvitationId
    )
    .execute(tx.conn())
    .await?;
    let change = Change::new(Action::InvitationRevoked, "invitation", id);
    audit::record(&mut tx, change.before(json!({ "role": invitation.role }))).await?;
    tx.commit().await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /v1/invitations/accept`
///
/// # Errors
/// [`Code::InvitationNotFound`], with one text for every invalid code.
pub async fn accept(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let InvitationAccept { code } = request.body().await?;
    let not_found =
        || Problem::new(Code::InvitationNotFound, "No open invitation has this code; ask for a new one.");
    let code = InvitationCode::parse(code.trim()).ok_or_else(not_found)?;

    let user = request.signed_in_user()?;
    let mut tx = app.database.joining_tx(user.id, code.org).await?;
    // The lock serializes two users of the same code, so that the second finds it used.
    let invitation = sqlx::query!(
        r#"SELECT id AS "id: InvitationId", role AS "role: Role" FROM invitations
          WHERE org_id = $1 AND code_hash = $2
            AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > now()
            FOR UPDATE"#,
        code.org as OrgId,
        code.hash()
    )
    .fetch_optional(tx.conn())
    .await?;
    let invitation = invitation.ok_or_else(not_found)?;
    let (invitation, role) = (invitation.id, invitation.role);
    let is_member = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM members WHERE org_id = $1 AND user_id = $2) AS "known!""#,
        code.org as OrgId,
        user.id as UserId
    )
    .fetch_one(tx.conn())
    .await?;
    if !is_member {
        let platform = app.configuration.platform();
        require_capacity(&mut tx, Quota::Members, platform.organization()).await?;
    }
    let joined = sqlx::query!(
        "INSERT INTO members (org_id, user_id, user_name, role) VALUES ($1, $2, $3, $4)
         ON CONFLICT ON CONSTRAINT members_pkey DO NOTHING",
        code.org as OrgId,
        user.id as UserId,
        &user.name,
        role as Role
    )
    .execute(tx.conn())
    .await?
    .rows_affected();
    // An existing member keeps their role, and the code stays open for another user.
    let role = if joined == 0 {
        sqlx::query_scalar!(
            r#"SELECT role AS "role: Role" FROM members WHERE org_id = $1 AND user_id = $2"#,
            code.org as OrgId,
            user.id as UserId
        )
        .fetch_one(tx.conn())
        .await?
    } else {
        sqlx::query!(
            "UPDATE invitations SET accepted_by = $3, accepted_at = now() WHERE org_id = $1 AND id = $2",
            code.org as OrgId,
            invitation as InvitationId,
            user.id as UserId
        )
        .execute(tx.conn())
        .await?;
        role
    };
    let org = organizations::read(&mut tx, role).await?;
    org.status.require_open()?;
    if joined > 0 {
        let change = Change::new(Action::MemberJoined, "user", user.id);
        audit::record(&mut tx, change.after(json!({ "role": role, "invitation_id": invitation }))).await?;
    }
    tx.commit().await?;
    json(StatusCode::OK, &Joined { org })
}

struct InvitationCode {
    org: OrgId,
    secret: [u8; Self::SECRET],
}

impl InvitationCode {
    const SECRET: usize = 24;

    fn new(org: OrgId) -> Self {
        Self { org, secret: rand::random() }
    }

    fn to_text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode([&self.org.uuid().as_bytes()[..], &self.secret].concat())
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (org, secret) = bytes.split_at_checked(16)?;
        Some(Self { org: Uuid::from_slice(org).ok()?.into(), secret: secret.try_into().ok()? })
    }

    fn hash(&self) -> Vec<u8> {
        Sha256::digest(self.secret).to_vec()
    }
}

/// The request and response types of this module, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![
        received::<InvitationCreate>("InvitationCreate"),
        received::<InvitationAccept>("InvitationAccept"),
        component::<InvitationStatus>("InvitationStatus"),
        component::<Invitation>("Invitation"),
        component::<Created>("InvitationCreated"),
        component::<List<Invitation>>("InvitationList"),
        component::<Joined>("InvitationAccepted"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_text_round_trips_and_invalid_texts_are_rejected() {
        let code = InvitationCode::new(OrgId::new());
        let read = InvitationCode::parse(&code.to_text()).expect("it is one");
        assert_eq!((read.org, read.secret), (code.org, code.secret));
        let text = code.to_text();
        for invalid in ["", "x", &text[1..], &format!("{text}A"), &format!("{text}\0"), "🙂"] {
            assert!(InvitationCode::parse(invalid).is_none(), "{invalid:?}");
        }
    }
}
