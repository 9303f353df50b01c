//! A transaction in one organization: the only way to its rows.

use std::time::Duration;

use sqlx::{PgConnection, Postgres, Transaction};

use super::{
    DbError, Principal,
    outbox::{self, Outgoing},
    pool::Pool,
    wake::Wake,
};
use crate::{
    api_key::ApiKeyUse,
    ids::{ApiKeyId, MessageId, OrgId, ProjectId, UserId},
    messages::OutboxMessage,
    tenancy::{OrgStatus, Role},
};

/// How many rows to insert with one statement when the rows are passed as one parameter, a JSON array.
pub const ROWS_PER_INSERT: usize = 500;

/// A transaction that has named its organization. Dropped without [`OrgTx::commit`], it rolls back.
pub struct OrgTx {
    inner: Transaction<'static, Postgres>,
    org: OrgId,
    principal: Principal,
    access: Access,
    wake: Wake,
    enqueued: bool,
}

/// What gives the transaction access to the organization.
#[derive(Clone, Copy)]
enum Access {
    /// A member with this role, or a service whose key counts as one, in an organization with this status.
    Member(Role, OrgStatus),
    /// A worker or an operator.
    System,
    /// A user without a role there, for a purpose that [`super::Database`] names: creating the organization, joining
    /// it, or reading an operation that they requested.
    Newcomer,
}

/// What a transaction sees of the commits of others while it runs.
#[derive(Clone, Copy)]
pub(super) enum View {
    /// Each statement sees what was committed before it.
    Current,
    /// All statements see the data as of one moment, and none may write. PostgreSQL ends the transaction when it is
    /// idle for this long, because an open snapshot prevents the removal of old rows.
    Snapshot(Duration),
}

impl View {
    fn begin(self) -> &'static str {
        match self {
            Self::Current => "BEGIN",
            Self::Snapshot(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        }
    }

    /// Session settings that apply until the transaction ends.
    fn settings(self) -> String {
        match self {
            Self::Current => String::new(),
            Self::Snapshot(idle) => {
                format!(", set_config('idle_in_transaction_session_timeout', '{}', true)", idle.as_millis())
            }
        }
    }
}

impl OrgTx {
    pub(super) async fn open(
        pool: &Pool,
        wake: &Wake,
        principal: &Principal,
        org: OrgId,
        view: View,
    ) -> Result<Self, DbError> {
        match principal {
            Principal::System(_) => Self::begin(pool, wake, org, *principal, Access::System, view).await,
            Principal::User(user) => {
                let mut tx = Self::begin(pool, wake, org, *principal, Access::Newcomer, view).await?;
                let member = sqlx::query!(
                    r#"SELECT members.role AS "role: Role", orgs.status AS "status: OrgStatus"
                         FROM members JOIN orgs ON orgs.id = members.org_id
                        WHERE members.org_id = $1 AND members.user_id = $2"#,
                    org as OrgId,
                    *user as UserId
                )
                .fetch_optional(tx.conn())
                .await?
                .ok_or(DbError::NotFound)?;
                tx.access = Access::Member(member.role, member.status);
                Ok(tx)
            }
            Principal::ApiKey(ApiKeyUse { id, hash, scope }) => {
                let mut tx = Self::begin(pool, wake, org, *principal, Access::Newcomer, view).await?;
                let status = sqlx::query_scalar!(
                    r#"SELECT orgs.status AS "status: OrgStatus" FROM api_keys JOIN orgs ON orgs.id = api_keys.org_id
                        WHERE api_keys.org_id = $1 AND api_keys.id = $2 AND api_keys.hash = $3
                          AND $4 = ANY (api_keys.scopes) AND api_keys.revoked_at IS NULL
                          AND (api_keys.expires_at IS NULL OR api_keys.expires_at > now())"#,
                    org as OrgId,
                    *id as ApiKeyId,
                    &hash[..],
                    scope.name()
                )
                .fetch_optional(tx.conn())
                .await?
                .ok_or(DbError::NotFound)?;
                tx.access = Access::Member(scope.role(), status);
                Ok(tx)
            }
        }
    }

    pub(super) async fn open_as_newcomer(
        pool: &Pool,
        wake: &Wake,
        user: UserId,
        org: OrgId,
    ) -> Result<Self, DbError> {
        Self::begin(pool, wake, org, Principal::User(user), Access::Newcomer, View::Current).await
    }

