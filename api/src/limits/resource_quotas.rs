//! The quotas of members and projects of an organization. Only an operator can change them, not its members.
//!
//! The rows are counted with the organization's row locked, so two transactions cannot both add the last member or
//! project. The quota is read in the same transaction, so a change by an operator applies to the next transaction in
//! every process.

use atrium_shared::{
    configuration::Effective,
    db::{DbError, OrgTx},
    ids::OrgId,
    organizations,
};

use crate::http::problem::{Code, Problem};

/// The kind of rows that a quota limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Quota {
    /// Members of the organization.
    Members,
    /// Projects of the organization.
    Projects,
}

impl Quota {
    fn key(self) -> &'static str {
        match self {
            Self::Members => "quotas.members",
            Self::Projects => "quotas.projects",
        }
    }

    fn platform_default(self, platform: &Effective) -> u32 {
        match self {
            Self::Members => platform.quota_members.get(),
            Self::Projects => platform.quota_projects.get(),
        }
    }

    async fn count(self, tx: &mut OrgTx) -> Result<i64, DbError> {
        let org = tx.org();
        let count = match self {
            Self::Members => {
                sqlx::query_scalar!(
                    r#"SELECT count(*) AS "count!" FROM members WHERE org_id = $1"#,
                    org as OrgId
                )
                .fetch_one(tx.conn())
                .await?
            }
            Self::Projects => {
                sqlx::query_scalar!(
                    r#"SELECT count(*) AS "count!" FROM projects WHERE org_id = $1"#,
                    org as OrgId
                )
                .fetch_one(tx.conn())
                .await?
            }
        };
        Ok(count)
    }
}

/// Checks that one more fits into the quota, and keeps other transactions from adding any until this one ends.
/// `platform` has the default quotas.
///
/// # Errors
/// [`Code::QuotaReached`].
pub(crate) async fn require_capacity(
    tx: &mut OrgTx,
    quota: Quota,
    platform: &Effective,
) -> Result<(), Problem> {
    require_capacity_for(tx, quota, 1, platform).await
}

/// Like [`require_capacity`], for `added` members or projects.
///
/// # Errors
/// [`Code::QuotaReached`].
pub(crate) async fn require_capacity_for(
    tx: &mut OrgTx,
    quota: Quota,
    added: usize,
    platform: &Effective,
) -> Result<(), Problem> {
    organizations::lock(tx).await?;
    let org = tx.org();
    let own = sqlx::query_scalar!(
        "SELECT value FROM config_values WHERE org_id = $1 AND project_id IS NULL AND key = $2",
        org as OrgId,
        quota.key()
    )
    .fetch_optional(tx.conn())
    .await?;
    let limit =
        own.and_then(|value| value.as_i64()).unwrap_or_else(|| quota.platform_default(platform).into());
    let existing = quota.count(tx).await?;
    if i64::try_from(added).is_ok_and(|added| existing.saturating_add(added) <= limit) {
        return Ok(());
    }
    let detail = if added > 1 {
        format!("Limit reached: {limit} {quota} per organization, and this import brings {added}.")
    } else {
        format!("Limit reached: {limit} {quota} per organization.")
    };
    Err(Problem::new(Code::QuotaReached, detail))
}
