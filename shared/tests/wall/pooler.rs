//! The wall behind a transaction pooler, where every transaction may follow one of another tenant on the same
//! server connection.

use std::collections::BTreeSet;

use atrium_harness::TestDatabase;
use atrium_servers::pgbouncer::PrivatePgBouncer;
use atrium_shared::{
    db::{Database, DbError},
    settings::Pooling,
};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use uuid::Uuid;

use crate::tenants::{SYSTEM, Tenant, found, through};

/// Of both tenants together.
const TRANSACTIONS: usize = 10_000;
/// The number of concurrent transactions of each tenant; all of them use one server connection.
const AT_ONCE: usize = 4;

/// What a tenant saw in its transactions.
#[derive(Default)]
struct Seen {
    transactions: usize,
    foreign: usize,
    missing: usize,
    servers: BTreeSet<i32>,
}

async fn one_server_connection(database: &TestDatabase) -> PrivatePgBouncer {
    PrivatePgBouncer::start(&database.urls().app, 1).await.expect("PgBouncer starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tenants_on_one_server_connection_never_meet() {
    let database = TestDatabase::create().await;
    let pooler = one_server_connection(&database).await;
    // Two processes, from PgBouncer's view.
    let (one, other) = tokio::join!(
        through(pooler.url(), AT_ONCE as u32, Pooling::Transaction),
        through(pooler.url(), AT_ONCE as u32, Pooling::Transaction),
    );
    let (ours, theirs) = (found(&one).await, found(&other).await);
    let tasks: Vec<_> = [(one, ours), (other, theirs)]
        .into_iter()
        .flat_map(|(db, tenant)| (0..AT_ONCE).map(move |task| tokio::spawn(work(db.clone(), tenant, task))))
        .collect();
    let mut all = Seen::default();
    for task in tasks {
        let seen = task.await.expect("the task ends well");
        all.transactions += seen.transactions;
        all.foreign += seen.foreign;
        all.missing += seen.missing;
        all.servers.extend(seen.servers);
    }
    assert_eq!((all.transactions, all.foreign, all.missing), (TRANSACTIONS, 0, 0));
    assert_eq!(all.servers.len(), 1, "one server connection has served both: {:?}", all.servers);
}

/// One task's share: reads, writes, transactions that are dropped, and those for a user.
async fn work(db: Database, tenant: Tenant, task: usize) -> Seen {
    let mut seen = Seen::default();
    for turn in 0..TRANSACTIONS / 2 / AT_ONCE {
        match (turn + task) % 4 {
            0 => {
                let mut tx = db.user_tx(tenant.user).await.expect("a transaction");
                // Without an organization there are no projects.
                seen.look(tx.conn(), tenant, 0).await;
            }
            1 => {
                let mut tx = db.org_tx(&SYSTEM, tenant.org).await.expect("a transaction");
                let touched = sqlx::query("UPDATE projects SET version = version + 1")
                    .execute(tx.conn())
                    .await
                    .expect("an update");
                seen.foreign += usize::try_from(touched.rows_affected()).expect("few").saturating_sub(1);
                seen.look(tx.conn(), tenant, 1).await;
                // Every other one is dropped in the middle.
                if turn % 8 < 4 {
                    tx.commit().await.expect("a commit");
                }
            }
            _ => {
                let mut tx = db.org_tx(&tenant.member(), tenant.org).await.expect("a transaction");
                seen.look(tx.conn(), tenant, 1).await;
            }
        }
        seen.transactions += 1;
    }
    seen
}

impl Seen {
    /// Looks at everything that the transaction shows, where that number of the tenant's projects must be.
    async fn look(&mut self, connection: &mut PgConnection, tenant: Tenant, own_projects: usize) {
        let (server, orgs, projects): (i32, Vec<Uuid>, Vec<Uuid>) = sqlx::query_as(
            "SELECT pg_backend_pid(), ARRAY(SELECT id FROM orgs), ARRAY(SELECT id FROM projects)",
        )
        .fetch_one(connection)
        .await
        .expect("what can be seen");
        let own = |ids: &[Uuid], id: Uuid| ids.iter().filter(|seen| **seen == id).count();
        let (own_org, own_project) = (own(&orgs, tenant.org.uuid()), own(&projects, tenant.project.uuid()));
        self.servers.insert(server);
        self.foreign += orgs.len() - own_org + projects.len() - own_project;
        self.missing += usize::from(own_org != 1) + usize::from(own_project != own_projects);
    }
}

/// What the test above would see if a tenant were named for longer than its transaction.
#[tokio::test]
async fn a_session_level_tenant_would_leak_through_a_transaction_pooler() {
    let database = TestDatabase::create().await;
    let pooler = one_server_connection(&database).await;
    let db = through(pooler.url(), 1, Pooling::Transaction).await;
    let ours = found(&db).await;
    let options: PgConnectOptions = pooler.url().parse().expect("an address");
    let options = options.extra_float_digits(None);
    let mut client = PgConnection::connect_with(&options).await.expect("a connection");
    let named = format!("SELECT set_config('app.org_id', '{}', false)", ours.org);
    sqlx::raw_sql(sqlx::AssertSqlSafe(named)).execute(&mut client).await.expect("a setting");
    let mut next = PgConnection::connect_with(&options).await.expect("another connection");
    let leaked = sqlx::raw_sql("SELECT id FROM projects").fetch_all(&mut next).await.expect("rows");
    assert_eq!(leaked.len(), 1, "the pooler hands the setting on");
    drop((client, next));
    // Our own transactions name theirs anyway.
    let mut tx = db.user_tx(ours.user).await.expect("a transaction");
    let mut seen = Seen::default();
    seen.look(tx.conn(), ours, 0).await;
    assert_eq!((seen.foreign, seen.missing), (0, 0));
}

#[tokio::test]
async fn statements_kept_for_a_session_fail_behind_a_transaction_pooler() {
    let database = TestDatabase::create().await;
    let pooler = one_server_connection(&database).await;
    let url = format!("{}?statement-cache-capacity=100", pooler.url());
    let options: PgConnectOptions = url.parse().expect("an address");
    let options = options.extra_float_digits(None);
    let mut refused = Vec::new();
    for _ in 0..2 {
        let mut client = PgConnection::connect_with(&options).await.expect("a connection");
        refused.push(sqlx::query("SELECT 1").execute(&mut client).await.map_err(DbError::from).err());
    }
    // Which is why the setting exists.
    let [None, Some(DbError::Unexpected(error))] = &refused[..] else { panic!("{refused:?}") };
    assert!(error.to_string().contains("already exists"), "{error}");
}
