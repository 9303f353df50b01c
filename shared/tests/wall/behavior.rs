//! What the wall does, as the role the application has, on fresh and on reused connections.

use atrium_shared::{
    api_key::{ApiKeyText, ApiKeyUse, ApiScope},
    db::{DbError, Principal, UserTx},
    ids::{ApiKeyId, AuthSessionId, OrgId, ProjectId, UserId},
    tenancy::Role,
};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::tenants::{SYSTEM, Two, two};

async fn count(connection: &mut PgConnection, table: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
        .fetch_one(connection)
        .await
        .unwrap_or_else(|error| panic!("{table}: {error}"))
}

async fn tables(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
            AND has_table_privilege(oid, 'SELECT')",
    )
    .fetch_all(connection)
    .await
    .expect("the catalog can be read")
}

#[tokio::test]
async fn without_a_tenant_new_and_reused_connections_see_nothing() {
    let two = two().await;
    let mut connection = two.database.app().await;
    let tables = tables(&mut connection).await;
    assert!(tables.len() > 15, "{tables:?}");
    assert!(count(&mut two.database.superuser().await, "projects").await > 1, "there is something to see");
    for table in &tables {
        assert_eq!(count(&mut connection, table).await, 0, "{table}, fresh connection");
    }
    let tenant = format!(
        "BEGIN; SELECT set_config('app.org_id', '{}', true); SELECT count(*) FROM projects; COMMIT",
        two.ours.org
    );
    sqlx::raw_sql(AssertSqlSafe(tenant)).execute(&mut connection).await.expect("a transaction of a tenant");
    // Now the setting is '' instead of NULL.
    for table in &tables {
        assert_eq!(count(&mut connection, table).await, 0, "{table}, reused connection");
    }
}

#[tokio::test]
async fn a_tenant_sees_its_own_rows_and_no_others() {
    let two = two().await;
    for tenant in [two.ours, two.theirs] {
        let mut tx =
            two.db.org_tx(&Principal::User(tenant.user), tenant.org).await.expect("a member's transaction");
        let projects: Vec<ProjectId> =
            sqlx::query_scalar("SELECT id FROM projects").fetch_all(tx.conn()).await.expect("projects");
        assert_eq!(projects, [tenant.project]);
        let orgs: Vec<OrgId> =
            sqlx::query_scalar("SELECT id FROM orgs").fetch_all(tx.conn()).await.expect("orgs");
        assert_eq!(orgs, [tenant.org], "\"mine\" does not widen a transaction of one organization");
    }
}

#[tokio::test]
async fn a_nonmember_gets_no_access_and_no_information() {
    let two = two().await;
    let stranger = Principal::User(two.theirs.user);
    for org in [two.ours.org, OrgId::new(), OrgId::PLATFORM] {
        assert!(matches!(two.db.org_tx(&stranger, org).await, Err(DbError::NotFound)), "{org}");
    }
}

#[tokio::test]
async fn an_api_key_opens_only_its_own_organization_while_valid() {
    let two = two().await;
    let text = ApiKeyText::new(two.ours.org);
    let mut tx = two.db.org_tx(&SYSTEM, two.ours.org).await.expect("a transaction");
    sqlx::query(
        "INSERT INTO api_keys (org_id, id, name, hash, scopes, created_by)
         VALUES ($1, $2, 'key', $3, ARRAY['projects:read'], $4)",
    )
    .bind(two.ours.org)
    .bind(text.id)
    .bind(text.hash())
    .bind(two.ours.user)
    .execute(tx.conn())
    .await
    .expect("a key");
    tx.commit().await.expect("a commit");

    let good = ApiKeyUse { id: text.id, hash: text.hash(), scope: ApiScope::ProjectsRead };
    let mut tx = two.db.org_tx(&Principal::ApiKey(good), two.ours.org).await.expect("its organization");
    assert_eq!(tx.role(), Role::Viewer);
    assert_eq!(count(tx.conn(), "projects").await, 1);
    assert_eq!(count(tx.conn(), "users").await, 0, "it is nobody");
    drop(tx);
    for (wrong, org) in [
        (good, two.theirs.org),
        (good, OrgId::new()),
        (good, OrgId::PLATFORM),
        (ApiKeyUse { hash: [0; 32], ..good }, two.ours.org),
        (ApiKeyUse { id: ApiKeyId::new(), ..good }, two.ours.org),
        (ApiKeyUse { scope: ApiScope::ProjectsWrite, ..good }, two.ours.org),
    ] {
        let refused = two.db.org_tx(&Principal::ApiKey(wrong), org).await;
        assert!(matches!(refused, Err(DbError::NotFound)), "{wrong:?} in {org}");
    }
    for (ended, again) in [
        ("UPDATE api_keys SET revoked_at = now()", "UPDATE api_keys SET revoked_at = NULL"),
        ("UPDATE api_keys SET expires_at = now()", "UPDATE api_keys SET expires_at = NULL"),
    ] {
        let mut superuser = two.database.superuser().await;
        sqlx::query(ended).execute(&mut superuser).await.expect("an update");
        let refused = two.db.org_tx(&Principal::ApiKey(good), two.ours.org).await;
        assert!(matches!(refused, Err(DbError::NotFound)), "{ended}");
        assert!(two.db.api_key(&text).await.expect("an answer").is_none(), "{ended}");
        sqlx::query(again).execute(&mut superuser).await.expect("an update");
    }
    let mut elsewhere = text.clone();
    elsewhere.org = two.theirs.org;
    assert!(two.db.api_key(&elsewhere).await.expect("an answer").is_none());
    assert!(two.db.api_key(&text).await.expect("an answer").is_some());
}

