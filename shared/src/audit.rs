//! The audit log: every change of state in an organization, with its actor.
//!
//! An entry is inserted in the transaction of the change, so there is no change without its entry. The insert is the
//! transaction's last statement before the commit, because it takes the organization's audit lock: a transaction that
//! holds this lock waits for no other lock. The database numbers and chains the entries
//! (`migrations/0007_audit.sql`); [`verify`] recomputes the chain.

use std::fmt::Display;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use strum::{EnumString, IntoStaticStr, VariantArray};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    db::{DbError, OrgTx, Principal},
    ids::OrgId,
};

/// The actions that are recorded.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, schemars::JsonSchema, EnumString, IntoStaticStr, VariantArray,
)]
pub enum Action {
    /// A user requested the organization.
    #[strum(serialize = "organization.created")]
    #[schemars(rename = "organization.created")]
    OrganizationCreated,
    /// The organization was created from an export.
    #[strum(serialize = "organization.imported")]
    #[schemars(rename = "organization.imported")]
    OrganizationImported,
    /// The organization was exported as a whole.
    #[strum(serialize = "organization.exported")]
    #[schemars(rename = "organization.exported")]
    OrganizationExported,
    /// The organization was renamed.
    #[strum(serialize = "organization.renamed")]
    #[schemars(rename = "organization.renamed")]
    OrganizationRenamed,
    /// The organization was suspended: it can be read, not changed.
    #[strum(serialize = "organization.suspended")]
    #[schemars(rename = "organization.suspended")]
    OrganizationSuspended,
    /// The organization was resumed: it can be used again.
    #[strum(serialize = "organization.resumed")]
    #[schemars(rename = "organization.resumed")]
    OrganizationResumed,
    /// The deletion of the organization was requested; it is purged when the grace period is over.
    #[strum(serialize = "organization.deletion_requested")]
    #[schemars(rename = "organization.deletion_requested")]
    OrganizationDeletionRequested,
    /// The deletion of the organization was canceled.
    #[strum(serialize = "organization.restored")]
    #[schemars(rename = "organization.restored")]
    OrganizationRestored,
    /// An operation was canceled.
    #[strum(serialize = "operation.canceled")]
    #[schemars(rename = "operation.canceled")]
    OperationCanceled,
    /// A user accepted an invitation.
    #[strum(serialize = "member.joined")]
    #[schemars(rename = "member.joined")]
    MemberJoined,
    /// A member's role was changed.
    #[strum(serialize = "member.role_changed")]
    #[schemars(rename = "member.role_changed")]
    MemberRoleChanged,
    /// A member was removed, or left.
    #[strum(serialize = "member.removed")]
    #[schemars(rename = "member.removed")]
    MemberRemoved,
    /// An invitation was created.
    #[strum(serialize = "invitation.created")]
    #[schemars(rename = "invitation.created")]
    InvitationCreated,
    /// An invitation was revoked.
    #[strum(serialize = "invitation.revoked")]
    #[schemars(rename = "invitation.revoked")]
    InvitationRevoked,
    /// A project was created.
    #[strum(serialize = "project.created")]
    #[schemars(rename = "project.created")]
    ProjectCreated,
    /// A project was renamed.
    #[strum(serialize = "project.renamed")]
    #[schemars(rename = "project.renamed")]
    ProjectRenamed,
    /// A project was deleted.
    #[strum(serialize = "project.deleted")]
    #[schemars(rename = "project.deleted")]
    ProjectDeleted,
    /// A configuration key was set.
    #[strum(serialize = "config.set")]
    #[schemars(rename = "config.set")]
    ConfigurationSet,
    /// A configuration key's value was removed.
    #[strum(serialize = "config.unset")]
    #[schemars(rename = "config.unset")]
    ConfigurationUnset,
    /// An API key was created.
    #[strum(serialize = "api_key.created")]
    #[schemars(rename = "api_key.created")]
    ApiKeyCreated,
    /// An API key was revoked.
    #[strum(serialize = "api_key.revoked")]
    #[schemars(rename = "api_key.revoked")]
    ApiKeyRevoked,
    /// An operator replayed a dead letter.
    #[strum(serialize = "dead_letter.replayed")]
    #[schemars(rename = "dead_letter.replayed")]
    DeadLetterReplayed,
    /// An operator dropped a dead letter.
    #[strum(serialize = "dead_letter.dropped")]
    #[schemars(rename = "dead_letter.dropped")]
    DeadLetterDropped,
}

impl Action {
    /// All actions.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The name in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The action with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}

/// The kind of actor that makes a change.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    schemars::JsonSchema,
    sqlx::Type,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ActorKind {
    /// A user.
    User,
    /// A service, identified by its API key.
    ApiKey,
    /// An operator, through `atrium-ctl`.
    Operator,
    /// A worker.
    System,
}

/// A change to record.
#[derive(Debug)]
pub struct Change {
    action: Action,
    target_kind: &'static str,
    target_id: String,
    before: Option<Value>,
    after: Option<Value>,
}

impl Change {
    /// An action on a target of this kind, with this id or name.
    #[must_use]
    pub fn new(action: Action, target_kind: &'static str, target: impl Display) -> Self {
        Self { action, target_kind, target_id: target.to_string(), before: None, after: None }
    }

