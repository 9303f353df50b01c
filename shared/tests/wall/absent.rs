//! Expired rows of users who do not return are deleted, and no others.

use atrium_harness::{TestDatabase, TestRedis};
use atrium_shared::{
    db::Watcher,
    settings::{Pooling, Reader},
};
use sqlx::{Connection as _, PgConnection};

use crate::tenants::{found, through};

const EXPIRED: i64 = 2_500;

async fn count(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(connection).await.expect(query)
}

#[tokio::test]
async fn expired_rows_of_absent_users_are_deleted() {
    let (database, redis) = (TestDatabase::create().await, TestRedis::database().await);
    let db = through(&database.urls().app, 1, Pooling::Session).await;
    let user = found(&db).await.user;
    let mut superuser = database.superuser().await;
    for (statement, count) in [
        (
            "INSERT INTO idempotency_keys (caller_id, route, key, fingerprint, status, headers, body, created_at)
             SELECT $1, 'POST /v1/orgs', n, '', 202, '{}', '\"\"', now() - interval '25 hours'
               FROM generate_series(1, $2) n",
            EXPIRED,
        ),
        (
            "INSERT INTO idempotency_keys (caller_id, route, key, fingerprint, status, headers, body, created_at)
             SELECT $1, 'POST /v1/orgs', 'kept' || n, '', 202, '{}', '\"\"', now() - interval '23 hours'
               FROM generate_series(1, $2) n",
            3,
        ),
        (
            "WITH sessions AS (
                 INSERT INTO auth_sessions (user_id, id, started_at, expires_at)
                 SELECT $1, gen_random_uuid(), now() - interval '40 days', now() - n * interval '1 minute'
                   FROM generate_series(1, $2) n RETURNING user_id, id, expires_at)
             INSERT INTO refresh_tokens (user_id, auth_session_id, hash, expires_at)
             SELECT user_id, id, sha256(id::text::bytea), expires_at FROM sessions",
            EXPIRED,
        ),
        (
            "INSERT INTO auth_sessions (user_id, id, expires_at)
             SELECT $1, gen_random_uuid(), now() + n * interval '1 minute' FROM generate_series(1, $2) n",
            2,
        ),
    ] {
        sqlx::query(statement).bind(user).bind(count).execute(&mut superuser).await.expect(statement);
    }

    // The role sees the age only, and deletes only expired rows, even if its statement names others.
    let mut narrow = PgConnection::connect(&database.urls().watcher).await.expect("the role can log in");
    for statement in [
        "SELECT key FROM idempotency_keys",
        "SELECT body FROM idempotency_keys",
        "SELECT user_id FROM auth_sessions",
        "SELECT hash FROM refresh_tokens",
        "DELETE FROM refresh_tokens",
        "UPDATE idempotency_keys SET created_at = now()",
    ] {
        assert!(sqlx::query(statement).execute(&mut narrow).await.is_err(), "{statement} was allowed");
    }
    assert_eq!(count(&mut narrow, "SELECT count(created_at) FROM idempotency_keys").await, EXPIRED);
    assert_eq!(count(&mut narrow, "SELECT count(expires_at) FROM auth_sessions").await, EXPIRED);

    let variables = [
        ("ATRIUM_DATABASE_URL", database.urls().app.as_str()),
        ("ATRIUM_WATCHER_DATABASE_URL", database.urls().watcher.as_str()),
        ("ATRIUM_REDIS_URL", redis.url()),
    ];
    let mut reader =
        Reader::from_variables(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let settings = reader.common("test");
    let settings = reader.finish(settings).expect("the settings are complete");
    let watcher = Watcher::connect(&settings).await.expect("the role is accepted");
    let expired = u64::try_from(2 * EXPIRED).expect("a small number");
    assert_eq!(watcher.delete_absent().await.expect("rows go"), expired);
    assert_eq!(watcher.delete_absent().await.expect("no rows go"), 0);
    for (query, left) in [
        ("SELECT count(*) FROM idempotency_keys WHERE key LIKE 'kept%'", 3),
        ("SELECT count(*) FROM idempotency_keys", 3),
        ("SELECT count(*) FROM auth_sessions", 2),
        ("SELECT count(*) FROM refresh_tokens", 0),
    ] {
        assert_eq!(count(&mut superuser, query).await, left, "{query}");
    }
}
