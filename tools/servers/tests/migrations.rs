//! The migrations, run by a role that is not a superuser.

use atrium_migrations::{RolePasswords, migrate};
use atrium_servers::postgres::{Durability, PrivatePostgres};
use sqlx::{Connection as _, PgConnection};

#[tokio::test]
async fn migrating_needs_only_createrole_and_is_idempotent() {
    let server = PrivatePostgres::start(Durability::Volatile).await.expect("PostgreSQL starts");
    let mut superuser = PgConnection::connect(&server.superuser_url("postgres")).await.expect("it answers");
    for statement in
        ["CREATE ROLE boss LOGIN CREATEROLE CREATEDB PASSWORD 'secret'", "CREATE DATABASE theirs OWNER boss"]
    {
        sqlx::raw_sql(statement).execute(&mut superuser).await.expect(statement);
    }
    let url = format!("postgres://boss:secret@127.0.0.1:{}/theirs", server.port());
    for _ in 0..2 {
        migrate(&url, &RolePasswords::default()).await.expect("the database is up to date");
    }
    let mut connection = PgConnection::connect(&url).await.expect("it answers");
    let owner: String = sqlx::query_scalar("SELECT tableowner::text FROM pg_tables WHERE tablename = 'orgs'")
        .fetch_one(&mut connection)
        .await
        .expect("there are tables");
    assert_eq!(owner, "atrium_owner");
}
