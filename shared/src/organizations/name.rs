//! An organization's name.

use crate::{
    db::{DbError, OrgTx},
    ids::OrgId,
};

/// A name that is about to change, under the lock of the organization's row.
#[derive(Debug)]
pub struct CurrentName {
    /// The organization's version.
    pub version: i64,
    /// Its name.
    pub name: String,
}

/// The organization's name and version. Locks its row.
///
/// # Errors
/// [`DbError::NotFound`] if it was purged.
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

/// Gives the organization another name. Its slug stays.
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
