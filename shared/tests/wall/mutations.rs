//! Weakens the wall in a scratch database, one way at a time, and counts the detections: by the lint (the rules and the
//! allow list), which must detect every one, and by the behavior of the tables, which shows that the lint is not alone.
//! A weakening that is not detected here would not be detected in a migration.

use std::collections::BTreeMap;

use atrium_harness::TestDatabase;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::{allow_list::differences, catalog::weaknesses, matrix::breach, rows::World};

/// Weakenings of nothing that every table has.
const SINGLE: &[&str] = &[
    "GRANT SELECT (changed_at) ON config_heads TO atrium_watcher",
    "GRANT EXECUTE ON PROCEDURE wall_by_org TO atrium_app",
    "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO atrium_app",
    "GRANT SELECT ON pg_authid TO atrium_app",
    "GRANT pg_read_all_data TO atrium_app",
    "GRANT SELECT (shard) ON relay_leases TO atrium_app",
    "GRANT atrium_owner TO atrium_app",
    "GRANT atrium_relay TO atrium_app",
    "ALTER ROLE atrium_app BYPASSRLS",
    "ALTER ROLE atrium_relay BYPASSRLS",
    "ALTER ROLE atrium_app SUPERUSER",
    "ALTER ROLE atrium_app CREATEROLE",
    "ALTER ROLE atrium_owner LOGIN",
    "GRANT CREATE ON SCHEMA public TO atrium_app",
    "GRANT TEMPORARY ON DATABASE current TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES FOR ROLE atrium_owner GRANT SELECT ON TABLES TO PUBLIC",
    "CREATE TABLE notes (org_id uuid NOT NULL REFERENCES orgs ON DELETE CASCADE, id uuid, PRIMARY KEY (org_id, id))",
    "CREATE TABLE lists (id uuid PRIMARY KEY)",
    "CREATE SCHEMA aside; CREATE TABLE aside.copy AS SELECT * FROM projects; GRANT USAGE ON SCHEMA aside TO PUBLIC",
    "CREATE FUNCTION harmless() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
    "CREATE SEQUENCE counter",
    "CREATE UNIQUE INDEX projects_name ON projects (name)",
    "ALTER TABLE projects ADD CONSTRAINT projects_name_unique UNIQUE (name)",
];

/// A way to weaken one table.
struct Mutation {
    kind: &'static str,
    table: String,
    statement: String,
}

