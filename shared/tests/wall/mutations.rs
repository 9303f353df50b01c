//! Weakens the wall in a scratch database, one way at a time: the catalog's test must notice every one. What it
//! did not notice here, it would not notice in a migration.

use atrium_devstack::testing::TestDatabase;

use crate::{allow_list::differences, catalog::weaknesses};

const MUTATIONS: &[&str] = &[
    "ALTER TABLE projects NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE orgs DISABLE ROW LEVEL SECURITY",
    "DROP POLICY guard ON members",
    "DROP POLICY tenant ON projects",
    "ALTER POLICY guard ON projects TO atrium_relay",
    "CREATE POLICY open ON projects FOR SELECT TO atrium_app USING (true)",
    "CREATE POLICY mine ON projects FOR SELECT TO atrium_app USING (true)",
    "GRANT TRUNCATE ON projects TO atrium_app",
    "GRANT REFERENCES ON projects TO atrium_app",
    "GRANT SELECT ON projects TO PUBLIC",
    "GRANT SELECT ON orgs TO atrium_relay",
    "GRANT SELECT ON config_values TO atrium_watcher",
    "GRANT SELECT (changed_at) ON config_heads TO atrium_watcher",
    "GRANT DELETE ON config_history TO atrium_app",
    "GRANT SELECT ON projects TO atrium_app WITH GRANT OPTION",
    "GRANT EXECUTE ON PROCEDURE wall_by_org TO atrium_app",
    "CREATE TABLE notes (org_id uuid NOT NULL REFERENCES orgs ON DELETE CASCADE, id uuid, PRIMARY KEY (org_id, id))",
    "CREATE TABLE lists (id uuid PRIMARY KEY)",
    "CREATE VIEW everything AS SELECT * FROM projects",
    "CREATE MATERIALIZED VIEW everything AS SELECT * FROM projects",
    "CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM orgs'",
    "CREATE FUNCTION harmless() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
    "CREATE UNIQUE INDEX projects_name ON projects (name)",
    "ALTER TABLE projects ADD CONSTRAINT projects_name_unique UNIQUE (name)",
    "ALTER TABLE projects OWNER TO atrium_app",
    "ALTER TABLE config_values DROP CONSTRAINT config_values_project_fkey;
     ALTER TABLE projects ADD CONSTRAINT projects_id_unique UNIQUE (id);
     ALTER TABLE config_values ADD CONSTRAINT config_values_project_fkey FOREIGN KEY (project_id) REFERENCES projects (id)",
    "ALTER TABLE projects DROP CONSTRAINT projects_org_fkey",
    "ALTER TABLE refresh_tokens NO FORCE ROW LEVEL SECURITY",
    "DROP POLICY guard ON refresh_families",
    "GRANT SELECT ON refresh_tokens TO atrium_watcher",
    "CREATE POLICY sweep ON refresh_tokens FOR DELETE TO atrium_watcher USING (true)",
];

#[tokio::test]
async fn every_weakening_is_noticed() {
    let database = TestDatabase::create().await;
    let mut connection = database.superuser().await;
    let mut survivors = Vec::new();
    for mutation in MUTATIONS {
        // Taken back at once: a transaction keeps one scratch database enough for all.
        for statement in ["BEGIN", mutation] {
            sqlx::raw_sql(statement)
                .execute(&mut connection)
                .await
                .unwrap_or_else(|error| panic!("{mutation}: {error}"));
        }
        if weaknesses(&mut connection).await.is_empty() && differences(&mut connection).await.is_empty() {
            survivors.push(*mutation);
        }
        sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.expect("a rollback works");
    }
    assert!(
        survivors.is_empty(),
        "{} of {} were not noticed: {survivors:#?}",
        survivors.len(),
        MUTATIONS.len()
    );
}
