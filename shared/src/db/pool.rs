//! Pools of connections, and how a transaction begins on the application's.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, Postgres, Row as _, Transaction,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};

use super::time_limit::in_time;
use crate::settings::Pooling;

/// How long a request waits for a free connection before it is told to come back. The library's default, 30 s, is
/// longer than any client waits.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a server that is there needs at most for what takes it no time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

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
            // No statement is kept for the next transaction, which may meet another server connection. The
            // parameter is one that poolers refuse, and only changes how numbers are written as text.
            Pooling::Transaction => options.statement_cache_capacity(0).extra_float_digits(None),
        };
        Ok(Self { connections: open(options, connections, process_name).await?, pooling })
    }

    /// One connection to the same server, which is opened when it is needed, and closed after its use.
    pub(super) fn apart(&self) -> Self {
        let options = (*self.connections.connect_options()).clone();
        let one = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
        Self { connections: one.connect_lazy_with(options), pooling: self.pooling }
    }

    /// Begins a transaction with these statements, which travel in the same message: round trips are what the wall
    /// costs.
    pub(super) async fn begin(
        &self,
        statements: &str,
    ) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        self.begin_as("BEGIN", statements).await
    }

    /// The same with another beginning than `BEGIN`.
    ///
    /// In a task of its own, which goes on when the caller is dropped while it waits (a client that went away): the
    /// library notes that a transaction is open only after the server has said so, and a connection whose `BEGIN` was
    /// abandoned in between would go back to the pool inside of it.
    pub(super) async fn begin_as(
        &self,
        begin: &str,
        statements: &str,
    ) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        let forget = match self.pooling {
            Pooling::Session => "",
            // The library numbers its statements from 1 in every connection. What another client has left on this
            // server connection would stand under our names.
            Pooling::Transaction => "DEALLOCATE ALL; ",
        };
        let beginning = format!("{begin}; {forget}{statements}");
        let connections = self.connections.clone();
        let begun = tokio::spawn(async move {
            let begun = tokio::time::timeout(ACQUIRE_TIMEOUT + ANSWER_TIMEOUT, async {
                // A server that was away for a while leaves dead connections behind. Each shows at its next use, which
                // may be long after the server is back; nothing has happened yet, so another one may be tried.
                for _ in 0..connections.size() {
                    match connections.begin_with(AssertSqlSafe(beginning.clone())).await {
                        Err(error) if is_of_a_dead_connection(&error) => {}
                        begun => return begun,
                    }
                }
                connections.begin_with(AssertSqlSafe(beginning)).await
            });
            begun.await.unwrap_or(Err(sqlx::Error::BeginFailed))
        });
        // It is not canceled, but for the end of the runtime, nor does it panic.
        begun.await.map_err(|_| sqlx::Error::PoolClosed)?
    }

    /// Runs one statement without parameters on its own. It is not prepared: between the preparation and the
    /// execution, a transaction pooler may change the server connection.
    pub(super) async fn run(&self, statement: &'static str) -> Result<(), sqlx::Error> {
        in_time(sqlx::raw_sql(statement).execute(&self.connections)).await.map(drop)
    }
}

/// Whether the connection was closed, with or without the server's last word (terminated, shut down, crashed).
fn is_of_a_dead_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("57P01" | "57P02")),
        _ => false,
    }
}

/// Looks at a connection that is given back. One whose line died without a word, or that hangs inside of a transaction
/// whose beginning was given up on, is closed, and its place in the pool is free. The library would wait for the answer
/// of such a line for ever. It costs a round trip, while nobody waits.
async fn is_fit_for_the_next(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // Inside of a transaction, `now()` is the time of its beginning. Not prepared: a prepared statement is bound and
    // executed by two messages, and the time of the second one is never that of the transaction's beginning.
    let outside = sqlx::raw_sql("SELECT now() = statement_timestamp()").fetch_one(connection);
    match tokio::time::timeout(ANSWER_TIMEOUT, outside).await {
        Ok(outside) => outside?.try_get(0),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// A pool for one of the narrow roles, whose few statements look into queues, and find what they look for by an index.
///
/// Their plans are made once: planning takes longer than running them. And they go by an index even when the table's
/// statistics, which are always from another moment of a queue's life, make reading all of it seem cheaper.
///
/// # Errors
/// When the address is no PostgreSQL address, or the server does not let us in.
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
        // Opened at start and kept: a connection costs a password exchange, which a burst of requests would wait for.
        .min_connections(connections)
        .idle_timeout(None)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A test on every use would cost a round trip; a broken connection shows at its first statement, and the
        // caller answers "try again".
        .test_before_acquire(false)
        .after_release(|connection, _| Box::pin(is_fit_for_the_next(connection)))
        .connect_with(options.clone())
        .await;
    // A pool that was refused goes on trying, and then only says that its time was over. One attempt says why.
    match pool {
        Err(sqlx::Error::PoolTimedOut) => {
            let attempt = tokio::time::timeout(ACQUIRE_TIMEOUT, PgConnection::connect_with(&options)).await;
            Err(attempt.ok().and_then(Result::err).unwrap_or(sqlx::Error::PoolTimedOut))
        }
        result => result,
    }
}
