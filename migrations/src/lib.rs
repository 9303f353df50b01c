//! The database's shape: roles first, then the numbered SQL files beside this crate's manifest.
//!
//! Migrations run as `atrium_owner`, a role that cannot log in: the connecting role (a superuser, or the
//! database's owner that may create roles) switches to it. `sqlx` takes an advisory lock, so two migrators
//! at once are one after the other, and running again changes nothing.

mod roles;

use anyhow::Context as _;
use sqlx::{Connection as _, PgConnection};

pub use roles::RolePasswords;

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// Creates the roles that are missing, sets the passwords given, and applies every migration not applied yet.
///
/// # Errors
/// When the server cannot be reached, is older than PostgreSQL 15, or refuses a statement.
pub async fn migrate(owner_url: &str, passwords: &RolePasswords) -> anyhow::Result<()> {
    let mut connection =
        PgConnection::connect(owner_url).await.context("cannot connect with ATRIUM_OWNER_DATABASE_URL")?;
    let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
        .fetch_one(&mut connection)
        .await?;
    anyhow::ensure!(version >= 150_000, "PostgreSQL 15 or newer is needed; this server is {version}");

    roles::ensure(&mut connection, passwords).await?;
    sqlx::query("SET ROLE atrium_owner").execute(&mut connection).await?;
    // A migration that waits for a lock makes everybody queue behind it: better to fail and be run again.
    sqlx::query("SET lock_timeout = '5s'").execute(&mut connection).await?;
    MIGRATOR.run(&mut connection).await.context("a migration failed; nothing of it was kept")?;
    connection.close().await?;
    Ok(())
}
