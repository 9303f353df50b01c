//! The configuration of an organization that comes from an export: values, history and revision as they were.

use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;

use super::HistoryAction;
use crate::{
    db::{DbError, OrgTx, ROWS_PER_INSERT},
    ids::{OrgId, ProjectId},
};

/// What a key is set to.
#[derive(Clone, Debug, Serialize)]
pub struct RestoredValue {
    /// For which project; none for the organization.
    pub project_id: Option<ProjectId>,
    /// The key.
    pub key: String,
    /// The value, which the key's schema allows.
    pub value: Value,
    /// The revision that set it.
    pub revision: i64,
}

/// An entry of the history. Its time is that of the import, and its author a name without an id: who made a change
/// elsewhere is what an export says, and nobody here can know.
#[derive(Clone, Debug, Serialize)]
pub struct RestoredChange {
    /// The revision it made.
    pub revision: i64,
    /// The project it was for, if any; it may be gone.
    pub project_id: Option<ProjectId>,
    /// The key; it may be gone.
    pub key: String,
    /// What the key was set to before.
    pub old_value: Option<Value>,
    /// What it was set to; none when that was taken away.
    pub new_value: Option<Value>,
    /// The author's public name, as the export has it.
    pub author_name: Option<String>,
    /// Why.
    pub reason: String,
}

/// Stores the configuration of the transaction's new organization.
///
/// # Errors
/// When the database does not answer, or the organization has a configuration.
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
