//! A second template: the migrated database with [`operator::RAISED_LIMITS`] set.
//!
//! Most tests want these limits. Six runs of `atrium-ctl` would take longer than all the rest of a start, so the first
//! test that needs the template makes it, while the others wait on a lock in PostgreSQL, and all copy it.

use std::path::Path;

use atrium_servers::urls::{DatabaseUrls, on_database};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::database_copy::copy;
use crate::environment::Environment;
use crate::operator;
use crate::service::Wiring;

const TEMPLATE: &str = "atrium_template_raised_limits";
/// The advisory lock under which it is made.
const LOCK: i64 = 0x7261_6973_6564;

/// The name of the template; makes it if no test has done so yet. `logs` is a folder for temporary files.
pub(crate) async fn template(connection: &mut PgConnection, logs: &Path) -> anyhow::Result<&'static str> {
    if !exists(connection).await? {
        sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut *connection).await?;
        if !exists(connection).await? {
            make(connection, logs).await?;
        }
        sqlx::query("SELECT pg_advisory_unlock($1)").bind(LOCK).execute(connection).await?;
    }
    Ok(TEMPLATE)
}

/// Whether it is complete: it becomes a template at the end.
async fn exists(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND datistemplate)")
        .bind(TEMPLATE)
        .fetch_one(connection)
        .await
}

async fn make(connection: &mut PgConnection, logs: &Path) -> anyhow::Result<()> {
    let environment = Environment::get();
    // What is left of a test that was killed while it made the template.
    let leftover = format!("DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)");
    sqlx::query(AssertSqlSafe(leftover)).execute(&mut *connection).await?;
    copy(connection, &environment.template, TEMPLATE).await?;
    let url = on_database(&environment.postgres_url, TEMPLATE)?;
    operator::raise_limits(&Wiring {
        binaries: environment.binaries.clone(),
        database: DatabaseUrls::new(&url, &environment.passwords)?,
        redis: environment.redis_url.clone(),
        keys: logs.to_owned(),
        public_url: String::new(),
        logs: logs.to_owned(),
        log_format: "text",
        death_signal: "KILL",
        settings: Vec::new(),
    })
    .await?;
    // A template can be copied only while no client is connected to it.
    let complete = format!("ALTER DATABASE {TEMPLATE} WITH is_template true allow_connections false");
    sqlx::query(AssertSqlSafe(complete)).execute(connection).await?;
    Ok(())
}