/// Every way to weaken each table, from its policies and keys.
async fn generated(connection: &mut PgConnection, world: &World) -> Vec<Mutation> {
    let mut mutations = Vec::new();
    for table in &world.tables {
        let name = &table.name;
        let mut add = |kind, statement: String| {
            mutations.push(Mutation { kind, table: name.clone(), statement });
        };
        add("drop FORCE", format!("ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY"));
        add("disable", format!("ALTER TABLE {name} DISABLE ROW LEVEL SECURITY"));
        add("own", format!("ALTER TABLE {name} OWNER TO atrium_app"));
        for privilege in ["TRUNCATE", "REFERENCES", "TRIGGER"] {
            add("grant what nobody needs", format!("GRANT {privilege} ON {name} TO atrium_app"));
        }
        for (verb, whole) in [
            ("INSERT", table.insertable().len() == table.columns.len()),
            ("UPDATE", table.updatable().len() == table.columns.len()),
            ("DELETE", table.may_delete),
        ] {
            if !whole {
                add("grant more", format!("GRANT {verb} ON {name} TO atrium_app"));
            }
        }
        add("grant on", format!("GRANT SELECT ON {name} TO atrium_app WITH GRANT OPTION"));
        add("grant to everybody", format!("GRANT SELECT ON {name} TO PUBLIC"));
        for (role, reads) in [("atrium_relay", table.relay_reads), ("atrium_watcher", table.watcher_reads)] {
            if !reads {
                add("grant to a narrow role", format!("GRANT SELECT ON {name} TO {role}"));
            }
        }
        add(
            "open a second policy",
            format!("CREATE POLICY open ON {name} FOR SELECT TO atrium_app USING (true)"),
        );
        add(
            "view",
            format!("CREATE VIEW every AS SELECT * FROM {name}; GRANT SELECT ON every TO atrium_app"),
        );
        add(
            "view",
            format!(
                "CREATE MATERIALIZED VIEW every AS SELECT * FROM {name}; GRANT SELECT ON every TO atrium_app"
            ),
        );
        add(
            "function with its owner's rights",
            format!(
                "CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM {name}'"
            ),
        );
        add("child", format!("CREATE TABLE child () INHERITS ({name})"));
        add("publication", format!("CREATE PUBLICATION everything FOR TABLE {name}"));
        add("rule", format!("CREATE RULE aside AS ON DELETE TO {name} DO ALSO NOTIFY deleted"));
        add(
            "trigger",
            format!(
                "CREATE TRIGGER aside BEFORE UPDATE ON {name}
                    FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
            ),
        );
        for reference in table.references().filter(|reference| reference.columns.len() > 1) {
            let (constraint, target) = (&reference.name, reference.target.as_deref().unwrap_or_default());
            let column = reference.columns.last().expect("a reference has columns");
            let there = table.referred(constraint, column).expect("a column for each");
            add(
                "single-column reference",
                format!(
                    "ALTER TABLE {name} DROP CONSTRAINT {constraint};
                     ALTER TABLE {target} ADD CONSTRAINT {target}_lone UNIQUE ({there});
                     ALTER TABLE {name} ADD CONSTRAINT {constraint} FOREIGN KEY ({column}) REFERENCES {target} ({there})
                         ON DELETE CASCADE"
                ),
            );
        }
        for reference in table.references() {
            add("drop a reference", format!("ALTER TABLE {name} DROP CONSTRAINT {}", reference.name));
        }
        // A column in which the tenants' rows differ, or the key could not be created.
        let [us, them] = world.tenants.each_ref().map(|tenant| tenant.row(table));
        for key in table.unique().filter(|key| key.columns.len() > 1) {
            let differs = |column: &&String| **column != table.tenant && us[*column] != them[*column];
            if let Some(column) = key.columns.iter().rev().find(differs) {
                add(
                    "key without the tenant",
                    format!("ALTER TABLE {name} ADD CONSTRAINT {name}_lone UNIQUE (\"{column}\")"),
                );
            }
        }
        policies(connection, name, &mut add).await;
    }
    mutations
}

