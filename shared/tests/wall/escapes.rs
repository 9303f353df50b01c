//! Ways around the rows' wall: whole tables, definitions, statistics, cascades.

use atrium_harness::TestDatabase;
use atrium_shared::ids::ProjectId;
use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::{
    matrix::Viewpoint,
    rows::World,
    tenants::{SYSTEM, two},
};

/// Whether PostgreSQL denies it; any other error is no denial.
async fn is_refused(connection: &mut PgConnection, statement: &str) -> bool {
    let result = sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await;
    result.is_err_and(|error| error.as_database_error().is_some())
}

#[tokio::test]
async fn the_application_cannot_truncate_copy_into_or_alter_tables() {
    let database = TestDatabase::create().await;
    let world = World::make(&mut database.superuser().await).await;
    let mut connection = database.app().await;
    let mut allowed = Vec::new();
    for table in &world.tables {
        let name = &table.name;
        for statement in [
            format!("TRUNCATE {name}"),
            format!("TRUNCATE {name} CASCADE"),
            format!("DROP TABLE {name} CASCADE"),
            format!("ALTER TABLE {name} DISABLE ROW LEVEL SECURITY"),
            format!("ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY"),
            format!("ALTER TABLE {name} OWNER TO atrium_app"),
            format!("ALTER TABLE {name} DISABLE TRIGGER ALL"),
            format!("ALTER TABLE {name} ADD COLUMN extra text"),
            format!("DROP POLICY guard ON {name}"),
            format!("CREATE POLICY open ON {name} USING (true)"),
            format!("CREATE RULE open AS ON DELETE TO {name} DO INSTEAD NOTHING"),
            format!(
                "CREATE TRIGGER spy BEFORE INSERT ON {name} EXECUTE FUNCTION suppress_redundant_updates_trigger()"
            ),
            format!("CREATE INDEX spy ON {name} ((1))"),
            format!("CREATE STATISTICS spy ON {0}, {0} FROM {name}", table.tenant),
            format!("CREATE TABLE child PARTITION OF {name} DEFAULT"),
            format!("CREATE TABLE child () INHERITS ({name})"),
            format!("CREATE VIEW every AS TABLE {name}"),
            format!("CREATE MATERIALIZED VIEW every AS TABLE {name}"),
            format!("CREATE TEMPORARY VIEW every AS TABLE {name}"),
            format!(
                "CREATE FUNCTION every() RETURNS SETOF {name} LANGUAGE sql SECURITY DEFINER AS 'TABLE {name}'"
            ),
            format!("CREATE PUBLICATION every FOR TABLE {name}"),
            format!("COMMENT ON TABLE {name} IS 'ours'"),
            format!("COPY {name} FROM STDIN"),
            format!("COPY {name} TO '/tmp/every'"),
            format!("COPY {name} TO PROGRAM 'cat'"),
            format!("SET ROLE atrium_owner; TABLE {name}"),
            format!("SET row_security = off; TABLE {name}"),
        ] {
            // As a tenant: a statement that is denied without a tenant could still be allowed with one.
            let named = Viewpoint::Own.named(&world.tenants[0]);
            sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; {named}")))
                .execute(&mut connection)
                .await
                .expect("named");
            if !is_refused(&mut connection, &statement).await {
                allowed.push(statement);
            }
            sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.expect("a rollback");
        }
    }
    assert!(allowed.is_empty(), "{allowed:#?}");
}

