//! What most tests here begin with: tenants in a database of their own, and a way in as the application.

use atrium_harness::TestDatabase;
use atrium_shared::{
    db::{Database, Principal},
    ids::{OrgId, ProjectId, UserId},
    settings::{Pooling, Secret},
};
use sqlx::AssertSqlSafe;

pub(crate) const SYSTEM: Principal = Principal::System("test");

/// Two organizations with a member and a project each, on a single connection: every transaction gets the connection
/// that was used before.
pub(crate) struct Two {
    pub(crate) database: TestDatabase,
    pub(crate) db: Database,
    pub(crate) ours: Tenant,
    pub(crate) theirs: Tenant,
}

#[derive(Clone, Copy)]
pub(crate) struct Tenant {
    pub(crate) org: OrgId,
    pub(crate) user: UserId,
    pub(crate) project: ProjectId,
}

impl Tenant {
    /// Its member, as whom requests act.
    pub(crate) fn member(&self) -> Principal {
        Principal::User(self.user)
    }
}

pub(crate) async fn two() -> Two {
    let database = TestDatabase::create().await;
    let db = through(&database.urls().app, 1, Pooling::Session).await;
    let (ours, theirs) = (found(&db).await, found(&db).await);
    Two { database, db, ours, theirs }
}

/// The application's way in, with this number of connections.
pub(crate) async fn through(url: &str, connections: u32, pooling: Pooling) -> Database {
    Database::connect_to(&Secret::from(url.to_owned()), connections, "test", pooling)
        .await
        .expect("the database answers")
}

pub(crate) async fn found(db: &Database) -> Tenant {
    let tenant = Tenant { org: OrgId::new(), user: UserId::new(), project: ProjectId::new() };
    let mut tx = db.user_tx(tenant.user).await.expect("a user's transaction");
    sqlx::query("INSERT INTO users (id) VALUES ($1)")
        .bind(tenant.user)
        .execute(tx.conn())
        .await
        .expect("a user");
    tx.commit().await.expect("a commit");
    let mut tx = db.create_org_tx(tenant.user, tenant.org).await.expect("a founder's transaction");
    for statement in [
        "INSERT INTO orgs (id, name, slug, status) VALUES ($1, 'one', 'one', 'COMMITTED')",
        "INSERT INTO members (org_id, user_id, user_name, role) VALUES ($1, $2, 'guest', 'owner')",
        "INSERT INTO projects (org_id, id, name) VALUES ($1, $3, 'one')",
        "INSERT INTO config_heads (org_id, revision) VALUES ($1, 1)",
    ] {
        // Every parameter is bound for every statement; the cast keeps the unused ones typed.
        let statement = format!("WITH unused AS (SELECT $1::uuid, $2::uuid, $3::uuid) {statement}");
        sqlx::query(AssertSqlSafe(statement))
            .bind(tenant.org)
            .bind(tenant.user)
            .bind(tenant.project)
            .execute(tx.conn())
            .await
            .expect("an organization's row");
    }
    tx.commit().await.expect("a commit");
    tenant
}
