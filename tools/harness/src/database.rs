//! A database for one test: a copy of the migrated template.

use std::path::Path;

use atrium_servers::urls::{DatabaseUrls, on_database};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::database_copy::copy;
use crate::environment::Environment;
use crate::raised_limits;

/// A database of its own; dropped with this.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    urls: DatabaseUrls,
}

impl TestDatabase {
    /// Copies the template.
    ///
    /// # Panics
    /// When that fails, or the tests were not started through `exec`.
    pub async fn create() -> Self {
        Self::copy(None).await.unwrap_or_else(|error| panic!("no database for the test: {error:#}"))
    }

    /// Copies the template whose default limits are [`crate::operator::RAISED_LIMITS`]. `logs` is a folder for
    /// temporary files.
    ///
    /// # Errors
    /// When that fails.
    pub(crate) async fn with_raised_limits(logs: &Path) -> anyhow::Result<Self> {
        Self::copy(Some(logs)).await
    }

    async fn copy(raised_limits: Option<&Path>) -> anyhow::Result<Self> {
        let environment = Environment::get();
        let name = format!("atrium_{}", uuid::Uuid::new_v4().simple());
        let mut connection = PgConnection::connect(&environment.postgres_url).await?;
        let template = match raised_limits {
            Some(logs) => raised_limits::template(&mut connection, logs).await?,
            None => &environment.template,
        };
        copy(&mut connection, template, &name).await?;
        connection.close().await?;
        let urls =
            DatabaseUrls::new(&on_database(&environment.postgres_url, &name)?, &environment.passwords)?;
        Ok(Self { name, urls })
    }

    /// How each role reaches it; `owner` is a superuser.
    #[must_use]
    pub fn urls(&self) -> &DatabaseUrls {
        &self.urls
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A connection as the superuser, whom the tenant wall does not restrict: to inspect all rows.
    ///
    /// # Panics
    /// When PostgreSQL does not answer.
    pub async fn superuser(&self) -> PgConnection {
        connect(&self.urls.owner).await
    }

    /// A connection as `atrium_app`.
    ///
    /// # Panics
    /// When PostgreSQL does not answer.
    pub async fn app(&self) -> PgConnection {
        connect(&self.urls.app).await
    }
}

impl Drop for TestDatabase {
    /// Best effort: what is left is removed with the server.
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // The test's runtime may have ended, and a drop cannot wait for it.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                let mut connection = PgConnection::connect(&Environment::get().postgres_url).await.ok()?;
                sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.ok()
            })
        });
        let _ = dropping.join();
    }
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url)
        .await
        .unwrap_or_else(|error| panic!("the test's database does not answer: {error}"))
}
