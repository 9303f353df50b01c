//! The history of a configuration is deleted only with an organization that never opened, or that is purged.

use atrium_harness::TestDatabase;
use atrium_shared::{
    configuration::write::{Change, apply},
    db::{Database, DbError},
    ids::OrgId,
    settings::Pooling,
};
use serde_json::json;
use sqlx::PgConnection;

use crate::tenants::{SYSTEM, found, through};

async fn delete_head(db: &Database, org: OrgId) -> Result<(), DbError> {
    let mut tx = db.org_tx(&SYSTEM, org).await?;
    sqlx::query("DELETE FROM config_heads WHERE org_id = $1").bind(org).execute(tx.conn()).await?;
    tx.commit().await
}

async fn status(superuser: &mut PgConnection, org: OrgId, status: &'static str) {
    sqlx::query(
        "UPDATE orgs SET status = $2, deletion_id = CASE $2 WHEN 'DELETING' THEN gen_random_uuid() END,
                         delete_at = CASE $2 WHEN 'DELETING' THEN now() END WHERE id = $1",
    )
    .bind(org)
    .bind(status)
    .execute(superuser)
    .await
    .expect("a superuser may");
}

#[tokio::test]
async fn configuration_history_is_deleted_only_with_its_organization() {
    let database = TestDatabase::create().await;
    let db = through(&database.urls().app, 2, Pooling::Session).await;
    let mut superuser = database.superuser().await;
    for ends_as in ["PENDING", "DELETING"] {
        let org = found(&db).await.org;
        let mut tx = db.org_tx(&SYSTEM, org).await.expect("a transaction");
        let change = Change {
            project: None,
            key: "chat.max_active_sessions".to_owned(),
            value: Some(json!(5)),
            author: None,
            reason: "a test".to_owned(),
            expected_revision: None,
        };
        apply(&mut tx, change).await.expect("a change");
        tx.commit().await.expect("a commit");
        let kept = async |superuser: &mut PgConnection| {
            sqlx::query_scalar::<_, i64>(
                "SELECT (SELECT count(*) FROM config_history WHERE org_id = $1)
                      + (SELECT count(*) FROM config_values WHERE org_id = $1)",
            )
            .bind(org)
            .fetch_one(superuser)
            .await
            .expect("a count")
        };

        for used in ["COMMITTED", "FAILED", "DELETING"] {
            status(&mut superuser, org, used).await;
            let refused = delete_head(&db, org).await;
            assert!(
                matches!(&refused, Err(DbError::Constraint(name)) if name == "config_heads_deleted_while_pending"),
                "{used}: {refused:?}"
            );
        }
        assert_eq!(kept(&mut superuser).await, 2);

        status(&mut superuser, org, ends_as).await;
        if ends_as == "PENDING" {
            delete_head(&db, org).await.expect("it never opened");
        } else {
            let mut tx = db.org_tx(&SYSTEM, org).await.expect("a transaction");
            sqlx::query("DELETE FROM orgs WHERE id = $1")
                .bind(org)
                .execute(tx.conn())
                .await
                .expect("it is over");
            tx.commit().await.expect("a commit");
        }
        assert_eq!(kept(&mut superuser).await, 0, "{ends_as}");
    }
}
