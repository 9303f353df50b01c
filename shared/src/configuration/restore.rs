//! Restores the configuration of an imported organization: the values, history and revision of the export.

use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;

use super::HistoryAction;
use crate::{
    db::{DbError, OrgTx, ROWS_PER_INSERT},
    ids::{OrgId, ProjectId},
};

/// A value to restore.
#[derive(Clone, Debug, Serialize)]
pub struct RestoredValue {
    /// The project; none for the organization.
    pub project_id: Option<ProjectId>,
    /// The key.
    pub key: String,
    /// The value, checked against the key's schema.
    pub value: Value,
    /// The revision that set it.
    pub revision: i64,
}

/// A change to restore in the history. It is stored with the time of the import, and with the author's name but no id,
/// because the author that the export names cannot be verified.
#[derive(Clone, Debug, Serialize)]
pub struct RestoredChange {
    /// The revision that it created.
    pub revision: i64,
    /// The project, if any. It may have been deleted since.
    pub project_id: Option<ProjectId>,
    /// The key. The catalog may no longer have it.
    pub key: String,
    /// The value before the change.
    pub old_value: Option<Value>,
    /// The value after the change; none when the key was unset.
    pub new_value: Option<Value>,
    /// The author's public name according to the export.
    pub author_name: Option<String>,
    /// Why.
    pub reason: String,
}

/// Stores the configuration of the transaction's new organization.
///
/// # Errors
/// When the database does not answer, or the organization already has a configuration.
pub async fn restore(
    tx: &mut OrgTx,
    revision: i64,
    values: &[RestoredValue],
    history: &[RestoredChange],
) -> Result<(), DbError> {
    let org = tx.org();
    sqlx::query!("INSERT INTO config_heads (org_id, revision) VALUES ($1, $2)", org as OrgId, revision)
        .execute(tx.conn())
        .await?;
    for rows in values.chunks(ROWS_PER_INSERT) {
        sqlx::query!(
            "INSERT INTO config_values (org_id, project_id, key, value, revision)
             SELECT $1, project_id, key, value, revision
               FROM jsonb_to_recordset($2) AS row (project_id uuid, key text, value jsonb, revision bigint)",
            org as OrgId,
            Json(rows) as _
        )
        .execute(tx.conn())
        .await?;
    }
    for rows in history.chunks(ROWS_PER_INSERT) {
        sqlx::query!(
            "INSERT INTO config_history
                 (org_id, revision, project_id, key, action, old_value, new_value, author_name, reason)
             SELECT $1, revision, project_id, key, CASE WHEN new_value IS NULL THEN $4 ELSE $3 END,
                    old_value, new_value, author_name, reason
               FROM jsonb_to_recordset($2) AS row (revision bigint, project_id uuid, key text, old_value jsonb,
                                                   new_value jsonb, author_name text, reason text)",
            org as OrgId,
            Json(rows) as _,
            HistoryAction::Set.name(),
            HistoryAction::Unset.name()
        )
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}
