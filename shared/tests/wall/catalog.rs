//! Rules for every table, key, grant and function, which no line of the allow list lifts. A table that is added later
//! is covered the day it is added: it has no wall until it has all of it.

use std::collections::BTreeSet;

use atrium_harness::TestDatabase;
use sqlx::PgConnection;

/// Tables around one user (or other caller) instead of one organization.
const OF_USERS: &[&str] = &[
    "users",
    "revoked_auth_sessions",
    "idempotency_keys",
    "auth_sessions",
    "refresh_tokens",
    "deletion_certificates",
];
/// Tables with one row for an organization: the organization is the whole key.
const ONE_PER_ORG: &[&str] = &["orgs", "config_heads"];
/// Global uniqueness on purpose: slugs end in random characters, so a clash reveals nothing.
const GLOBAL_KEY: &[&str] = &["org_slugs"];
/// Tables of no tenant, for a narrow role alone: the application sees nothing of them and may touch nothing.
pub(crate) const OF_NOBODY: &[&str] = &["relay_leases"];

#[tokio::test]
async fn the_database_catalog_has_no_weakness() {
    let database = TestDatabase::create().await;
    let weaknesses = weaknesses(&mut database.superuser().await).await;
    assert!(weaknesses.is_empty(), "{weaknesses:#?}");
}

/// Everything in the catalog that would let a tenant see, touch or notice another.
pub(crate) async fn weaknesses(connection: &mut PgConnection) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(tables_without_the_wall(connection).await);
    found.extend(keys_without_the_organization(connection).await);
    found.extend(grants(connection).await);
    found.extend(relations_around_the_wall(connection).await);
    found
}

async fn names(connection: &mut PgConnection, query: &'static str) -> BTreeSet<String> {
    let names: Vec<String> =
        sqlx::query_scalar(query).fetch_all(connection).await.expect("the catalog can be read");
    names.into_iter().collect()
}

async fn tables_without_the_wall(connection: &mut PgConnection) -> Vec<String> {
    let open = names(
        connection,
        "SELECT relname || ': row-level security is not enabled and forced' FROM pg_class
          WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND relname <> '_sqlx_migrations'
            AND NOT (relrowsecurity AND relforcerowsecurity)",
    )
    .await;
    let unguarded = names(
        connection,
        "SELECT relname || ': no restrictive policy guards it against atrium_app' FROM pg_class
          WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND relname <> '_sqlx_migrations'
            AND NOT EXISTS (SELECT FROM pg_policies WHERE schemaname = 'public' AND tablename = relname
                               AND permissive = 'RESTRICTIVE' AND cmd = 'ALL' AND roles = '{atrium_app}'
                               AND qual IS NOT NULL AND with_check IS NOT NULL)",
    )
    .await;
    let owned = names(
        connection,
        "SELECT relname || ': is owned by ' || relowner::regrole FROM pg_class
          WHERE relkind IN ('r', 'p', 'S', 'v', 'm') AND relnamespace = 'public'::regnamespace
            AND relowner <> 'atrium_owner'::regrole",
    )
    .await;
    open.into_iter().chain(unguarded).chain(owned).collect()
}

