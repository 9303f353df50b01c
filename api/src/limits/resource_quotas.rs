//! How many members and projects an organization may have. The operator says so; nobody in it can change it.
//!
//! Counting happens under the organization's row, so of two who add the last one, one comes too late. The quota is read
//! where the count is: what an operator has just set holds for the next transaction, in every process.

use atrium_shared::{
    configuration::Effective,
    db::{DbError, OrgTx},
    ids::OrgId,
    organizations,
};

use crate::http::problem::{Code, Problem};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Quota {
    /// Its members.
    Members,
    /// Its projects.
    Projects,
}

impl Quota {
    fn key(self) -> &'static str {
        match self {
            Self::Members => "quotas.members",
            Self::Projects => "quotas.projects",
        }
    }

    fn of_everybody(self, platform: &Effective) -> u32 {
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

/// Makes sure that one more fits, and that nobody else adds one before this transaction ends. `platform`: what holds
/// for everybody.
///
/// # Errors
/// [`Code::QuotaReached`].
pub(crate) async fn require_room(tx: &mut OrgTx, quota: Quota, platform: &Effective) -> Result<(), Problem> {
    require_room_for(tx, quota, 1, platform).await
}

/// The same for `more` of them.
///
/// # Errors
/// [`Code::QuotaReached`].
pub(crate) async fn require_room_for(
    tx: &mut OrgTx,
    quota: Quota,
    more: usize,
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
    let most = own.and_then(|value| value.as_i64()).unwrap_or_else(|| quota.of_everybody(platform).into());
    let there = quota.count(tx).await?;
    if i64::try_from(more).is_ok_and(|more| there.saturating_add(more) <= most) {
        return Ok(());
    }
    let detail = if more > 1 {
        format!("Limit reached: {most} {quota} per organization, and this import brings {more}.")
    } else {
        format!("Limit reached: {most} {quota} per organization.")
    };
    Err(Problem::new(Code::QuotaReached, detail))
}