    /// Adds the state before the change.
    #[must_use]
    pub fn before(self, before: Value) -> Self {
        Self { before: Some(before), ..self }
    }

    /// Adds the state after the change.
    #[must_use]
    pub fn after(self, after: Value) -> Self {
        Self { after: Some(after), ..self }
    }
}

/// Records a change that `tx` makes, with the transaction's principal as the actor. Call this last before the commit.
///
/// # Errors
/// When the database does not answer.
pub async fn record(tx: &mut OrgTx, change: Change) -> Result<(), DbError> {
    let org = tx.org();
    let (kind, id, name): (ActorKind, Option<Uuid>, _) = match tx.principal() {
        Principal::User(user) => (ActorKind::User, Some(user.uuid()), None),
        Principal::ApiKey(key) => (ActorKind::ApiKey, Some(key.id.uuid()), None),
        Principal::System(Principal::OPERATOR) => (ActorKind::Operator, None, Some(Principal::OPERATOR)),
        Principal::System(role) => (ActorKind::System, None, Some(role)),
    };
    // The only row of `users` that the transaction can see is the row of its own user, the actor.
    sqlx::query!(
        "INSERT INTO audit_log (org_id, actor_kind, actor_id, actor_name, action, target_kind, target_id, before, after)
         VALUES ($1, $2, $3, COALESCE($4, (SELECT name FROM users WHERE id = $3),
                    (SELECT name FROM api_keys WHERE org_id = $1 AND id = $3), ''), $5, $6, $7, $8, $9)",
        org as OrgId,
        kind as ActorKind,
        id,
        name,
        change.action.name(),
        change.target_kind,
        change.target_id,
        change.before,
        change.after
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// An entry of the log.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Entry {
    /// 1, 2, 3 … within the organization.
    pub seq: i64,
    /// The time of the entry.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: OffsetDateTime,
    /// The kind of actor.
    pub actor_kind: ActorKind,
    /// The id of the user or API key; none for operators and workers.
    pub actor_id: Option<Uuid>,
    /// The actor's name.
    pub actor_name: String,
    /// The name of an [`Action`].
    #[schemars(with = "Action")]
    pub action: String,
    /// The kind of the changed object.
    pub target_kind: String,
    /// The id or name of the changed object.
    pub target_id: String,
    /// The state before the change.
    pub before: Option<Value>,
    /// The state after the change.
    pub after: Option<Value>,
    /// The hash of the chain up to this entry: SHA-256, in hexadecimal.
    pub hash: String,
}

/// Returns at most `limit` entries with a `seq` less than `before`, newest first, optionally of one action only.
///
/// # Errors
/// When the database does not answer.
pub async fn entries(
    tx: &mut OrgTx,
    action: Option<Action>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Entry>, DbError> {
    let org = tx.org();
    Ok(sqlx::query_as!(
        Entry,
        r#"SELECT seq, at, actor_kind AS "actor_kind: ActorKind", actor_id, actor_name, action, target_kind,
                target_id, before, after, encode(hash, 'hex') AS "hash!"
           FROM audit_log
          WHERE org_id = $1 AND ($2::text IS NULL OR action = $2) AND ($3::bigint IS NULL OR seq < $3)
          ORDER BY seq DESC LIMIT $4"#,
        org as OrgId,
        action.map(Action::name),
        before,
        limit
    )
    .fetch_all(tx.conn())
    .await?)
}

/// The result of checking a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The hash of every entry is correct.
    Whole {
        /// The number of entries.
        entries: i64,
        /// The hash of the last entry. A copy outside the database proves later that no entry was removed or replaced.
        last: Option<String>,
    },
    /// An entry is missing or has a wrong hash.
    Broken {
        /// The first number whose entry is missing or was changed.
        seq: i64,
    },
}

/// Recomputes the organization's chain from the first entry.
///
/// # Errors
/// When the database does not answer.
pub async fn verify(tx: &mut OrgTx) -> Result<Verdict, DbError> {
    const PAGE: i64 = 1_000;
    let org = tx.org();
    let (mut entries, mut last) = (0, Vec::new());
    loop {
        // The database renders the text that its trigger hashed; the hash is recomputed here.
        let page = sqlx::query!(
            r#"SELECT seq, hash, jsonb_build_array(
                        org_id, seq, at AT TIME ZONE 'UTC', actor_kind, actor_id, actor_name,
                        action, target_kind, target_id, before, after)::text AS "content!"
               FROM audit_log WHERE org_id = $1 AND seq > $2 ORDER BY seq LIMIT $3"#,
            org as OrgId,
            entries,
            PAGE
        )
        .fetch_all(tx.conn())
        .await?;
        if page.is_empty() {
            let last = entries.gt(&0).then(|| hex(&last));
            return Ok(Verdict::Whole { entries, last });
        }
        for entry in page {
            let expected = Sha256::new().chain_update(&last).chain_update(entry.content).finalize();
            if entry.seq != entries + 1 || entry.hash != expected.as_slice() {
                return Ok(Verdict::Broken { seq: entries + 1 });
            }
            (entries, last) = (entry.seq, entry.hash);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
