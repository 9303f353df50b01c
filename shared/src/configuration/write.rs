//! Changes configuration, and reads its history.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    Effective, HistoryAction,
    catalog::{self, Key, Scope, Setter, Violation},
};
use crate::{
    audit::{self, Action},
    db::{DbError, OrgTx},
    ids::{OrgId, ProjectId, UserId},
    messages::RevisionNotice,
};

/// A change of one key.
#[derive(Clone, Debug)]
pub struct Change {
    /// The project; none for the whole organization.
    pub project: Option<ProjectId>,
    /// The key.
    pub key: String,
    /// The new value; none unsets the key, so that the value of the scope below applies again.
    pub value: Option<Value>,
    /// The author; none for the operator.
    pub author: Option<Author>,
    /// Why, 1 to 500 characters.
    pub reason: String,
    /// The revision that the author has read. None, as in the operator's command, overwrites any revision.
    pub expected_revision: Option<i64>,
}

/// The author of a change.
#[derive(Clone, Debug)]
pub enum Author {
    /// A member, by id and public name.
    User(UserId, String),
    /// A service, by the name of its API key.
    ApiKey(String),
}

impl Author {
    /// The prefix of API key names in the history. No user name starts with it.
    const API_KEY: &str = "key:";

    fn user(&self) -> Option<UserId> {
        match self {
            Self::User(id, _) => Some(*id),
            Self::ApiKey(_) => None,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::User(_, name) => name.clone(),
            Self::ApiKey(name) => format!("{}{name}", Self::API_KEY),
        }
    }
}

/// Why a change was not made. The revision is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// No configuration key has this name.
    #[error("there is no key of this name")]
    UnknownKey,
    /// The key cannot be set in this scope.
    #[error("this key may not be set for {0:?}")]
    ScopeNotAllowed(Scope),
    /// Only the operator may set the key.
    #[error("only the operator may set this key")]
    OperatorOnly,
    /// The value violates the key's schema.
    #[error("the value is not one this key takes")]
    Invalid(Vec<Violation>),
    /// The reason is empty or too long.
    #[error("a reason of 1 to 500 characters is needed")]
    Reason,
    /// The configuration has changed since the author read it.
    #[error("the configuration is at revision {current} by now")]
    Stale {
        /// The current revision.
        current: i64,
    },
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// A change in the history.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    /// The revision that it created.
    pub revision: i64,
    /// The key.
    pub key: String,
    /// The project whose value changed, if any.
    pub project_id: Option<ProjectId>,
    /// Whether it set or unset the key.
    pub action: HistoryAction,
    /// The value in this scope before the change.
    pub old_value: Option<Value>,
    /// The value in this scope after the change.
    pub new_value: Option<Value>,
    /// The user who made the change; none for a service or the operator.
    pub author_id: Option<UserId>,
    /// The author's public name; none for the operator.
    pub author_name: Option<String>,
    /// Why.
    pub reason: String,
    /// When.
    pub changed_at: OffsetDateTime,
}

impl HistoryEntry {
    /// Its author; none for the operator, and for authors that an import named.
    #[must_use]
    pub fn author(&self) -> Option<Author> {
        let name = self.author_name.clone()?;
        match self.author_id {
            Some(id) => Some(Author::User(id, name)),
            // A name without an id comes from an import, unless it is an API key's.
            None => name.strip_prefix(Author::API_KEY).map(|name| Author::ApiKey(name.to_owned())),
        }
    }
}

/// Makes a change in `tx`: stores the value, its history, the new revision and the message that announces it. Returns
/// the new revision, or the current one when the change unsets a key that is not set.
///
/// # Errors
/// See [`ChangeError`]. The transaction must then be dropped.
pub async fn apply(tx: &mut OrgTx, change: Change) -> Result<i64, ChangeError> {
    let org = tx.org();
    let key = catalog::find(&change.key).ok_or(ChangeError::UnknownKey)?;
    check(key, org, &change)?;

    // The lock of the head row makes revisions commit in their order.
    let current =
        sqlx::query_scalar!("SELECT revision FROM config_heads WHERE org_id = $1 FOR UPDATE", org as OrgId)
            .fetch_optional(tx.conn())
            .await
            .map_err(DbError::from)?
            .ok_or(DbError::NotFound)?;
    if change.expected_revision.is_some_and(|expected| expected != current) {
        return Err(ChangeError::Stale { current });
    }
    if let Some(project) = change.project {
        let exists = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM projects WHERE org_id = $1 AND id = $2) AS "exists!""#,
            org as OrgId,
            project as ProjectId
        )
        .fetch_one(tx.conn())
        .await
        .map_err(DbError::from)?;
        if !exists {
            return Err(DbError::NotFound.into());
        }
    }
    let old = current_value(tx, &change).await?;
    if old.is_none() && change.value.is_none() {
        // The key was not set, so nothing changes.
        return Ok(current);
    }
    let revision = current + 1;
    store(tx, revision, &change, old.as_ref()).await?;
    tx.enqueue(org, &RevisionNotice { revision }).await?;
    audit::record(tx, entry(&change, revision, old)).await?;
    Ok(revision)
}