    async fn begin(
        pool: &Pool,
        wake: &Wake,
        org: OrgId,
        principal: Principal,
        access: Access,
        view: View,
    ) -> Result<Self, DbError> {
        // The values are typed ids, so the text contains no input. `true` ends the settings with the transaction;
        // otherwise the next client of a transaction pooler would inherit them.
        let user = match principal {
            Principal::User(user) => user.to_string(),
            // No user has this id, so the policies for a user's own rows match the rows recorded under the key.
            Principal::ApiKey(key) => key.id.to_string(),
            Principal::System(_) => String::new(),
        };
        let statement = format!(
            "SELECT set_config('app.org_id', '{org}', true), set_config('app.user_id', '{user}', true){}",
            view.settings()
        );
        let inner = pool.begin_as(view.begin(), &statement).await?;
        Ok(Self { inner, org, principal, access, wake: wake.clone(), enqueued: false })
    }

    /// The connection, for statements on this organization's rows.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    /// The organization that this transaction is in.
    #[must_use]
    pub fn org(&self) -> OrgId {
        self.org
    }

    /// The principal that it runs for.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.principal
    }

    /// The member's role. System transactions have the highest role, those of newcomers the lowest.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.access {
            Access::Member(role, _) => role,
            Access::System => Role::Owner,
            Access::Newcomer => Role::Viewer,
        }
    }

    /// The organization's status when the transaction began; none for the system and for newcomers.
    #[must_use]
    pub fn status(&self) -> Option<OrgStatus> {
        match self.access {
            Access::Member(_, status) => Some(status),
            Access::System | Access::Newcomer => None,
        }
    }

    /// Whether it is a transaction of a worker or an operator.
    #[must_use]
    pub fn is_system(&self) -> bool {
        matches!(self.access, Access::System)
    }

    /// Revokes access that other processes may have cached: that of `principal_id`, or of all principals, to one
    /// project or to the whole organization. Every process applies it within a second of the commit, and ends open
    /// streams.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revoke_access(
        &mut self,
        principal_id: Option<uuid::Uuid>,
        project: Option<ProjectId>,
    ) -> Result<(), DbError> {
        let org = self.org;
        sqlx::query!(
            "INSERT INTO revoked_access (org_id, principal_id, project_id) VALUES ($1, $2, $3)",
            org as OrgId,
            principal_id,
            project as Option<ProjectId>
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Adds a message that is delivered if, and only if, this transaction commits.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn enqueue<M: OutboxMessage>(
        &mut self,
        aggregate: M::Aggregate,
        message: &M,
    ) -> Result<MessageId, DbError> {
        let message = Outgoing::new(message, None);
        self.insert_messages(aggregate.into(), std::slice::from_ref(&message)).await?;
        Ok(message.id)
    }

    /// Adds a message that is delivered no earlier than `delay` from now, such as a retry.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn enqueue_after<M: OutboxMessage>(
        &mut self,
        aggregate: M::Aggregate,
        message: &M,
        delay: Duration,
    ) -> Result<MessageId, DbError> {
        let message = Outgoing::new(message, Some(delay));
        self.insert_messages(aggregate.into(), std::slice::from_ref(&message)).await?;
        Ok(message.id)
    }

    /// Adds a message that is delivered immediately, and one that is delivered at the `deadline`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn enqueue_with_deadline<M: OutboxMessage>(
        &mut self,
        aggregate: M::Aggregate,
        immediate: &M,
        at_deadline: &M,
        deadline: Duration,
    ) -> Result<(), DbError> {
        let messages = [Outgoing::new(immediate, None), Outgoing::new(at_deadline, Some(deadline))];
        self.insert_messages(aggregate.into(), &messages).await
    }

    async fn insert_messages<M: OutboxMessage>(
        &mut self,
        aggregate: uuid::Uuid,
        messages: &[Outgoing<'_, M>],
    ) -> Result<(), DbError> {
        let org = self.org;
        outbox::insert(self.conn(), org, aggregate, messages).await?;
        // The relay finds a delayed message with its poll when it is due.
        self.enqueued |= messages.iter().any(Outgoing::is_due);
        Ok(())
    }

    /// Commits, and wakes the relay if a message was added.
    ///
    /// # Errors
    /// When the database rejects the commit or cannot be reached. Then nothing was committed, or, if the connection
    /// broke at the very end, everything was; a retry with the same idempotency key shows which.
    pub async fn commit(self) -> Result<(), DbError> {
        self.inner.commit().await?;
        if self.enqueued {
            self.wake.relay();
        }
        Ok(())
    }
}
