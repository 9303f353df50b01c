//! A logical database of the shared Redis for one test.

use atrium_servers::redis::DATABASES;
use redis::aio::MultiplexedConnection;

use crate::environment::Environment;

/// Counts the databases that were taken, over all test binaries.
const COUNTER: &str = "atrium-devstack:databases";

/// An empty logical database.
#[derive(Clone, Debug)]
pub struct TestRedis {
    url: String,
}

impl TestRedis {
    /// Takes the next one and empties it.
    ///
    /// # Panics
    /// When Redis does not answer, or the tests were not started through `exec`.
    pub async fn database() -> Self {
        Self::try_database().await.unwrap_or_else(|error| panic!("no Redis for the test: {error}"))
    }

    async fn try_database() -> redis::RedisResult<Self> {
        let shared = &Environment::get().redis_url;
        let mut connection = redis::Client::open(shared.as_str())?.get_multiplexed_async_connection().await?;
        let taken: i64 = redis::cmd("INCR").arg(COUNTER).query_async(&mut connection).await?;
        // Database 0 holds the counter. Databases of finished tests are reused.
        let index = taken.rem_euclid(DATABASES - 1) + 1;
        let base = shared.rsplit_once('/').map_or(shared.as_str(), |(base, _)| base);
        let database = Self { url: format!("{base}/{index}") };
        let mut connection = redis::Client::open(database.url())?.get_multiplexed_async_connection().await?;
        redis::cmd("FLUSHDB").query_async::<()>(&mut connection).await?;
        Ok(database)
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection.
    ///
    /// # Panics
    /// When Redis does not answer.
    pub async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("the address was used before");
        client
            .get_multiplexed_async_connection()
            .await
            .unwrap_or_else(|error| panic!("the test's Redis does not answer: {error}"))
    }
}
