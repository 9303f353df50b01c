//! A transaction for one user, across organizations but never beyond their own memberships.

use sqlx::{PgConnection, Postgres, Transaction};

use super::{DbError, pool::Pool};
use crate::ids::UserId;

/// A transaction that has named a user and no organization. It sees the user's own row, tokens and idempotency
/// keys, their memberships and those organizations, and the operations they asked for. It can write only what is
/// the user's own.
pub struct UserTx {
    inner: Transaction<'static, Postgres>,
    user: UserId,
}

impl UserTx {
    pub(super) async fn open(pool: &Pool, user: UserId) -> Result<Self, DbError> {
        // As in OrgTx: one message, typed values, gone with the transaction. The organization is set too, to
        // nothing: that is what opens the policies for "mine", even inside a connection that was used before.
        let statement =
            format!("SELECT set_config('app.org_id', '', true), set_config('app.user_id', '{user}', true)");
        Ok(Self { inner: pool.begin(&statement).await?, user })
    }

    /// The connection, for statements on what is this user's.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    /// The user this transaction is for.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.user
    }

    /// Makes everything that was done in this transaction last.
    ///
    /// # Errors
    /// When the database refuses or is gone.
    pub async fn commit(self) -> Result<(), DbError> {
        Ok(self.inner.commit().await?)
    }
}