#[tokio::test]
async fn cross_tenant_writes_are_rejected_or_change_nothing() {
    let two = two().await;
    let mut tx = two.db.org_tx(&SYSTEM, two.ours.org).await.expect("a transaction");
    let updated = sqlx::query("UPDATE projects SET name = 'taken' WHERE id = $1")
        .bind(two.theirs.project)
        .execute(tx.conn())
        .await
        .expect("an update of nothing");
    assert_eq!(updated.rows_affected(), 0);
    let deleted = sqlx::query("DELETE FROM projects WHERE id = $1")
        .bind(two.theirs.project)
        .execute(tx.conn())
        .await
        .expect("a delete");
    assert_eq!(deleted.rows_affected(), 0);
    let foreign = sqlx::query("INSERT INTO projects (org_id, id, name) VALUES ($1, $2, 'planted')")
        .bind(two.theirs.org)
        .bind(ProjectId::new())
        .execute(tx.conn())
        .await
        .expect_err("a row for somebody else");
    assert_eq!(
        foreign.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref(),
        Some("42501")
    );
    drop(tx);

    // Attaching a row of ours to a project of theirs: the composite key compares the organization.
    let mut tx = two.db.org_tx(&SYSTEM, two.ours.org).await.expect("a transaction");
    let attached =
        sqlx::query("INSERT INTO chat_counters (org_id, project_id, action) VALUES ($1, $2, 'ready')")
            .bind(two.ours.org)
            .bind(two.theirs.project)
            .execute(tx.conn())
            .await
            .map_err(DbError::from);
    assert!(matches!(attached, Err(DbError::Constraint(name)) if name == "chat_counters_project_fkey"));
}

#[tokio::test]
async fn refresh_tokens_are_invisible_to_other_users() {
    let two = two().await;
    let (mine, theirs) = (AuthSessionId::new(), AuthSessionId::new());
    for (tenant, auth_session) in [(two.ours, mine), (two.theirs, theirs)] {
        let mut tx = two.db.user_tx(tenant.user).await.expect("a transaction");
        for statement in [AUTH_SESSION, TOKEN] {
            run(&mut tx, statement, tenant.user, auth_session).await.expect("one's own row");
        }
        tx.commit().await.expect("a commit");
    }
    let refused = |result: Result<u64, DbError>, how: &str| match result {
        Err(DbError::Unexpected(error)) => {
            let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
            assert_eq!(code.as_deref(), Some("42501"), "{how}: {error}");
        }
        other => panic!("{how}: {other:?}"),
    };
    for statement in [AUTH_SESSION, TOKEN] {
        let mut tx = two.db.user_tx(two.ours.user).await.expect("a transaction");
        refused(run(&mut tx, statement, two.theirs.user, theirs).await, statement);
    }
    let mut tx = two.db.user_tx(two.ours.user).await.expect("a transaction");
    for table in ["auth_sessions", "refresh_tokens"] {
        assert_eq!(count(tx.conn(), table).await, 1, "{table}: one's own");
    }
    for statement in [
        "UPDATE refresh_tokens SET used_at = now() WHERE user_id = $1 AND auth_session_id = $2",
        "UPDATE auth_sessions SET reused_at = now() WHERE user_id = $1 AND id = $2",
        "DELETE FROM refresh_tokens WHERE user_id = $1 AND auth_session_id = $2",
        "DELETE FROM auth_sessions WHERE user_id = $1 AND id = $2",
    ] {
        let touched = run(&mut tx, statement, two.theirs.user, theirs).await;
        assert!(matches!(touched, Ok(0)), "{statement}: {touched:?}");
    }
    // A row of ours in a sign-in session of theirs: the key compares the user, too.
    let attached = run(&mut tx, TOKEN, two.ours.user, theirs).await;
    assert!(matches!(attached, Err(DbError::Constraint(name)) if name == "refresh_tokens_auth_session_fkey"));
    drop(tx);
    // Two unused tokens in one session would be two ways to go on.
    let mut tx = two.db.user_tx(two.ours.user).await.expect("a transaction");
    let forked = run(&mut tx, TOKEN, two.ours.user, mine).await;
    assert!(matches!(forked, Err(DbError::Constraint(name)) if name == "refresh_tokens_one_unused"));
}

const AUTH_SESSION: &str =
    "INSERT INTO auth_sessions (user_id, id, expires_at) VALUES ($1, $2, now() + interval '1 hour')";
const TOKEN: &str = "INSERT INTO refresh_tokens (user_id, auth_session_id, hash, expires_at)
                     VALUES ($1, $2, sha256(gen_random_uuid()::text::bytea), now() + interval '1 hour')";

