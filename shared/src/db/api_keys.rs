//! API keys of services. A key contains its organization, so it is looked up in a transaction in that organization.

use time::OffsetDateTime;

use super::{Database, DbError, OrgTx, Principal};
use crate::{
    api_key::{ApiKeyText, ApiScope},
    ids::{ApiKeyId, OrgId},
};

/// The principal of the queries in this module: the key's own principal exists only after it was found.
const PRINCIPAL: Principal = Principal::System("api keys");

/// A valid key.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Its name, chosen by the member who created it.
    pub name: String,
    scopes: Vec<String>,
    /// When it expires; none: never.
    pub expires_at: Option<OffsetDateTime>,
    used_lately: bool,
}

impl ApiKey {
    /// Whether it has this scope.
    #[must_use]
    pub fn allows(&self, scope: ApiScope) -> bool {
        self.scopes.iter().any(|allowed| allowed == scope.name())
    }

    /// Whether its use should be recorded: none was in the last minute.
    #[must_use]
    pub fn should_record_use(&self) -> bool {
        !self.used_lately
    }
}

impl Database {
    /// Finds a presented key; none when it is not valid now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn api_key(&self, presented: &ApiKeyText) -> Result<Option<ApiKey>, DbError> {
        let mut tx = self.org_tx(&PRINCIPAL, presented.org).await?;
        Ok(sqlx::query_as!(
            ApiKey,
            r#"SELECT name, scopes, expires_at,
                    COALESCE(last_used_at > now() - interval '1 minute', false) AS "used_lately!"
               FROM api_keys
              WHERE org_id = $1 AND id = $2 AND hash = $3
                AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"#,
            presented.org as OrgId,
            presented.id as ApiKeyId,
            &presented.hash()[..]
        )
        .fetch_optional(tx.conn())
        .await?)
    }

    /// Records that a key was used, at most once a minute over all processes.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn record_api_key_use(&self, org: OrgId, key: ApiKeyId) -> Result<(), DbError> {
        let mut tx: OrgTx = self.org_tx(&PRINCIPAL, org).await?;
        sqlx::query!(
            "UPDATE api_keys SET last_used_at = now()
              WHERE org_id = $1 AND id = $2
                AND (last_used_at IS NULL OR last_used_at <= now() - interval '1 minute')",
            org as OrgId,
            key as ApiKeyId
        )
        .execute(tx.conn())
        .await?;
        tx.commit().await
    }
}
