//! A copy of a template database that Atrium's roles may use.

use atrium_servers::postgres::create_database;
use sqlx::{AssertSqlSafe, PgConnection};

/// Copies a template under a new name, and lets the roles connect to the copy. It has the template's tables with their
/// grants, but not the grants on the database itself.
///
/// # Errors
/// If PostgreSQL rejects it: the name is taken, or a client is connected to the template.
pub(crate) async fn copy(connection: &mut PgConnection, template: &str, name: &str) -> anyhow::Result<()> {
    create_database(connection, name, Some(template)).await?;
    for statement in [
        format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
        format!("GRANT CONNECT ON DATABASE {name} TO atrium_app, atrium_relay, atrium_watcher"),
        format!("GRANT CONNECT, CREATE ON DATABASE {name} TO atrium_owner"),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    Ok(())
}