/// The audit entry of the change.
fn entry(change: &Change, revision: i64, old: Option<Value>) -> audit::Change {
    let action = if change.value.is_some() { Action::ConfigurationSet } else { Action::ConfigurationUnset };
    let entry = audit::Change::new(action, "config", change.key.as_str()).after(json!({
        "project_id": change.project, "value": change.value, "revision": revision, "reason": change.reason,
    }));
    match old {
        Some(old) => entry.before(json!({ "project_id": change.project, "value": old })),
        None => entry,
    }
}

fn check(key: &Key, org: OrgId, change: &Change) -> Result<(), ChangeError> {
    let scope = match change.project {
        Some(_) => Scope::Project,
        None if org == OrgId::PLATFORM => Scope::Default,
        None => Scope::Organization,
    };
    check_scope(key, scope)?;
    if key.setter == Setter::Operator && change.author.is_some() {
        return Err(ChangeError::OperatorOnly);
    }
    if !(1..=500).contains(&change.reason.chars().count()) || change.reason.contains('\0') {
        return Err(ChangeError::Reason);
    }
    change.value.as_ref().map_or(Ok(()), |value| check_value(key, value))
}

/// Checks that the key may be set in this scope.
///
/// # Errors
/// [`ChangeError::ScopeNotAllowed`].
pub fn check_scope(key: &Key, scope: Scope) -> Result<(), ChangeError> {
    if key.scopes.contains(&scope) { Ok(()) } else { Err(ChangeError::ScopeNotAllowed(scope)) }
}

/// Checks that the key can be set to this value.
///
/// # Errors
/// [`ChangeError::Invalid`].
pub fn check_value(key: &Key, value: &Value) -> Result<(), ChangeError> {
    let violations = key.violations(value);
    if !violations.is_empty() {
        return Err(ChangeError::Invalid(violations));
    }
    // A process must also be able to apply a value that the schema accepts.
    Effective::merge([[(key.name.to_owned(), value.clone())]]).map(drop).map_err(|error| {
        ChangeError::Invalid(vec![Violation { pointer: String::new(), detail: error.to_string() }])
    })
}

/// The value that is set in exactly the scope of the change.
async fn current_value(tx: &mut OrgTx, change: &Change) -> Result<Option<Value>, DbError> {
    let org = tx.org();
    Ok(sqlx::query_scalar!(
        "SELECT value FROM config_values WHERE org_id = $1 AND project_id IS NOT DISTINCT FROM $2 AND key = $3",
        org as OrgId,
        change.project as Option<ProjectId>,
        &change.key
    )
    .fetch_optional(tx.conn())
    .await?)
}

async fn store(tx: &mut OrgTx, revision: i64, change: &Change, old: Option<&Value>) -> Result<(), DbError> {
    let org = tx.org();
    match &change.value {
        Some(value) => {
            sqlx::query!(
                "INSERT INTO config_values (org_id, project_id, key, value, revision) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT ON CONSTRAINT config_values_unique
                 DO UPDATE SET value = excluded.value, revision = excluded.revision",
                org as OrgId,
                change.project as Option<ProjectId>,
                &change.key,
                value,
                revision
            )
            .execute(tx.conn())
            .await?;
        }
        None => {
            sqlx::query!(
                "DELETE FROM config_values
                  WHERE org_id = $1 AND project_id IS NOT DISTINCT FROM $2 AND key = $3",
                org as OrgId,
                change.project as Option<ProjectId>,
                &change.key
            )
            .execute(tx.conn())
            .await?;
        }
    }
    sqlx::query!(
        "INSERT INTO config_history
             (org_id, revision, key, project_id, action, old_value, new_value, author_id, author_name, reason)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        org as OrgId,
        revision,
        &change.key,
        change.project as Option<ProjectId>,
        HistoryAction::of(change.value.as_ref()) as HistoryAction,
        old,
        change.value.as_ref(),
        change.author.as_ref().and_then(Author::user) as Option<UserId>,
        change.author.as_ref().map(Author::name),
        &change.reason
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "UPDATE config_heads SET revision = $2, changed_at = clock_timestamp() WHERE org_id = $1",
        org as OrgId,
        revision
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// At most `limit` changes of a key before the revision `before`, newest first.
///
/// # Errors
/// When the database does not answer.
pub async fn history(
    tx: &mut OrgTx,
    key: &str,
    project: Option<ProjectId>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<HistoryEntry>, DbError> {
    let org = tx.org();
    Ok(sqlx::query_as!(
        HistoryEntry,
        r#"SELECT revision, key, project_id AS "project_id: ProjectId", action AS "action: HistoryAction",
                old_value, new_value, author_id AS "author_id: UserId", author_name, reason, changed_at
           FROM config_history
          WHERE org_id = $1 AND key = $2 AND ($3::uuid IS NULL OR project_id = $3) AND revision < $4
          ORDER BY revision DESC LIMIT $5"#,
        org as OrgId,
        key,
        project as Option<ProjectId>,
        before.unwrap_or(i64::MAX),
        limit
    )
    .fetch_all(tx.conn())
    .await?)
}
