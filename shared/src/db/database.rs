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
    /// Connects as `atrium_app`, and makes sure that this role cannot pass the wall.
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

    /// The same, for a command that needs nothing but the database.
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

    /// Wakes the relay now and waits until that is done, for a process that is about to end.
    ///
    /// # Errors
    /// When the database does not answer; the relay's poll will find the message.
    pub async fn wake_relay(&self) -> Result<(), DbError> {
        Ok(wake::notify(&self.pool).await?)
    }

    /// Asks for nothing, to learn whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), DbError> {
        Ok(self.pool.run("SELECT 1").await?)
    }

    /// Begins a transaction in one organization. For a user this checks the membership, and for a service its key,
    /// which is also the authorization: without a role there is no transaction.
    ///
    /// # Errors
    /// [`DbError::NotFound`] when the user is no member, or the key is none of the organization for that scope; the
    /// same when there is no such organization.
    pub async fn org_tx(&self, principal: &Principal, org: OrgId) -> Result<OrgTx, DbError> {
        OrgTx::open(&self.pool, &self.wake, principal, org, View::Current).await
    }

    /// The same on a connection of its own, which is opened for it: to ask when those of the pool do not answer, or are
    /// all taken.
    ///
    /// # Errors
    /// As [`Self::org_tx`].
    pub async fn org_tx_apart(&self, principal: &Principal, org: OrgId) -> Result<OrgTx, DbError> {
        OrgTx::open(&self.pool.apart(), &self.wake, principal, org, View::Current).await
    }

    /// The same for reading very much of an organization: all of it as of one moment, and nothing can be written. The
    /// transaction may wait for its reader, but no longer than `idle` at a time: then PostgreSQL ends it.
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

    /// Begins the transaction that founds an organization, with `user` as the owner-to-be.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn founding_tx(&self, user: UserId, org: OrgId) -> Result<OrgTx, DbError> {
        OrgTx::open_as_newcomer(&self.pool, &self.wake, user, org).await
    }

    /// Begins a transaction in an organization that `user` is about to join: may look at invitations and add
    /// `user` as a member, and must do nothing before the invitation is checked.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn joining_tx(&self, user: UserId, org: OrgId) -> Result<OrgTx, DbError> {
        OrgTx::open_as_newcomer(&self.pool, &self.wake, user, org).await
    }

    /// Begins a transaction for one user across organizations: sees who they are, where they are a member, and
    /// the operations they asked for.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn user_tx(&self, user: UserId) -> Result<UserTx, DbError> {
        UserTx::open(&self.pool, user).await
    }

    /// Begins a transaction that may read the operation `saga`, if `user` asked for it or is a member of its
    /// organization. The wall decides: the look-up sees only such sagas. Someone who asked for an organization that
    /// failed is no longer a member, and still learns why.
    ///
    /// # Errors
    /// [`DbError::NotFound`] when there is no such operation, or it is somebody else's.
    pub async fn operation_tx(&self, user: UserId, saga: SagaId) -> Result<OrgTx, DbError> {
        let mut mine = self.user_tx(user).await?;
        let org = sqlx::query_scalar!(
            r#"SELECT org_id AS "org_id: OrgId" FROM sagas WHERE id = $1"#,
            saga as SagaId
        )
        .fetch_one(mine.conn())
        .await?;
        // Both transactions at once could starve each other of connections.
        drop(mine);
        OrgTx::open_as_newcomer(&self.pool, &self.wake, user, org).await
    }
}
