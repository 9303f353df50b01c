//! Every process applies the newest configuration, even if events that announce it are lost.

use std::time::Duration;

use atrium_harness::{TestDatabase, TestRedis, until};
use atrium_shared::{
    configuration::{
        ConfigurationStore, report,
        write::{self, Change, ChangeError},
    },
    db::{Database, Principal, Watcher},
    ids::OrgId,
    lifecycle::Shutdown,
    settings::Reader,
    streams::{Live, Redis, StreamId, TailEvent},
};
use serde_json::{Value, json};

const SYSTEM: Principal = Principal::System("test");
const KEY: &str = "chat.max_active_sessions";

struct Process {
    database: TestDatabase,
    db: Database,
    redis: Redis,
    store: ConfigurationStore,
    shutdown: Shutdown,
    org: OrgId,
}

impl Process {
    /// A process with an organization's configuration at revision 1 that gets updates only from the test.
    async fn start(redis_url: &str) -> Self {
        let database = TestDatabase::create().await;
        let variables = [
            ("ATRIUM_DATABASE_URL", database.urls().app.as_str()),
            ("ATRIUM_WATCHER_DATABASE_URL", database.urls().watcher.as_str()),
            ("ATRIUM_REDIS_URL", redis_url),
            ("ATRIUM_DATABASE_CONNECTIONS", "4"),
        ];
        let mut reader =
            Reader::from_variables(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let settings = reader.common("test");
        let settings = reader.finish(settings).expect("the settings are complete");
        let db = Database::connect(&settings).await.expect("the database answers");
        let watcher = Watcher::connect(&settings).await.expect("the database answers");
        let redis = Redis::new(&settings.redis_url).expect("an address");

        let org = OrgId::new();
        let mut tx = db.org_tx(&SYSTEM, org).await.expect("a transaction");
        for statement in [
            "INSERT INTO orgs (id, name, slug, status) VALUES ($1, 'Acme', 'acme', 'COMMITTED')",
            "INSERT INTO config_heads (org_id, revision) VALUES ($1, 1)",
        ] {
            sqlx::query(statement).bind(org).execute(tx.conn()).await.expect("a row");
        }
        tx.commit().await.expect("a commit");

        let shutdown = Shutdown::new();
        let store = ConfigurationStore::start(db.clone(), watcher, redis.clone(), "this", &shutdown)
            .await
            .expect("the configuration can be loaded");
        let process = Self { database, db, redis, store, shutdown, org };
        assert_eq!(process.holds().await, (1, 3));
        process
    }

    /// The revision and the value that this process applies.
    async fn holds(&self) -> (i64, u32) {
        let snapshot = self.store.org(self.org).await.expect("a snapshot");
        (snapshot.revision(), snapshot.organization().chat_max_active_sessions)
    }

    async fn set(&self, org: OrgId, value: Value) -> i64 {
        let mut tx = self.db.org_tx(&SYSTEM, org).await.expect("a transaction");
        let change = Change {
            project: None,
            key: KEY.to_owned(),
            value: Some(value),
            author: None,
            reason: "a test".to_owned(),
            expected_revision: None,
        };
        let revision = write::apply(&mut tx, change).await.expect("a change");
        tx.commit().await.expect("a commit");
        revision
    }

    fn tell(&self, fields: &[(&str, &str)]) {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.store.take(&TailEvent::Entry { stream: Live::Config, id: StreamId::default(), fields });
    }

    fn tell_revision(&self, revision: i64) {
        self.tell(&[("org", &self.org.to_string()), ("revision", &revision.to_string())]);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shutdown.draining().cancel();
    }
}

#[tokio::test]
async fn one_event_suffices_and_old_or_repeated_events_change_nothing() {
    let process = Process::start(TestRedis::database().await.url()).await;
    for value in 4..8_u32 {
        let revision = process.set(process.org, json!(value)).await;
        process.tell_revision(revision);
        until("the change is applied", async || process.holds().await == (revision, value)).await;
        for other in [1, revision - 1, revision] {
            process.tell_revision(other);
        }
    }
    assert_eq!(process.holds().await, (5, 7));
}

#[tokio::test]
async fn reconciling_finds_every_change_without_events_and_never_goes_back() {
    // An address without a server: Redis is unavailable from the start.
    let process = Process::start("redis://127.0.0.1:1").await;
    let mut last = 0;
    for value in [5, 6, 7] {
        process.set(process.org, json!(value)).await;
    }
    until("the newest is applied", async || {
        let (revision, _) = process.holds().await;
        assert!(revision >= last, "from {last} back to {revision}");
        last = revision;
        revision == 4
    })
    .await;
    assert_eq!(process.holds().await, (4, 7));
}

#[tokio::test]
async fn gaps_and_malformed_notices_trigger_a_full_reconcile() {
    let process = Process::start(TestRedis::database().await.url()).await;
    process.set(process.org, json!(9)).await;
    process.tell(&[("revision", "soon")]);
    until("the change is applied", async || process.holds().await == (2, 9)).await;
    process.set(process.org, json!(10)).await;
    process.store.take(&TailEvent::Gap { stream: Live::Config });
    until("the change is applied", async || process.holds().await == (3, 10)).await;
}

#[tokio::test]
async fn a_default_reaches_every_organization_that_has_not_set_its_own() {
    let process = Process::start(TestRedis::database().await.url()).await;
    let revision = process.set(OrgId::PLATFORM, json!(12)).await;
    process.tell(&[("org", &OrgId::PLATFORM.to_string()), ("revision", &revision.to_string())]);
    until("the default is applied", async || process.holds().await == (1, 12)).await;
    let revision = process.set(process.org, json!(2)).await;
    process.tell_revision(revision);
    until("the organization's own is", async || process.holds().await == (2, 2)).await;
}

#[tokio::test]
async fn an_inapplicable_revision_keeps_the_last_good_one_and_is_reported() {
    let process = Process::start(TestRedis::database().await.url()).await;
    let revision = process.set(process.org, json!(4)).await;
    process.tell_revision(revision);
    until("the change is applied", async || process.holds().await == (2, 4)).await;
    // A newer release stores what this one does not understand.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "UPDATE config_values SET value = '\"many\"', revision = 3 WHERE org_id = '{0}';
         UPDATE config_heads SET revision = 3 WHERE org_id = '{0}'",
        process.org
    )))
    .execute(&mut process.database.superuser().await)
    .await
    .expect("another release");
    process.tell_revision(3);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(process.holds().await, (2, 4));
    until("the status shows it", async || {
        let status = report::status(&process.redis, process.org).await.expect("Redis answers");
        status.len() == 1 && status[0].revision == Some(2)
    })
    .await;
}

#[tokio::test]
async fn concurrent_writers_on_one_revision_make_one_change() {
    let process = Process::start(TestRedis::database().await.url()).await;
    let write = async |value: u32| {
        let mut tx = process.db.org_tx(&SYSTEM, process.org).await.expect("a transaction");
        let change = Change {
            project: None,
            key: KEY.to_owned(),
            value: Some(json!(value)),
            author: None,
            reason: "a race".to_owned(),
            expected_revision: Some(1),
        };
        let applied = write::apply(&mut tx, change).await;
        if applied.is_ok() {
            tx.commit().await.expect("a commit");
        }
        applied
    };
    let (first, second) = tokio::join!(write(4), write(5));
    let outcomes = [first, second];
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Ok(2))).count(), 1, "{outcomes:?}");
    let stale =
        |outcome: &&Result<i64, ChangeError>| matches!(outcome, Err(ChangeError::Stale { current: 2 }));
    assert_eq!(outcomes.iter().filter(stale).count(), 1, "{outcomes:?}");
}
