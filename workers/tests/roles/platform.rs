//! The fixture of these tests: workers with a database and Redis but no API, and functions that write what the API
//! would write.

pub(crate) use atrium_harness::until;
use atrium_harness::{Atrium, AtriumBuilder};
use atrium_shared::{
    db::{Database, Principal},
    ids::{MessageId, OrgId, ProjectId, SagaId, SessionId, UserId},
    messages::{ActionEntry, ChatAction, StreamEntry as _},
    saga::{self, SagaKind},
    settings::{Reader, Settings},
    streams::{Inbound, Live, chat_shard},
};
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};

pub(crate) const SYSTEM: Principal = Principal::System("test");

pub(crate) struct TestPlatform {
    pub(crate) atrium: Atrium,
    pub(crate) db: Database,
    pub(crate) superuser: PgConnection,
    pub(crate) redis: MultiplexedConnection,
}

/// An organization, its owner, and the id of a project, which exists if [`TestPlatform::tenant`] created the tenant.
#[derive(Clone, Copy)]
pub(crate) struct Tenant {
    pub(crate) org: OrgId,
    pub(crate) user: UserId,
    pub(crate) project: ProjectId,
}

impl TestPlatform {
    pub(crate) async fn start(builder: AtriumBuilder) -> Self {
        let atrium = builder.apis(0).start().await;
        let settings = settings(&atrium);
        let db = Database::connect(&settings).await.expect("the database answers");
        let (superuser, redis) = (atrium.superuser().await, atrium.redis_connection().await);
        Self { atrium, db, superuser, redis }
    }

    /// Stores what `POST /v1/orgs` stores.
    pub(crate) async fn request_organization(&self) -> (Tenant, SagaId) {
        let tenant = Tenant { org: OrgId::new(), user: UserId::new(), project: ProjectId::new() };
        let mut tx = self.db.user_tx(tenant.user).await.expect("a transaction");
        sqlx::query("INSERT INTO users (id) VALUES ($1)")
            .bind(tenant.user)
            .execute(tx.conn())
            .await
            .expect("a user");
        tx.commit().await.expect("a commit");
        let mut tx = self.db.create_org_tx(tenant.user, tenant.org).await.expect("a transaction");
        sqlx::query("INSERT INTO orgs (id, name, slug, status) VALUES ($1, 'Acme', $2, 'PENDING')")
            .bind(tenant.org)
            .bind(format!("acme-{}", tenant.org))
            .execute(tx.conn())
            .await
            .expect("an organization");
        sqlx::query(
            "INSERT INTO members (org_id, user_id, user_name, role) VALUES ($1, $2, 'guest-0001', 'owner')",
        )
        .bind(tenant.org)
        .bind(tenant.user)
        .execute(tx.conn())
        .await
        .expect("a member");
        let saga = saga::start(&mut tx, SagaKind::CreateOrganization, tenant.user).await.expect("a saga");
        tx.commit().await.expect("a commit");
        (tenant, saga)
    }

    /// Creates a committed organization with a project.
    pub(crate) async fn tenant(&mut self) -> Tenant {
        let (tenant, saga) = self.request_organization().await;
        until("the organization is active", async || self.saga_status(saga).await == "COMMITTED").await;
        let mut tx = self.db.org_tx(&SYSTEM, tenant.org).await.expect("a transaction");
        sqlx::query("INSERT INTO projects (org_id, id, name) VALUES ($1, $2, 'Rocket')")
            .bind(tenant.org)
            .bind(tenant.project)
            .execute(tx.conn())
            .await
            .expect("a project");
        tx.commit().await.expect("a commit");
        tenant
    }

    /// Adds what `POST …/actions` adds to the stream. Returns the id of the action.
    pub(crate) async fn press(&self, tenant: Tenant, action: ChatAction) -> MessageId {
        Self::press_on(&self.redis, tenant, action).await
    }

    /// Like [`Self::press`], but uses this connection.
    pub(crate) async fn press_on(
        redis: &MultiplexedConnection,
        tenant: Tenant,
        action: ChatAction,
    ) -> MessageId {
        let message = MessageId::new();
        let entry = ActionEntry {
            message,
            org: tenant.org,
            project: tenant.project,
            session: SessionId::new(),
            user: tenant.user,
            user_name: "guest-0001".to_owned(),
            action,
            at: atrium_shared::clock::now(),
        };
        let _: String = redis::AsyncCommands::xadd(
            &mut redis.clone(),
            Inbound::Chat(chat_shard(tenant.project)).to_string(),
            "*",
            &entry.to_fields().expect("text"),
        )
        .await
        .expect("an entry");
        message
    }

    /// The ids of the actions on a project's live stream, in order.
    pub(crate) async fn published(&self, tenant: Tenant) -> Vec<String> {
        let reply: redis::streams::StreamRangeReply = redis::AsyncCommands::xrange_all(
            &mut self.redis.clone(),
            Live::chat_of(tenant.project).to_string(),
        )
        .await
        .expect("a stream");
        // Other projects may share the shard.
        let project = tenant.project.to_string();
        let own = reply.ids.iter().filter(|entry| entry.get("project").as_ref() == Some(&project));
        let data = own.filter_map(|entry| entry.get::<String>("data"));
        data.filter_map(|data| serde_json::from_str::<Value>(&data).ok()?["id"].as_str().map(str::to_owned))
            .collect()
    }

    pub(crate) async fn saga_status(&self, saga: SagaId) -> String {
        let mut connection = self.atrium.superuser().await;
        sqlx::query_scalar("SELECT status FROM sagas WHERE id = $1")
            .bind(saga)
            .fetch_one(&mut connection)
            .await
            .expect("a saga")
    }

    /// Returns the result of a query that selects one integer, as a superuser: the tenant wall does not apply.
    pub(crate) async fn query_i64(&self, query: &str) -> i64 {
        let mut connection = self.atrium.superuser().await;
        sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
            .fetch_one(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Waits until every saga message that is due has been consumed.
    pub(crate) async fn until_all_is_consumed(&self) {
        until("every due message is consumed", async || {
            self.query_i64(
                "SELECT count(*) FROM outbox WHERE topic = 'saga' AND consumed_at IS NULL AND dead_at IS NULL
                    AND (available_at IS NULL OR available_at <= now())",
            )
            .await
                == 0
        })
        .await;
    }
}

fn settings(atrium: &Atrium) -> Settings {
    let urls = atrium.database();
    let variables = [
        ("ATRIUM_DATABASE_URL", urls.app.as_str()),
        ("ATRIUM_WATCHER_DATABASE_URL", urls.watcher.as_str()),
        ("ATRIUM_REDIS_URL", atrium.redis_url()),
    ];
    let mut reader =
        Reader::from_variables(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let settings = reader.common("test");
    reader.finish(settings).expect("the settings are complete")
}
