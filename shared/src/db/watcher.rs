//! The view across tenants that every process needs for its caches: configuration revisions and revoked sign-ins,
//! numbers and ids only, through a role that can see nothing else. It also counts sagas that run, and deletes what is
//! over.

use sqlx::{PgPool, postgres::PgQueryResult};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{DbError, Reach, check_role, connect_pool, in_time};
use crate::{
    ids::{AuthSessionId, OrgId, ProjectId},
    settings::Settings,
};

/// The end of somebody's access to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedAccess {
    /// The organization.
    pub org: OrgId,
    /// The end's own id.
    pub id: Uuid,
    /// A user's id or an API key's; none for everybody.
    pub principal: Option<Uuid>,
    /// One project; none for all of the organization.
    pub project: Option<ProjectId>,
}

/// Sagas of one kind and status that have not ended, of all organizations.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningSagas {
    /// What they do.
    pub kind: String,
    /// How far they are.
    pub status: String,
    /// How many there are.
    pub count: i64,
    /// For how many seconds the oldest has had this status.
    pub oldest_seconds: f64,
}

/// A connection as `atrium_watcher`. Cheap to clone.
#[derive(Clone)]
pub struct Watcher {
    pool: PgPool,
}

impl Watcher {
    /// What the role may touch.
    pub const TABLES: &[&str] = &[
        "auth_sessions",
        "config_heads",
        "idempotency_keys",
        "revoked_access",
        "revoked_auth_sessions",
        "sagas",
    ];

    /// Connects, and makes sure that the role sees no more than it should.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached, or the role may touch anything else.
    pub async fn connect(settings: &Settings) -> anyhow::Result<Self> {
        let pool = connect_pool(settings.watcher_database_url.expose(), 2, &settings.process_name)
            .await
            .map_err(|error| anyhow::anyhow!("cannot connect with ATRIUM_WATCHER_DATABASE_URL: {error}"))?;
        check_role(&mut *pool.acquire().await?, Reach::Narrow(Self::TABLES)).await?;
        Ok(Self { pool })
    }

    /// The current configuration revisions of the given organizations; one that is gone is missing.
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

    /// Sign-in sessions revoked since `since` whose tokens have not expired long ago, by id and expiry; and the database's
    /// time. Its clock stamps the revocations, so no other can say from when to ask the next time.
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

    /// Ends of access since `since`, an hour back at most; and the database's time, as in [`Self::revoked_since`].
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
        let ends = rows.into_iter().filter_map(|row| {
            Some(RevokedAccess {
                org: row.org_id?,
                id: row.id?,
                principal: row.principal_id,
                project: row.project_id,
            })
        });
        Ok((now, ends.collect()))
    }

    /// How many sagas are on their way, and for how long.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn running_sagas(&self) -> Result<Vec<RunningSagas>, DbError> {
        // The role's policy shows it those that have not ended.
        let running = sqlx::query_as!(
            RunningSagas,
            r#"SELECT kind, status, count(*) AS "count!",
                    EXTRACT(EPOCH FROM clock_timestamp() - min(COALESCE(turned_around_at, created_at)))::float8
                        AS "oldest_seconds!"
               FROM sagas GROUP BY kind, status"#
        );
        Ok(in_time(running.fetch_all(&self.pool)).await?)
    }

    /// Forgets ends of access that every process has learned since long. Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_ended_access(&self) -> Result<u64, DbError> {
        let ended = sqlx::query!("DELETE FROM revoked_access WHERE revoked_at < now() - interval '1 hour'");
        Ok(in_time(ended.execute(&self.pool)).await?.rows_affected())
    }

    /// Deletes revocations of sign-ins whose tokens have expired long ago. Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_expired_revocations(&self) -> Result<u64, DbError> {
        let expired =
            sqlx::query!("DELETE FROM revoked_auth_sessions WHERE expires_at < now() - interval '1 hour'");
        Ok(in_time(expired.execute(&self.pool)).await?.rows_affected())
    }

    /// Deletes recorded answers and sign-ins that are over, of users who have not come back to do it themselves.
    /// Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_the_absent(&self) -> Result<u64, DbError> {
        // The role's policies show it what may be deleted, and nothing else; how old a row is, is all it sees.
        let answers = delete_in_batches(|last| {
            sqlx::query!(
                "DELETE FROM idempotency_keys WHERE created_at <= COALESCE(
                     (SELECT created_at FROM idempotency_keys ORDER BY created_at OFFSET $1 LIMIT 1), now())",
                last
            )
            .execute(&self.pool)
        });
        let sign_ins = delete_in_batches(|last| {
            sqlx::query!(
                "DELETE FROM auth_sessions WHERE expires_at <= COALESCE(
                     (SELECT expires_at FROM auth_sessions ORDER BY expires_at OFFSET $1 LIMIT 1), now())",
                last
            )
            .execute(&self.pool)
        });
        Ok(answers.await? + sign_ins.await?)
    }
}

/// Runs a statement that deletes the oldest rows, up to the one at the given offset, until fewer are left. Returns how
/// many it deleted.
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
