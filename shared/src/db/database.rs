//! The database as the application sees it: the only source of transactions.

use std::time::Duration;

use super::{
    DbError, OrgTx, Principal, Reach, UserTx, check_role,
    org_tx::View,
    pool::Pool,
    wake::{self, Wake},
};
use crate::{
    ids::{OrgId, SagaId, UserId},
    settings::{Pooling, Secret, Settings},
};

/// The database as the application sees it. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    wake: Wake,
}

impl Database {
    /// Connects as `atrium_app`, and checks that this role cannot bypass the tenant wall.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached, or the role could see more than one tenant at a time.
    pub async fn connect(settings: &Settings) -> anyhow::Result<Self> {
        Self::connect_to(
            &settings.database_url,
            settings.database_connections,
            &settings.process_name,
            settings.database_pooling,
        )
        .await
    }

    /// Like [`Self::connect`], for a command that needs only the database.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_to(
        url: &Secret,
        connections: u32,
        process_name: &str,
        pooling: Pooling,
    ) -> anyhow::Result<Self> {
        let pool = Pool::connect(url.expose(), connections, process_name, pooling)
            .await
            .map_err(|error| anyhow::anyhow!("cannot connect with ATRIUM_DATABASE_URL: {error}"))?;
        check_role(&mut *pool.begin("").await?, Reach::Tenant).await?;
        Ok(Self { wake: Wake::new(pool.clone()), pool })
    }

    /// Wakes the relay and waits until the notification is sent, for a process that is about to end.
    ///
    /// # Errors
    /// When the database does not answer. The relay's poll then finds the message.
    pub async fn wake_relay(&self) -> Result<(), DbError> {
        Ok(wake::notify(&self.pool).await?)
    }

    /// Checks that the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), DbError> {
        Ok(self.pool.run("SELECT 1").await?)
    }

    /// Begins a transaction in one organization. This is also the authorization: a user must be a member, and a service
    /// must have a valid key with the scope.
    ///
    /// # Errors
    /// [`DbError::NotFound`] when the user is not a member, when the organization has no such key with this scope, and
    /// when there is no such organization.
    pub async fn org_tx(&self, principal: &Principal, org: OrgId) -> Result<OrgTx, DbError> {
        OrgTx::open(&self.pool, &self.wake, principal, org, View::Current).await
    }

    /// Like [`Self::org_tx`], on a new connection outside of the pool, for when the pool's connections do not answer or
    /// are all in use.
    ///
    /// # Errors
    /// As [`Self::org_tx`].
    pub async fn org_tx_on_new_connection(
        &self,
        principal: &Principal,
        org: OrgId,
    ) -> Result<OrgTx, DbError> {
        OrgTx::open(&self.pool.apart(), &self.wake, principal, org, View::Current).await
    }

    /// Like [`Self::org_tx`], for reading large amounts of data: read-only, with all data as of one moment. The
    /// transaction may wait for its reader, but PostgreSQL ends it when it is idle for longer than `idle`.
    ///
    /// # Errors
    /// As [`Self::org_tx`].
    pub async fn snapshot_tx(
        &self,
        principal: &Principal,
        org: OrgId,
        idle: Duration,
    ) -> Result<OrgTx, DbError> {
        OrgTx::open(&self.pool, &self.wake, principal, org, View::Snapshot(idle)).await
    }

    /// Begins the transaction that creates an organization, with `user` as its future owner.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn create_org_tx(&self, user: UserId, org: OrgId) -> Result<OrgTx, DbError> {
        OrgTx::open_as_newcomer(&self.pool, &self.wake, user, org).await
    }

    /// Begins a transaction in an organization that `user` is about to join. It can read invitations and add `user` as
    /// a member; the caller checks the invitation before anything else.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn joining_tx(&self, user: UserId, org: OrgId) -> Result<OrgTx, DbError> {
        OrgTx::open_as_newcomer(&self.pool, &self.wake, user, org).await
    }

    /// Begins a transaction for one user across organizations. It sees the user, their memberships, and the operations
    /// that they requested.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn user_tx(&self, user: UserId) -> Result<UserTx, DbError> {
        UserTx::open(&self.pool, user).await
    }

    /// Begins a transaction that may read the operation `saga`, if `user` requested it or is a member of its
    /// organization: row-level security shows the query only such sagas. A user whose organization could not be
    /// created is no longer a member of it, and can still read why.
    ///
    /// # Errors
    /// [`DbError::NotFound`] when there is no such operation that the user may read.
    pub async fn operation_tx(&self, user: UserId, saga: SagaId) -> Result<OrgTx, DbError> {
        let mut user_tx = self.user_tx(user).await?;
        let org = sqlx::query_scalar!(
            r#"SELECT org_id AS "org_id: OrgId" FROM sagas WHERE id = $1"#,
            saga as SagaId
        )
        .fetch_one(user_tx.conn())
        .await?;
        // Ended before the next one begins: requests that use one connection and wait for another could exhaust the
        // pool.
        drop(user_tx);
        OrgTx::open_as_newcomer(&self.pool, &self.wake, user, org).await
    }
}
