//! An organization's name.

use crate::{
    db::{DbError, OrgTx},
    ids::OrgId,
};

/// An organization's name before a change, read under the lock of its row.
#[derive(Debug)]
pub struct CurrentName {
    /// The organization's version.
    pub version: i64,
    /// Its name.
    pub name: String,
}

/// Locks the organization's row and returns its name and version.
///
/// # Errors
/// [`DbError::NotFound`] when it does not exist.
pub async fn lock_name(tx: &mut OrgTx) -> Result<CurrentName, DbError> {
    let org = tx.org();
    Ok(sqlx::query_as!(
        CurrentName,
        "SELECT version, name FROM orgs WHERE id = $1 FOR NO KEY UPDATE",
        org as OrgId
    )
    .fetch_one(tx.conn())
    .await?)
}

/// Renames the organization. Its slug does not change.
///
/// # Errors
/// When the database does not answer.
pub async fn rename(tx: &mut OrgTx, name: &str) -> Result<(), DbError> {
    let org = tx.org();
    sqlx::query!(
        "UPDATE orgs SET name = $2, version = version + 1, updated_at = clock_timestamp() WHERE id = $1",
        org as OrgId,
        name
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
