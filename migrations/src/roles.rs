//! The database's roles: who owns, who works behind the wall, and the two narrow ones that look across it.

use anyhow::Context as _;
use sqlx::{AssertSqlSafe, PgConnection};

/// Passwords for the roles that log in; `None` leaves a role's password as it is.
#[derive(Clone, Default)]
pub struct RolePasswords {
    /// For `atrium_app`, which API and workers use for everything tenant-related.
    pub app: Option<String>,
    /// For `atrium_relay`, which sees the outbox of all tenants and nothing else.
    pub relay: Option<String>,
    /// For `atrium_watcher`, which sees configuration revisions and revoked tokens, deletes what is over, and nothing else.
    pub watcher: Option<String>,
}

impl RolePasswords {
    /// Reads `ATRIUM_APP_PASSWORD`, `ATRIUM_RELAY_PASSWORD` and `ATRIUM_WATCHER_PASSWORD`.
    #[must_use]
    pub fn from_env() -> Self {
        let read = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        Self {
            app: read("ATRIUM_APP_PASSWORD"),
            relay: read("ATRIUM_RELAY_PASSWORD"),
            watcher: read("ATRIUM_WATCHER_PASSWORD"),
        }
    }
}

/// Roles belong to the whole server, not to one database, so they cannot be part of a numbered migration.
pub(crate) async fn ensure(connection: &mut PgConnection, passwords: &RolePasswords) -> anyhow::Result<()> {
    create_if_missing(connection, "atrium_owner", "NOLOGIN").await?;
    for (role, password) in [
        ("atrium_app", &passwords.app),
        ("atrium_relay", &passwords.relay),
        ("atrium_watcher", &passwords.watcher),
    ] {
        create_if_missing(connection, role, "LOGIN").await?;
        // A process that stops in the middle of a transaction (SIGSTOP, a lost network) must not hold its locks
        // forever: the relay's hold on a shard is such a lock.
        let idle = format!("ALTER ROLE {role} SET idle_in_transaction_session_timeout = '5s'");
        sqlx::query(AssertSqlSafe(idle)).execute(&mut *connection).await?;
        // Our connections switch sequential scans off, which gives an unavoidable one a cost of 10¹⁰. PostgreSQL
        // then compiles the query, which takes up to a second; the query takes a millisecond.
        let compiled = format!("ALTER ROLE {role} SET jit = off");
        sqlx::query(AssertSqlSafe(compiled)).execute(&mut *connection).await?;
        if let Some(password) = password {
            let statement: String = sqlx::query_scalar("SELECT format('ALTER ROLE %I PASSWORD %L', $1, $2)")
                .bind(role)
                .bind(password)
                .fetch_one(&mut *connection)
                .await?;
            sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection).await?;
        }
    }
    let superuser: bool = sqlx::query_scalar("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        .fetch_one(&mut *connection)
        .await?;
    if !superuser {
        // Who may create roles may not switch to them without this; since PostgreSQL 16 not even its creator.
        sqlx::query("GRANT atrium_owner TO CURRENT_USER").execute(&mut *connection).await?;
    }
    sqlx::query("ALTER ROLE atrium_app SET statement_timeout = '10s'").execute(&mut *connection).await?;

    let database: String =
        sqlx::query_scalar("SELECT quote_ident(current_database())").fetch_one(&mut *connection).await?;
    for statement in [
        format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC"),
        format!("GRANT CONNECT ON DATABASE {database} TO atrium_app, atrium_relay, atrium_watcher"),
        format!("GRANT CONNECT, CREATE ON DATABASE {database} TO atrium_owner"),
        "GRANT CREATE, USAGE ON SCHEMA public TO atrium_owner".to_owned(),
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC".to_owned(),
        "GRANT USAGE ON SCHEMA public TO atrium_app, atrium_relay, atrium_watcher".to_owned(),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn create_if_missing(connection: &mut PgConnection, role: &str, login: &str) -> anyhow::Result<()> {
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
        .bind(role)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        let statement = format!(
            "CREATE ROLE {role} {login} NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS NOREPLICATION"
        );
        sqlx::query(AssertSqlSafe(statement))
            .execute(connection)
            .await
            .with_context(|| format!("cannot create the role {role}"))?;
    }
    Ok(())
}
