//! Keys of services, looked up behind the wall of the organization that they name.

use time::OffsetDateTime;

use super::{Database, DbError, OrgTx, Principal};
use crate::{
    api_key::{ApiKeyText, ApiScope},
    ids::{ApiKeyId, OrgId},
};

/// Who asks the database while a key is not known yet.
const PRINCIPAL: Principal = Principal::System("api keys");

/// A key that holds.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// What its makers call it.
    pub name: String,
    scopes: Vec<String>,
    /// Until when it holds; none: until it is revoked.
    pub expires_at: Option<OffsetDateTime>,
    used_lately: bool,
}

impl ApiKey {
    /// Whether it may be used for this.
    #[must_use]
    pub fn allows(&self, scope: ApiScope) -> bool {
        self.scopes.iter().any(|allowed| allowed == scope.name())
    }

    /// Whether its use should be noted: it was not within the last minute.
    #[must_use]
    pub fn is_use_worth_noting(&self) -> bool {
        !self.used_lately
    }
}

impl Database {
    /// What a presented key is, if it holds now.
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

    /// Notes that a key was used, once a minute at most, whoever else notes it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn note_api_key_use(&self, org: OrgId, key: ApiKeyId) -> Result<(), DbError> {
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