/// Every policy is dropped, widened and granted to others; the restrictive policy is made permissive.
async fn policies(connection: &mut PgConnection, table: &str, add: &mut impl FnMut(&'static str, String)) {
    let policies: Vec<(String, bool, bool)> = sqlx::query_as(
        "SELECT policyname::text, qual IS NOT NULL AND qual <> 'true',
                with_check IS NOT NULL AND with_check <> 'true'
           FROM pg_policies WHERE schemaname = 'public' AND tablename = $1",
    )
    .bind(table)
    .fetch_all(connection)
    .await
    .expect("the catalog can be read");
    for (policy, uses, checks) in policies {
        add("drop a policy", format!("DROP POLICY {policy} ON {table}"));
        add("policy for everybody", format!("ALTER POLICY {policy} ON {table} TO PUBLIC"));
        if uses {
            add("widen USING", format!("ALTER POLICY {policy} ON {table} USING (true)"));
        }
        if checks {
            add("widen CHECK", format!("ALTER POLICY {policy} ON {table} WITH CHECK (true)"));
        }
        if policy == "guard" {
            add("guard for another role", format!("ALTER POLICY {policy} ON {table} TO atrium_relay"));
            // Everything of it but that it restricts.
            add(
                "guard that only permits",
                format!(
                    "DO $$ DECLARE guard pg_policies; BEGIN
                         SELECT * INTO guard FROM pg_policies WHERE tablename = '{table}' AND policyname = '{policy}';
                         DROP POLICY {policy} ON {table};
                         EXECUTE format('CREATE POLICY {policy} ON {table} TO atrium_app USING (%s) WITH CHECK (%s)',
                                        guard.qual, guard.with_check);
                     END $$"
                ),
            );
        }
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the score is what the test is for")]
async fn every_weakening_is_noticed() {
    let database = TestDatabase::create().await;
    let mut connection = database.superuser().await;
    let world = World::make(&mut connection).await;
    let mut mutations = generated(&mut connection, &world).await;
    mutations.extend(SINGLE.iter().map(|statement| Mutation {
        kind: "single",
        table: String::new(),
        statement: statement.replace("DATABASE current", &format!("DATABASE {}", database.name())),
    }));

    let mut survivors = Vec::new();
    // By kind: how many there were, how many the tables' behavior showed.
    let mut shown: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for Mutation { kind, table, statement } in &mutations {
        // Dropped, and so rolled back, immediately: one scratch database is enough for all.
        let mut tx = connection.begin().await.expect("a transaction");
        sqlx::raw_sql(AssertSqlSafe(statement.as_str()))
            .execute(&mut *tx)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
        if differences(&mut tx).await.is_empty() && weaknesses(&mut tx).await.is_empty() {
            survivors.push(statement);
        }
        if let Some(table) = world.tables.iter().find(|there| there.name == *table) {
            let (all, noticed) = shown.entry(kind).or_default();
            // What the lint may be alone with is tried on some tables, since nothing ends the search for it early.
            if !WHAT_TABLES_SHOW.contains(kind) && *all >= ELSE {
                continue;
            }
            *all += 1;
            *noticed += usize::from(breach(&mut tx, &world, table).await.is_some());
        }
    }
    let (all, noticed) = shown.values().fold((0, 0), |sum, kind| (sum.0 + kind.0, sum.1 + kind.1));
    println!(
        "wall mutations, by the lint: {}/{} noticed",
        mutations.len() - survivors.len(),
        mutations.len()
    );
    println!("wall mutations, by what the tables do: {noticed}/{all} tried were noticed");
    for (kind, (all, noticed)) in &shown {
        println!(
            "  {kind}: {noticed}/{all}{}",
            if noticed < all { ", the others by the lint only" } else { "" }
        );
    }
    assert!(survivors.is_empty(), "{} were not noticed: {survivors:#?}", survivors.len());
    for kind in WHAT_TABLES_SHOW {
        assert!(shown.get(kind).is_some_and(|(all, noticed)| all == noticed), "{kind}: {shown:#?}");
    }
}

/// A line in the list could allow these; the rules do not.
const AGAINST_THE_RULES: &[&str] = &[
    "ALTER TABLE projects NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE orgs DISABLE ROW LEVEL SECURITY",
    "DROP POLICY guard ON members",
    "ALTER POLICY guard ON projects TO atrium_relay",
    "GRANT TRUNCATE ON projects TO atrium_app",
    "GRANT SELECT ON projects TO PUBLIC",
    "GRANT DELETE ON config_history TO atrium_app",
    "GRANT EXECUTE ON PROCEDURE wall_by_org TO atrium_app",
    "CREATE TABLE lists (id uuid PRIMARY KEY)",
    "CREATE VIEW everything AS SELECT * FROM projects",
    "CREATE MATERIALIZED VIEW everything AS SELECT * FROM projects",
    "CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM orgs'",
    "CREATE UNIQUE INDEX projects_name ON projects (name)",
    "ALTER TABLE projects ADD CONSTRAINT projects_name_unique UNIQUE (name)",
    "ALTER TABLE projects OWNER TO atrium_app",
    "ALTER TABLE projects DROP CONSTRAINT projects_org_fkey",
    "ALTER TABLE config_values DROP CONSTRAINT config_values_project_fkey;
     ALTER TABLE projects ADD CONSTRAINT projects_id_unique UNIQUE (id);
     ALTER TABLE config_values ADD CONSTRAINT config_values_project_fkey FOREIGN KEY (project_id) REFERENCES projects (id)",
];

#[tokio::test]
async fn the_allow_list_cannot_weaken_the_rules() {
    let database = TestDatabase::create().await;
    let mut connection = database.superuser().await;
    for statement in AGAINST_THE_RULES {
        let mut tx = connection.begin().await.expect("a transaction");
        sqlx::raw_sql(*statement)
            .execute(&mut *tx)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
        assert!(!weaknesses(&mut tx).await.is_empty(), "{statement}");
    }
}

/// What a table must show by itself, whichever it is.
const WHAT_TABLES_SHOW: &[&str] = &[
    "drop FORCE",
    "disable",
    "own",
    "grant more",
    "grant to everybody",
    "grant to a narrow role",
    "guard for another role",
    "guard that only permits",
    "single-column reference",
    "view",
];
/// On how many tables everything else is tried.
const ELSE: usize = 3;
