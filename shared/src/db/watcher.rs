//! The cross-tenant queries that every process needs for its caches: configuration revisions and revoked access. They
//! read only numbers and ids, as a role that can see nothing else. The same role counts running sagas and deletes
//! expired rows.

use sqlx::{PgPool, postgres::PgQueryResult};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{DbError, Reach, check_role, connect_pool, in_time};
use crate::{
    ids::{AuthSessionId, OrgId, ProjectId},
    settings::Settings,
};

/// A revocation of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedAccess {
    /// The organization.
    pub org: OrgId,
    /// The id of the revocation.
    pub id: Uuid,
    /// The id of a user or an API key; none for all of them.
    pub principal: Option<Uuid>,
    /// One project; none for the whole organization.
    pub project: Option<ProjectId>,
}

/// Sagas of one kind and status that have not ended, of all organizations.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningSagas {
    /// Their kind.
    pub kind: String,
    /// Their status.
    pub status: String,
    /// How many there are.
    pub count: i64,
    /// How many seconds ago the first of them entered this status.
    pub oldest_seconds: f64,
}

/// A connection as `atrium_watcher`. Cheap to clone.
#[derive(Clone)]
pub struct Watcher {
    pool: PgPool,
}

impl Watcher {
    /// The tables that the role may use.
    pub const TABLES: &[&str] = &[
        "auth_sessions",
        "config_heads",
        "idempotency_keys",
        "revoked_access",
        "revoked_auth_sessions",
        "sagas",
    ];

    /// Connects, and checks that the role may use no other tables.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached, or the role may use other tables.
    pub async fn connect(settings: &Settings) -> anyhow::Result<Self> {
        let pool = connect_pool(settings.watcher_database_url.expose(), 2, &settings.process_name)
            .await
            .map_err(|error| anyhow::anyhow!("cannot connect with ATRIUM_WATCHER_DATABASE_URL: {error}"))?;
        check_role(&mut *pool.acquire().await?, Reach::Narrow(Self::TABLES)).await?;
        Ok(Self { pool })
    }

    /// The current configuration revisions of those of the given organizations that exist.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn config_revisions(&self, orgs: &[OrgId]) -> Result<Vec<(OrgId, i64)>, DbError> {
        let orgs: Vec<Uuid> = orgs.iter().map(|org| org.uuid()).collect();
        let heads = sqlx::query!(
            r#"SELECT org_id AS "org_id: OrgId", revision FROM config_heads WHERE org_id = ANY ($1)"#,
            &orgs[..]
        );
        let heads = in_time(heads.fetch_all(&self.pool)).await?;
        Ok(heads.into_iter().map(|head| (head.org_id, head.revision)).collect())
    }

    /// The database's time, and the sign-in sessions revoked since `since`, by id and expiry, without those that
    /// expired more than an hour ago. The next call starts from this time, because revocations have the time of the
    /// database's clock.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revoked_since(
        &self,
        since: OffsetDateTime,
    ) -> Result<(OffsetDateTime, Vec<(AuthSessionId, OffsetDateTime)>), DbError> {
        let revoked = sqlx::query!(
            r#"SELECT now() AS "now!", auth_session_id AS "auth_session_id?: AuthSessionId", expires_at AS "expires_at?"
                 FROM (SELECT) AS one LEFT JOIN revoked_auth_sessions
                   ON revoked_at >= $1 AND expires_at > now() - interval '1 hour'"#,
            since
        );
        let rows = in_time(revoked.fetch_all(&self.pool)).await?;
        let now = rows.first().map_or(since, |row| row.now);
        Ok((now, rows.into_iter().filter_map(|row| row.auth_session_id.zip(row.expires_at)).collect()))
    }

    /// The database's time, as in [`Self::revoked_since`], and access revoked since `since`, at most an hour ago.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn access_revoked_since(
        &self,
        since: OffsetDateTime,
    ) -> Result<(OffsetDateTime, Vec<RevokedAccess>), DbError> {
        let revoked = sqlx::query!(
            r#"SELECT now() AS "now!", org_id AS "org_id?: OrgId", id AS "id?", principal_id,
                    project_id AS "project_id: ProjectId"
                 FROM (SELECT) AS one LEFT JOIN revoked_access
                   ON revoked_at >= greatest($1, now() - interval '1 hour')"#,
            since
        );
        let rows = in_time(revoked.fetch_all(&self.pool)).await?;
        let now = rows.first().map_or(since, |row| row.now);
        let revocations = rows.into_iter().filter_map(|row| {
            Some(RevokedAccess {
                org: row.org_id?,
                id: row.id?,
                principal: row.principal_id,
                project: row.project_id,
            })
        });
        Ok((now, revocations.collect()))
    }

    /// How many sagas are running, and for how long.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn running_sagas(&self) -> Result<Vec<RunningSagas>, DbError> {
        // The role's policy shows only sagas that have not ended.
        let running = sqlx::query_as!(
            RunningSagas,
            r#"SELECT kind, status, count(*) AS "count!",
                    EXTRACT(EPOCH FROM clock_timestamp() - min(COALESCE(turned_around_at, created_at)))::float8
                        AS "oldest_seconds!"
               FROM sagas GROUP BY kind, status"#
        );
        Ok(in_time(running.fetch_all(&self.pool)).await?)
    }

    /// Deletes revocations of access that every process has applied long ago. Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_ended_access(&self) -> Result<u64, DbError> {
        let ended = sqlx::query!("DELETE FROM revoked_access WHERE revoked_at < now() - interval '1 hour'");
        Ok(in_time(ended.execute(&self.pool)).await?.rows_affected())
    }

    /// Deletes revocations of sign-ins whose tokens have expired long ago. Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_expired_revocations(&self) -> Result<u64, DbError> {
        let expired =
            sqlx::query!("DELETE FROM revoked_auth_sessions WHERE expires_at < now() - interval '1 hour'");
        Ok(in_time(expired.execute(&self.pool)).await?.rows_affected())
    }

    /// Deletes expired idempotency keys and sign-in sessions of inactive users; those of active users are deleted by
    /// their requests. Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn delete_absent(&self) -> Result<u64, DbError> {
        // The role's policies show only rows that may be deleted, and only their time.
        let idempotency_keys = delete_in_batches(|last| {
            sqlx::query!(
                "DELETE FROM idempotency_keys WHERE created_at <= COALESCE(
                     (SELECT created_at FROM idempotency_keys ORDER BY created_at OFFSET $1 LIMIT 1), now())",
                last
            )
            .execute(&self.pool)
        });
        let auth_sessions = delete_in_batches(|last| {
            sqlx::query!(
                "DELETE FROM auth_sessions WHERE expires_at <= COALESCE(
                     (SELECT expires_at FROM auth_sessions ORDER BY expires_at OFFSET $1 LIMIT 1), now())",
                last
            )
            .execute(&self.pool)
        });
        Ok(idempotency_keys.await? + auth_sessions.await?)
    }
}

/// Repeats a statement that deletes the oldest rows, up to the one at the given offset, until it deletes less than a
/// batch. Returns how many rows were deleted.
async fn delete_in_batches<F>(delete: impl Fn(i64) -> F) -> Result<u64, DbError>
where
    F: Future<Output = Result<PgQueryResult, sqlx::Error>>,
{
    const BATCH: i64 = 1_000;
    let mut deleted = 0;
    loop {
        let rows = in_time(delete(BATCH - 1)).await?.rows_affected();
        deleted += rows;
        if rows < BATCH.unsigned_abs() {
            return Ok(deleted);
        }
    }
}