async fn keys_without_the_organization(connection: &mut PgConnection) -> Vec<String> {
    let mut found = Vec::new();
    let keys: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT conrelid::regclass::text, conname::text,
                (SELECT attname FROM pg_attribute WHERE attrelid = conrelid AND attnum = conkey[1])::text
           FROM pg_constraint WHERE contype IN ('p', 'u') AND connamespace = 'public'::regnamespace
            AND conrelid::regclass::text <> '_sqlx_migrations'",
    )
    .fetch_all(&mut *connection)
    .await
    .expect("the catalog can be read");
    for (table, key, first_column) in keys {
        let exempt = [OF_USERS, ONE_PER_ORG, GLOBAL_KEY, OF_NOBODY].concat().contains(&table.as_str());
        if first_column != "org_id" && !exempt {
            found.push(format!("{table}: the key {key} does not begin with org_id"));
        }
    }

    // A foreign key between two tables of organizations must compare the organization.
    found.extend(
        names(
            connection,
            "SELECT conrelid::regclass || ': the foreign key ' || conname || ' does not compare org_id'
               FROM pg_constraint fk
              WHERE contype = 'f' AND connamespace = 'public'::regnamespace
                AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = conrelid AND attname = 'org_id')
                AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = confrelid AND attname = 'org_id')
                AND NOT EXISTS (
                    SELECT FROM unnest(conkey, confkey) AS pair (here, there)
                      JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = here AND a.attname = 'org_id'
                      JOIN pg_attribute b ON b.attrelid = confrelid AND b.attnum = there AND b.attname = 'org_id')",
        )
        .await,
    );
    // What belongs to an organization refers to it, so that nothing outlives it.
    found.extend(
        names(
            connection,
            "SELECT table_name || ': org_id refers to no organization' FROM information_schema.columns
              WHERE table_schema = 'public' AND column_name = 'org_id'
                AND NOT EXISTS (SELECT FROM pg_constraint WHERE contype = 'f'
                                   AND conrelid = ('public.' || table_name)::regclass AND confdeltype = 'c'
                                   AND EXISTS (SELECT FROM pg_attribute
                                                WHERE attrelid = conrelid AND attname = 'org_id' AND attnum = ANY (conkey)))",
        )
        .await,
    );
    // A unique index that is no constraint escapes the check above.
    found.extend(
        names(
            connection,
            "SELECT indexrelid::regclass || ': a unique index without a constraint' FROM pg_index
               JOIN pg_class ON pg_class.oid = indexrelid
              WHERE indisunique AND relnamespace = 'public'::regnamespace
                AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)",
        )
        .await,
    );
    // A constraint's name is how a refusal finds its answer.
    found.extend(
        names(
            connection,
            "SELECT conrelid::regclass || ': the constraint ' || conname || ' has no name of its own'
               FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype = 'c'
                AND conname ~ '_check[0-9]*$'",
        )
        .await,
    );
    found
}

async fn grants(connection: &mut PgConnection) -> Vec<String> {
    let mut found: Vec<String> = names(
        connection,
        "SELECT grantee || ' may ' || privilege_type || ' ' || table_name FROM information_schema.role_table_grants
          WHERE table_schema = 'public' AND grantee <> 'atrium_owner'
            AND (privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER') OR grantee = 'PUBLIC' OR is_grantable = 'YES'
                 OR table_name = '_sqlx_migrations')
            AND grantee NOT IN (SELECT rolname FROM pg_roles WHERE rolsuper)",
    )
    .await
    .into_iter()
    .collect();
    for table in OF_NOBODY {
        let touched: bool = sqlx::query_scalar(
            "SELECT has_any_column_privilege('atrium_app', $1, 'SELECT, INSERT, UPDATE, REFERENCES')
                 OR has_table_privilege('atrium_app', $1, 'DELETE, TRUNCATE, TRIGGER')",
        )
        .bind(table)
        .fetch_one(&mut *connection)
        .await
        .expect("the catalog can be read");
        if touched {
            found.push(format!("atrium_app may touch {table}, which belongs to no tenant"));
        }
    }
    // What would rewrite history.
    found.extend(
        names(
            connection,
            "SELECT 'atrium_app may ' || privilege_type || ' ' || table_name FROM information_schema.role_table_grants
              WHERE table_schema = 'public' AND grantee = 'atrium_app'
                AND (table_name, privilege_type) IN
                    (('audit_log', 'UPDATE'), ('audit_log', 'DELETE'), ('config_history', 'UPDATE'), ('config_history', 'DELETE'), ('saga_events', 'UPDATE'),
                     ('saga_events', 'DELETE'), ('outbox', 'DELETE'), ('inbox', 'DELETE'), ('inbox', 'UPDATE'))",
        )
        .await,
    );
    found
}

async fn relations_around_the_wall(connection: &mut PgConnection) -> Vec<String> {
    let mut found: Vec<String> = names(
        connection,
        "SELECT relname || ': a view, materialized view or partition passes the wall of the table behind it'
           FROM pg_class WHERE relnamespace = 'public'::regnamespace
            AND (relkind IN ('v', 'm', 'f') OR relispartition)",
    )
    .await
    .into_iter()
    .collect();
    found.extend(
        names(
            connection,
            "SELECT proname || ': runs with its owner''s rights, or may be run by everybody' FROM pg_proc
              WHERE pronamespace = 'public'::regnamespace
                AND (prosecdef OR proacl IS NULL OR has_function_privilege('atrium_app', oid, 'EXECUTE'))",
        )
        .await,
    );
    found.extend(
        names(
            connection,
            "SELECT rolname || ': a role of Atrium that could pass the wall' FROM pg_roles
              WHERE rolname LIKE 'atrium%' AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb)",
        )
        .await,
    );
    found
}
