//! Non-interference: a tenant's operations have the same results whether it is alone or others work in between, on the
//! same few connections. The operations include accesses to the others' resources; when the tenant is alone, these do
//! not exist.
//!
//! The operations are drawn from a seed; `WALL_SEED` sets it.

use atrium_harness::TestDatabase;
use atrium_shared::{
    db::{Database, DbError, OrgTx},
    ids::{OrgId, ProjectId},
    settings::Pooling,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::Row as _;

use crate::tenants::{Tenant, found, through};

const TENANTS: usize = 4;
const OPERATIONS: usize = 200;
/// Fewer than tenants: a connection goes from one to another all the time.
const CONNECTIONS: u32 = 2;

#[tokio::test]
async fn a_tenants_results_do_not_depend_on_the_others() {
    let seed = std::env::var("WALL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    let difference = difference(seed, "").await;
    assert!(
        difference.is_none(),
        "{}; WALL_SEED={seed} makes the same steps",
        difference.unwrap_or_default()
    );
}

#[tokio::test]
async fn the_comparison_detects_a_readable_table() {
    let weakening =
        "ALTER POLICY tenant ON projects USING (true); ALTER POLICY guard ON projects USING (true)";
    assert!(difference(7, weakening).await.is_some());
}

/// The first result in which a tenant among others, whose wall was weakened, differs from the same tenant alone.
async fn difference(seed: u64, weakening: &'static str) -> Option<String> {
    let database = TestDatabase::create().await;
    sqlx::raw_sql(weakening)
        .execute(&mut database.superuser().await)
        .await
        .expect("a mistake in a migration");
    let db = through(&database.urls().app, CONNECTIONS, Pooling::Session).await;
    let mut tenants = Vec::new();
    for _ in 0..TENANTS {
        tenants.push(found(&db).await);
    }
    let together: Vec<_> = (0..TENANTS)
        .map(|number| {
            let others = tenants.iter().enumerate().filter(|(other, _)| *other != number);
            let others: Vec<_> = others.map(|(_, tenant)| (tenant.org, tenant.project)).collect();
            tokio::spawn(run(db.clone(), tenants[number], others, seed ^ number as u64))
        })
        .collect();
    for (number, together) in together.into_iter().enumerate() {
        let together = together.await.expect("the tenant was well");
        let database = TestDatabase::create().await;
        let db = through(&database.urls().app, CONNECTIONS, Pooling::Session).await;
        let nobody = vec![(OrgId::new(), ProjectId::new()); TENANTS - 1];
        let tenant = found(&db).await;
        let alone = run(db, tenant, nobody, seed ^ number as u64).await;
        let pairs = together.iter().zip(&alone).enumerate();
        for (step, (together, alone)) in pairs {
            if together != alone {
                return Some(format!("tenant {number}, step {step}: {together}; alone: {alone}"));
            }
        }
        assert_eq!(together.len(), alone.len(), "tenant {number}");
    }
    None
}

/// The effect of a statement: its rows, and the tenants that `$1` may name.
const OWN: &[&str] = &[
    "SELECT count(*)::text FROM projects",
    "SELECT string_agg(name || version, ',' ORDER BY name, version) FROM projects",
    "SELECT string_agg(name || status, ',') FROM orgs",
    "SELECT string_agg(role, ',') FROM members",
    "SELECT string_agg(action || count, ',' ORDER BY action) FROM chat_counters",
    "SELECT string_agg(key || value, ',' ORDER BY key) FROM config_values",
    "SELECT (SELECT count(*) FROM outbox) || ' ' || (SELECT count(*) FROM sagas) || ' ' || (SELECT count(*) FROM users)",
    "UPDATE config_heads SET revision = revision + 1 RETURNING revision::text",
    "UPDATE projects SET version = version + 1 RETURNING version::text",
    "UPDATE orgs SET version = version + 1, name = 'n' || version RETURNING name",
    "WITH project AS (SELECT * FROM projects WHERE name = 'one')
     INSERT INTO chat_counters (org_id, project_id, action, count) SELECT org_id, id, 'ready', 1 FROM project
         ON CONFLICT ON CONSTRAINT chat_counters_pkey DO UPDATE SET count = chat_counters.count + 1
     RETURNING total::text",
    "INSERT INTO config_values (org_id, key, value, revision) SELECT id, 'k' || version, '1', version FROM orgs
         ON CONFLICT ON CONSTRAINT config_values_unique DO NOTHING RETURNING key",
    "DELETE FROM config_values RETURNING key",
    "INSERT INTO projects (org_id, id, name) SELECT id, gen_random_uuid(), 'p' || version FROM orgs RETURNING name",
];

/// The same for what another organization ($1) or its project ($2) is reached for.
const REACHES: &[&str] = &[
    "SELECT name FROM projects WHERE org_id = $1 OR id = $2",
    "UPDATE projects SET name = 'taken' WHERE id = $2 OR org_id = $1 RETURNING name",
    "DELETE FROM projects WHERE id = $2 OR org_id = $1 RETURNING name",
    "INSERT INTO projects (org_id, id, name) VALUES ($1, $2, 'planted') RETURNING name",
    "INSERT INTO projects (org_id, id, name) VALUES ($1, $2, 'planted') ON CONFLICT DO NOTHING RETURNING name",
    "INSERT INTO chat_counters (org_id, project_id, action) SELECT id, $2, 'ready' FROM orgs RETURNING action",
    "INSERT INTO config_values (org_id, project_id, key, value, revision) SELECT id, $2, 'k', '1', 1 FROM orgs
         RETURNING key",
    "SELECT name FROM orgs WHERE id = $1 FOR UPDATE",
];

async fn run(db: Database, tenant: Tenant, others: Vec<(OrgId, ProjectId)>, seed: u64) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut results = Vec::with_capacity(OPERATIONS);
    for _ in 0..OPERATIONS {
        let other = others[random.random_range(0..others.len())];
        // Some come as another organization's member would have to.
        if random.random_range(0..10) == 0 {
            let outcome = db.org_tx(&tenant.member(), other.0).await;
            results.push(format!("enter: {:?}", outcome.err().map(|error| error.to_string())));
            continue;
        }
        let mut tx = db.org_tx(&tenant.member(), tenant.org).await.expect("one's own organization");
        let mut well = true;
        for _ in 0..random.random_range(1..4) {
            let reaches = random.random_range(0..3) == 0;
            let statement = if reaches {
                REACHES[random.random_range(0..REACHES.len())]
            } else {
                OWN[random.random_range(0..OWN.len())]
            };
            // A denied statement ends the transaction, and with it the operation.
            if well {
                let result = perform(&mut tx, statement, reaches.then_some(other)).await;
                well = result.is_ok();
                results.push(format!("{statement}: {result:?}"));
            }
        }
        // A third is dropped in the middle.
        if random.random_range(0..3) > 0 && well {
            tx.commit().await.expect("a commit");
        }
    }
    results
}

async fn perform(
    tx: &mut OrgTx,
    statement: &'static str,
    other: Option<(OrgId, ProjectId)>,
) -> Result<Vec<Option<String>>, String> {
    let query = sqlx::query(statement);
    let query = match other {
        // Every statement has both parameters, or declares the type of those it does not use.
        Some((org, project)) if statement.contains("$1") => query.bind(org).bind(project),
        Some((_, project)) => {
            let statement = statement.replace("$2", "$1");
            return rows(
                sqlx::query(sqlx::AssertSqlSafe(statement)).bind(project).fetch_all(tx.conn()).await,
            );
        }
        None => query,
    };
    rows(query.fetch_all(tx.conn()).await)
}

/// The texts of the rows, or the database's error.
fn rows(result: sqlx::Result<Vec<sqlx::postgres::PgRow>>) -> Result<Vec<Option<String>>, String> {
    match result {
        Ok(rows) => {
            let mut texts: Vec<Option<String>> = rows.iter().map(|row| row.get(0)).collect();
            texts.sort();
            Ok(texts)
        }
        Err(error) => Err(DbError::from(error).to_string()),
    }
}
