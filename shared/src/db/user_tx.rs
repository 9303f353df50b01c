//! A transaction for one user, across the organizations that they are a member of.

use sqlx::{PgConnection, Postgres, Transaction};

use super::{DbError, pool::Pool};
use crate::ids::UserId;

/// A transaction that has named a user and no organization. It sees the user's own row, tokens and idempotency keys,
/// their memberships and those organizations, and the operations that they requested. It can write only the user's own
/// rows.
pub struct UserTx {
    inner: Transaction<'static, Postgres>,
    user: UserId,
}

impl UserTx {
    pub(super) async fn open(pool: &Pool, user: UserId) -> Result<Self, DbError> {
        // As in OrgTx: one message, typed ids, settings that end with the transaction. The organization is set to
        // the empty string, because only then the policies for a user's own rows apply.
        let statement =
            format!("SELECT set_config('app.org_id', '', true), set_config('app.user_id', '{user}', true)");
        Ok(Self { inner: pool.begin(&statement).await?, user })
    }

    /// The connection, for statements on this user's rows.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    /// The user that this transaction is for.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.user
    }

    /// Commits.
    ///
    /// # Errors
    /// When the database rejects the commit or cannot be reached.
    pub async fn commit(self) -> Result<(), DbError> {
        Ok(self.inner.commit().await?)
    }
}