async fn run(
    tx: &mut UserTx,
    statement: &'static str,
    user: UserId,
    auth_session: AuthSessionId,
) -> Result<u64, DbError> {
    Ok(sqlx::query(statement).bind(user).bind(auth_session).execute(tx.conn()).await?.rows_affected())
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_with_its_tenant() {
    let two = two().await;
    let mut tx = two.db.org_tx(&SYSTEM, two.ours.org).await.expect("a transaction");
    sqlx::query("UPDATE projects SET name = 'half done'").execute(tx.conn()).await.expect("an update");
    drop(tx);
    // The pool has one connection, so this is the same one.
    let mut tx = two.db.user_tx(two.theirs.user).await.expect("a transaction");
    assert_eq!(count(tx.conn(), "projects").await, 0);
    let orgs: Vec<OrgId> =
        sqlx::query_scalar("SELECT id FROM orgs").fetch_all(tx.conn()).await.expect("orgs");
    assert_eq!(orgs, [two.theirs.org]);
    drop(tx);
    let mut tx = two.db.org_tx(&SYSTEM, two.ours.org).await.expect("a transaction");
    let name: String =
        sqlx::query_scalar("SELECT name FROM projects").fetch_one(tx.conn()).await.expect("a project");
    assert_eq!(name, "one");
}

#[tokio::test]
async fn the_application_cannot_bypass_the_wall() {
    let two = two().await;
    for statement in [
        "TRUNCATE projects",
        "ALTER TABLE projects NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY guard ON projects",
        "CREATE TABLE stash (x int)",
        "CREATE VIEW peek AS SELECT * FROM projects",
        "SET ROLE atrium_owner",
        "SET SESSION AUTHORIZATION postgres",
        "CALL wall_by_org('projects')",
        "COPY projects FROM STDIN",
        "COPY projects TO '/tmp/projects'",
        "UPDATE config_history SET reason = 'another'",
        "DELETE FROM saga_events",
        "SELECT * FROM _sqlx_migrations",
    ] {
        let mut connection = two.database.app().await;
        let refused = sqlx::raw_sql(statement).execute(&mut connection).await;
        assert!(refused.is_err(), "{statement} was allowed");
    }
    let mut connection = two.database.app().await;
    sqlx::raw_sql("SET row_security = off").execute(&mut connection).await.expect("anybody may say this");
    assert!(
        sqlx::raw_sql("SELECT * FROM projects").execute(&mut connection).await.is_err(),
        "and gets an error instead of a way around"
    );
}

#[tokio::test]
async fn a_second_permissive_policy_grants_nothing() {
    let two = two().await;
    sqlx::raw_sql("CREATE POLICY open ON projects FOR ALL TO atrium_app USING (true) WITH CHECK (true)")
        .execute(&mut two.database.superuser().await)
        .await
        .expect("a mistake in a migration");
    assert_eq!(count(&mut two.database.app().await, "projects").await, 0);
    let mut tx = two.db.org_tx(&SYSTEM, two.ours.org).await.expect("a transaction");
    assert_eq!(count(tx.conn(), "projects").await, 1);
}

#[tokio::test]
async fn the_narrow_roles_see_their_tables_and_nothing_else() {
    let two = two().await;
    for (url, sees) in [
        (&two.database.urls().relay, "SELECT count(*) FROM outbox"),
        (&two.database.urls().watcher, "SELECT count(revision) FROM config_heads"),
    ] {
        let mut connection =
            <PgConnection as sqlx::Connection>::connect(url).await.expect("the role can log in");
        sqlx::raw_sql(AssertSqlSafe(sees.to_owned())).execute(&mut connection).await.expect(sees);
        for table in ["orgs", "projects", "members", "config_values", "users"] {
            let refused =
                sqlx::raw_sql(AssertSqlSafe(format!("SELECT 1 FROM {table}"))).execute(&mut connection).await;
            assert!(refused.is_err(), "{table}");
        }
    }
}

#[tokio::test]
async fn an_operation_is_looked_up_by_an_index() {
    let Two { database, db, ours, .. } = two().await;
    sqlx::query(
        "INSERT INTO sagas (org_id, id, kind, created_by, deadline_at)
         SELECT $1, gen_random_uuid(), 'organization.create', $2, now() FROM generate_series(1, 5000)",
    )
    .bind(ours.org)
    .bind(ours.user)
    .execute(&mut database.superuser().await)
    .await
    .expect("many operations");
    sqlx::raw_sql("ANALYZE sagas").execute(&mut database.superuser().await).await.expect("statistics");
    let mut tx = db.user_tx(ours.user).await.expect("a transaction");
    let plan: Vec<String> = sqlx::query_scalar(
        "EXPLAIN SELECT org_id FROM sagas WHERE id = '00000000-0000-0000-0000-000000000000'",
    )
    .fetch_all(tx.conn())
    .await
    .expect("a plan");
    assert!(plan.iter().any(|line| line.contains("Index Cond: (id = ")), "{plan:#?}");
}
