//! The view across tenants that every process needs for its caches: configuration revisions and revoked sign-ins,
//! numbers and ids only, through a role that can see nothing else. It also counts sagas that run, and deletes what is
//! over.

use sqlx::PgPool;
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
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
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
        let revisions = sqlx::query_as("SELECT org_id, revision FROM config_heads WHERE org_id = ANY ($1)");
        Ok(in_time(revisions.bind(orgs).fetch_all(&self.pool)).await?)
    }

    /// Sign-in sessions revoked since `since` whose tokens have not expired long ago, by id and expiry; and the database's time. Its
    /// clock stamps the revocations, so no other can say from when to ask the next time.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revoked_since(
        &self,
        since: OffsetDateTime,
    ) -> Result<(OffsetDateTime, Vec<(AuthSessionId, OffsetDateTime)>), DbError> {
        type Row = (OffsetDateTime, Option<AuthSessionId>, Option<OffsetDateTime>);
        let revoked = sqlx::query_as(
            "SELECT now(), auth_session_id, expires_at FROM (SELECT) AS one LEFT JOIN revoked_auth_sessions
                 ON revoked_at >= $1 AND expires_at > now() - interval '1 hour'",
        )
        .bind(since);
        let rows: Vec<Row> = in_time(revoked.fetch_all(&self.pool)).await?;
        let now = rows.first().map_or(since, |(now, ..)| *now);
        Ok((
            now,
            rows.into_iter()
                .filter_map(|(_, auth_session, expires_at)| auth_session.zip(expires_at))
                .collect(),
        ))
    }

    /// Ends of access since `since`, an hour back at most; and the database's time, as in [`Self::revoked_since`].
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn access_revoked_since(
        &self,
        since: OffsetDateTime,
    ) -> Result<(OffsetDateTime, Vec<RevokedAccess>), DbError> {
        type Row = (OffsetDateTime, Option<OrgId>, Option<Uuid>, Option<Uuid>, Option<ProjectId>);
        let revoked = sqlx::query_as(
            "SELECT now(), org_id, id, principal_id, project_id FROM (SELECT) AS one LEFT JOIN revoked_access
                 ON revoked_at >= greatest($1, now() - interval '1 hour')",
        )
        .bind(since);
        let rows: Vec<Row> = in_time(revoked.fetch_all(&self.pool)).await?;
        let now = rows.first().map_or(since, |(now, ..)| *now);
        let ends = rows.into_iter().filter_map(|(_, org, id, principal, project)| {
            Some(RevokedAccess { org: org?, id: id?, principal, project })
        });
        Ok((now, ends.collect()))
    }

    /// How many sagas are on their way, and for how long.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn running_sagas(&self) -> Result<Vec<RunningSagas>, DbError> {
        // The role's policy shows it those that have not ended.
        let running = sqlx::query_as(
            "SELECT kind, status, count(*),
                    EXTRACT(EPOCH FROM clock_timestamp() - min(COALESCE(turned_around_at, created_at)))::float8
                        AS oldest_seconds
               FROM sagas GROUP BY kind, status",
        );
        Ok(in_time(running.fetch_all(&self.pool)).await?)
    }

    /// Forgets ends of access that every process has learned since long. Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_ended_access(&self) -> Result<u64, DbError> {
        self.delete("DELETE FROM revoked_access WHERE revoked_at < now() - interval '1 hour'").await
    }

    /// Deletes revocations of sign-ins whose tokens have expired long ago. Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_expired_revocations(&self) -> Result<u64, DbError> {
        self.delete("DELETE FROM revoked_auth_sessions WHERE expires_at < now() - interval '1 hour'").await
    }

    /// Deletes recorded answers and sign-ins that are over, of users who have not come back to do it themselves.
    /// Returns how many.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_the_absent(&self) -> Result<u64, DbError> {
        const BATCH: u64 = 1_000;
        let mut deleted = 0;
        // The role's policies show it what may be deleted, and nothing else; how old it is is all it sees.
        for statement in [
            "DELETE FROM idempotency_keys WHERE created_at <= COALESCE(
                 (SELECT created_at FROM idempotency_keys ORDER BY created_at OFFSET $1 LIMIT 1), now())",
            "DELETE FROM auth_sessions WHERE expires_at <= COALESCE(
                 (SELECT expires_at FROM auth_sessions ORDER BY expires_at OFFSET $1 LIMIT 1), now())",
        ] {
            loop {
                let batch = i64::try_from(BATCH - 1).unwrap_or(i64::MAX);
                let result = in_time(sqlx::query(statement).bind(batch).execute(&self.pool)).await?;
                deleted += result.rows_affected();
                if result.rows_affected() < BATCH {
                    break;
                }
            }
        }
        Ok(deleted)
    }

    async fn delete(&self, statement: &'static str) -> Result<u64, DbError> {
        Ok(in_time(sqlx::query(statement).execute(&self.pool)).await?.rows_affected())
    }
}
