//! Creating a new organization from an export, completely or not at all.
//!
//! The export is read line by line and checked completely before anything is stored. Then one transaction stores the
//! organization as PENDING with all its content, and the saga that creates organizations opens it. All ids are new: the
//! ids in an export only relate its records to each other. The export's statements about users cannot be verified here,
//! so an import adds none of the exported members, and no audit entry except one that records the import and its
//! source.

use std::{sync::Arc, time::Duration};

use atrium_shared::{
    audit::{self, Action, Change},
    configuration::restore::restore,
    db::{DbError, OrgTx, ROWS_PER_INSERT},
    ids::OrgId,
    timings::is_longer,
};
use serde_json::json;
use sqlx::types::Json;

use super::{
    create::insert_pending,
    export_format::NDJSON,
    export_reader::{self, Export},
};
use crate::{
    http::{idempotency::IdempotentRequest, problem::Problem, request::Request, response::Response},
    limits::resource_quotas::{Quota, require_capacity_for},
    state::App,
};

/// The largest export that can be imported, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024 * 1024;
/// The longest line of an export, in bytes. A configuration change, with two values of a key, is shorter.
const MAX_LINE_LENGTH: usize = 256 * 1024;
/// How long the upload of an export may take.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(300);
/// How long the whole import may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(360);

// Time is left to store an export that arrives just before the upload timeout.
const _: () = assert!(is_longer(TIME_LIMIT, 1, UPLOAD_TIMEOUT));

/// `POST /v1/orgs/import`
///
/// # Errors
/// When the body is not an export, or is incomplete. Nothing is created then.
pub async fn import(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let mut lines = request.lines(NDJSON, MAX_LINE_LENGTH, UPLOAD_TIMEOUT)?;
    let _permit = app.portability.import()?;
    let export = export_reader::read(&mut lines).await?;
    let idempotent = IdempotentRequest::with_fingerprint(request, export.fingerprint.clone())?;
    let user = request.signed_in_user()?;

    let id = OrgId::new();
    let mut tx = app.database.create_org_tx(user.id, id).await?;
    if let Some(idempotent) = &idempotent
        && let Some(replayed) = idempotent.begin(&mut tx).await?
    {
        return Ok(replayed);
    }
    let accepted = insert_pending(&mut tx, user, &export.name).await?;
    let platform = app.configuration.platform();
    require_capacity_for(&mut tx, Quota::Projects, export.projects.len(), platform.organization()).await?;
    store(&mut tx, &export).await?;
    let change = Change::new(Action::OrganizationImported, "organization", id);
    let after = json!({
        "name": export.name,
        "source": {
            "org_id": export.source,
            "exported_at": export.exported_at,
            "sha256": export.sha256,
            "audit_entries": export.audit_entries,
            "audit_hash": export.audit_hash,
        },
    });
    audit::record(&mut tx, change.after(after)).await?;
    accepted.commit(tx, idempotent.as_ref()).await
}

async fn store(tx: &mut OrgTx, export: &Export) -> Result<(), DbError> {
    let org = tx.org();
    for rows in export.projects.chunks(ROWS_PER_INSERT) {
        sqlx::query!(
            "INSERT INTO projects (org_id, id, name)
             SELECT $1, id, name FROM jsonb_to_recordset($2) AS row (id uuid, name text)",
            org as OrgId,
            Json(rows) as _
        )
        .execute(tx.conn())
        .await?;
    }
    restore(tx, export.revision, &export.values, &export.history).await?;
    for rows in export.counters.chunks(ROWS_PER_INSERT) {
        sqlx::query!(
            "INSERT INTO chat_counters (org_id, project_id, action, count)
             SELECT $1, project_id, action, count
               FROM jsonb_to_recordset($2) AS row (project_id uuid, action text, count bigint)",
            org as OrgId,
            Json(rows) as _
        )
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}