#[tokio::test]
async fn a_copied_table_contains_only_the_tenants_own_rows() {
    let database = TestDatabase::create().await;
    let world = World::make(&mut database.superuser().await).await;
    let [us, them] = &world.tenants;
    let mut connection = database.app().await;
    for table in &world.tables {
        let mut tx = connection.begin().await.expect("a transaction");
        sqlx::raw_sql(AssertSqlSafe(Viewpoint::Own.named(us))).execute(&mut *tx).await.expect("named");
        let copy = format!("COPY {} TO STDOUT", table.name);
        let chunks: Vec<_> =
            tx.copy_out_raw(&copy).await.expect("a copy").try_collect().await.expect("all of the copy");
        let copied = String::from_utf8(chunks.concat()).expect("text");
        let rows: Vec<_> = copied.lines().collect();
        let (own, foreign) = (us.id(table.side).to_string(), them.id(table.side).to_string());
        assert_eq!(rows.len(), 1, "{}: {copied}", table.name);
        assert!(rows[0].contains(&own) && !copied.contains(&foreign), "{}: {copied}", table.name);
    }
}

#[tokio::test]
async fn planner_statistics_reveal_no_rows() {
    let database = TestDatabase::create().await;
    let mut superuser = database.superuser().await;
    let world = World::make(&mut superuser).await;
    sqlx::raw_sql("ANALYZE").execute(&mut superuser).await.expect("statistics");
    let count =
        "SELECT count(*) FROM pg_stats WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations'";
    let all: i64 = sqlx::query_scalar(count).fetch_one(&mut superuser).await.expect("a count");
    assert!(all > 0, "there are statistics");
    let mut connection = database.app().await;
    let mut tx = connection.begin().await.expect("a transaction");
    let named = Viewpoint::Own.named(&world.tenants[0]);
    sqlx::raw_sql(AssertSqlSafe(named)).execute(&mut *tx).await.expect("named");
    let seen: i64 = sqlx::query_scalar(count).fetch_one(&mut *tx).await.expect("a count");
    assert_eq!(seen, 0);
    assert!(is_refused(&mut tx, "SELECT stavalues1 FROM pg_statistic").await);
}

/// Two projects with one id, in two organizations, each with everything that hangs on a project.
#[tokio::test]
async fn deleting_a_project_never_touches_another_organization() {
    let two = two().await;
    let mut superuser = two.database.superuser().await;
    let shared = ProjectId::new();
    for tenant in [two.ours, two.theirs] {
        for statement in [
            "INSERT INTO projects (org_id, id, name) VALUES ($1, $3, 'twin')",
            "INSERT INTO config_values (org_id, project_id, key, value, revision) VALUES ($1, $3, 'k', '1', 1)",
            "INSERT INTO chat_sessions (org_id, id, project_id, user_id) VALUES ($1, $3, $3, $2)",
            "INSERT INTO chat_counters (org_id, project_id, action) VALUES ($1, $3, 'ready')",
            "INSERT INTO chat_cursors (org_id, project_id, history, entry_ms, entry_seq) VALUES ($1, $3, 'h', 1, 1)",
        ] {
            // Every parameter is bound for every statement; the cast keeps the unused ones typed.
            let statement = format!("WITH unused AS (SELECT $1::uuid, $2::uuid, $3::uuid) {statement}");
            sqlx::query(AssertSqlSafe(statement))
                .bind(tenant.org)
                .bind(tenant.user)
                .bind(shared)
                .execute(&mut superuser)
                .await
                .expect("a twin's row");
        }
    }
    let mut tx = two.db.org_tx(&SYSTEM, two.ours.org).await.expect("a transaction");
    let deleted = sqlx::query("DELETE FROM projects WHERE id = $1").bind(shared).execute(tx.conn()).await;
    assert_eq!(deleted.expect("one's own project").rows_affected(), 1);
    tx.commit().await.expect("a commit");
    for (table, column) in [
        ("projects", "id"),
        ("config_values", "project_id"),
        ("chat_sessions", "project_id"),
        ("chat_counters", "project_id"),
        ("chat_cursors", "project_id"),
    ] {
        let left: Vec<uuid::Uuid> =
            sqlx::query_scalar(AssertSqlSafe(format!("SELECT org_id FROM {table} WHERE {column} = $1")))
                .bind(shared)
                .fetch_all(&mut superuser)
                .await
                .expect("rows");
        assert_eq!(left, [two.theirs.org.uuid()], "{table}");
    }
}
