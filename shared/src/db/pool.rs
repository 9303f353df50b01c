//! Connection pools, and how a transaction of the application begins.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, Postgres, Row as _, Transaction,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};

use super::time_limit::in_time;
use crate::settings::Pooling;

/// How long a request waits for a free connection before it gets 503. The default of sqlx, 30 s, is longer than any
/// client waits.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest time that a reachable server takes for a trivial statement.
const REPLY_TIMEOUT: Duration = Duration::from_secs(3);

/// The application's connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool {
    connections: PgPool,
    pooling: Pooling,
}

impl Pool {
    pub(super) async fn connect(
        url: &str,
        connections: u32,
        process_name: &str,
        pooling: Pooling,
    ) -> Result<Self, sqlx::Error> {
        let options = url.parse::<PgConnectOptions>()?;
        let options = match pooling {
            Pooling::Session => options,
            // No prepared statement is cached, because the next transaction may run on another server connection.
            // Poolers reject the parameter, which only changes how floating-point numbers are written as text.
            Pooling::Transaction => options.statement_cache_capacity(0).extra_float_digits(None),
        };
        Ok(Self { connections: open(options, connections, process_name).await?, pooling })
    }

    /// A separate connection to the same server, opened when it is needed and closed after its use.
    pub(super) fn apart(&self) -> Self {
        let options = (*self.connections.connect_options()).clone();
        let one = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
        Self { connections: one.connect_lazy_with(options), pooling: self.pooling }
    }

    /// Begins a transaction with these statements, all in one message: round trips are the cost of the tenant wall.
    pub(super) async fn begin(
        &self,
        statements: &str,
    ) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.begin_as("BEGIN", statements).await
    }

    /// Like [`Self::begin`], with another statement than `BEGIN`.
    ///
    /// It runs in its own task, which continues when the caller is dropped while it waits (the client has
    /// disconnected): sqlx records that a transaction is open only after the server has confirmed it. A connection
    /// whose `BEGIN` was abandoned before that would return to the pool with an open transaction.
    pub(super) async fn begin_as(
        &self,
        begin: &str,
        statements: &str,
    ) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let deallocate = match self.pooling {
            Pooling::Session => "",
            // sqlx numbers its prepared statements from 1 in every connection. Statements that another client prepared
            // on this server connection would have the same names.
            Pooling::Transaction => "DEALLOCATE ALL; ",
        };
        let beginning = format!("{begin}; {deallocate}{statements}");
        let connections = self.connections.clone();
        let task = tokio::spawn(async move {
            let result = tokio::time::timeout(ACQUIRE_TIMEOUT + REPLY_TIMEOUT, async {
                // After an outage of the server, the pool has dead connections. Each is detected at its next use, which
                // may be long after the outage. Nothing has been executed yet, so another connection can be tried.
                for _ in 0..connections.size() {
                    // Not checked at compile time: several statements in one message cannot be prepared.
                    match connections.begin_with(AssertSqlSafe(beginning.clone())).await {
                        Err(error) if is_dead_connection(&error) => {}
                        result => return result,
                    }
                }
                connections.begin_with(AssertSqlSafe(beginning)).await
            });
            result.await.unwrap_or(Err(sqlx::Error::BeginFailed))
        });
        // The task does not panic, and is canceled only when the runtime ends.
        task.await.map_err(|_| sqlx::Error::PoolClosed)?
    }

    /// Runs one statement without parameters outside of a transaction. It is not prepared, hence not checked at compile
    /// time: between preparation and execution, a transaction pooler may change the server connection.
    pub(super) async fn run(&self, statement: &'static str) -> Result<(), sqlx::Error> {
        in_time(sqlx::raw_sql(statement).execute(&self.connections)).await.map(drop)
    }
}

/// Whether the connection was closed, with or without a message of the server (terminated, shut down, crashed).
fn is_dead_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("57P01" | "57P02")),
        _ => false,
    }
}

/// Checks a connection that returns to the pool. It is closed, and the pool may open another, when it no longer
/// answers or is still inside of a transaction whose `BEGIN` was abandoned; sqlx would wait for its reply forever. The
/// check costs a round trip, which delays no request.
async fn is_reusable(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // Inside of a transaction, `now()` is its start time. The statement is not prepared: a prepared statement is bound
    // and executed by two messages, so its own time is never the start time of its transaction.
    let outside = sqlx::raw_sql("SELECT now() = statement_timestamp()").fetch_one(connection);
    match tokio::time::timeout(REPLY_TIMEOUT, outside).await {
        Ok(outside) => outside?.try_get(0),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// A pool for one of the narrow roles, whose few statements read queues by an index.
///
/// They are planned once, because planning takes longer than execution. They use an index even when the table's
/// statistics favor reading the whole table, because the length of a queue changes faster than its statistics.
///
/// # Errors
/// When the URL is not a valid PostgreSQL URL, or the server rejects the connection.
pub async fn connect_pool(url: &str, connections: u32, process_name: &str) -> Result<PgPool, sqlx::Error> {
    let planning = [("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off")];
    let options = url.parse::<PgConnectOptions>()?.options(planning);
    open(options, connections, process_name).await
}

async fn open(
    options: PgConnectOptions,
    connections: u32,
    process_name: &str,
) -> Result<PgPool, sqlx::Error> {
    let options = options.application_name(process_name);
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        // Opened at start and kept, because otherwise a burst of requests would wait for connections to authenticate.
        .min_connections(connections)
        .idle_timeout(None)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A test before every use would cost a round trip. A broken connection is detected at its first statement, and
        // the client gets 503.
        .test_before_acquire(false)
        .after_release(|connection, _| Box::pin(is_reusable(connection)))
        .connect_with(options.clone())
        .await;
    // When the server rejects connections, the pool retries until its timeout and does not report why. One direct
    // attempt does.
    match pool {
        Err(sqlx::Error::PoolTimedOut) => {
            let attempt = tokio::time::timeout(ACQUIRE_TIMEOUT, PgConnection::connect_with(&options)).await;
            Err(attempt.ok().and_then(Result::err).unwrap_or(sqlx::Error::PoolTimedOut))
        }
        result => result,
    }
}
