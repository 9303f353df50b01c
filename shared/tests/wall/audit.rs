//! The audit log is append-only; and tampering is detected.

use atrium_harness::TestDatabase;
use atrium_shared::{
    audit::{self, Action, Change, Verdict},
    db::Database,
    ids::OrgId,
    settings::Pooling,
};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::tenants::{SYSTEM, Tenant, found, through};

/// A database with connections for any number of concurrent writers, and an organization.
async fn scene() -> (TestDatabase, Database, Tenant) {
    let database = TestDatabase::create().await;
    let db = through(&database.urls().app, 8, Pooling::Session).await;
    let tenant = found(&db).await;
    (database, db, tenant)
}

async fn record(db: &Database, tenant: Tenant, name: &str) {
    let mut tx = db.org_tx(&tenant.member(), tenant.org).await.expect("a transaction");
    let change = Change::new(Action::OrganizationRenamed, "organization", tenant.org);
    let change = change.before(json!({ "name": "é\u{1f4a3}" })).after(json!({ "name": name, "n": 1.50 }));
    audit::record(&mut tx, change).await.expect("an entry");
    tx.commit().await.expect("a commit");
}

async fn verify(db: &Database, org: OrgId) -> Verdict {
    let mut tx = db.org_tx(&SYSTEM, org).await.expect("a transaction");
    audit::verify(&mut tx).await.expect("the log can be read")
}

/// The tampering of a superuser who is careful enough to disable triggers.
async fn tamper(connection: &mut PgConnection, org: OrgId, statements: &str) {
    let statements =
        format!("SET session_replication_role = replica; {statements}; RESET session_replication_role")
            .replace("ORG", &format!("'{org}'"));
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await.expect("a superuser may do this");
}

#[tokio::test]
async fn neither_the_application_nor_the_owner_can_rewrite_the_log() {
    let (database, db, tenant) = scene().await;
    record(&db, tenant, "two").await;
    let before = verify(&db, tenant.org).await;
    for statement in [
        "UPDATE audit_log SET action = 'nothing'",
        "UPDATE audit_log SET hash = sha256('')",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        // Columns that only the database sets.
        "INSERT INTO audit_log (org_id, actor_kind, actor_name, action, target_kind, target_id, seq)
         VALUES (ORG, 'system', '', 'x', 'x', 'x', 7)",
        "INSERT INTO audit_log (org_id, actor_kind, actor_name, action, target_kind, target_id, at)
         VALUES (ORG, 'system', '', 'x', 'x', 'x', 'yesterday')",
        "INSERT INTO audit_log (org_id, actor_kind, actor_name, action, target_kind, target_id, hash)
         VALUES (ORG, 'system', '', 'x', 'x', 'x', sha256(''))",
    ] {
        let statement = statement.replace("ORG", &format!("'{}'", tenant.org));
        let mut tx = db.org_tx(&tenant.member(), tenant.org).await.expect("a transaction");
        let refused = sqlx::query(AssertSqlSafe(statement.clone())).execute(tx.conn()).await;
        let error = refused.expect_err(&statement);
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
    }

    let mut owner = database.superuser().await;
    sqlx::raw_sql("SET ROLE atrium_owner").execute(&mut owner).await.expect("a superuser becomes anybody");
    for statement in
        ["UPDATE audit_log SET action = 'nothing'", "TRUNCATE audit_log", "TRUNCATE orgs CASCADE"]
    {
        let refused = sqlx::query(statement).execute(&mut owner).await;
        let error = refused.expect_err(statement).to_string();
        assert!(error.contains("the audit log cannot be rewritten"), "{statement}: {error}");
    }
    let deleted = sqlx::query("DELETE FROM audit_log").execute(&mut owner).await.expect("no error");
    assert_eq!(deleted.rows_affected(), 0, "the forced wall shows even the owner nothing to delete");
    assert_eq!(verify(&db, tenant.org).await, before);
}

#[tokio::test]
async fn tampering_with_the_log_is_found_at_the_right_entry() {
    let (database, db, _) = scene().await;
    let mut superuser = database.superuser().await;
    for (what, statements, broken) in [
        ("a change", "UPDATE audit_log SET after = '{\"name\": \"other\"}' WHERE org_id = ORG AND seq = 3", 3),
        ("another actor", "UPDATE audit_log SET actor_id = gen_random_uuid() WHERE org_id = ORG AND seq = 1", 1),
        ("another time", "UPDATE audit_log SET at = at - interval '1 microsecond' WHERE org_id = ORG AND seq = 5", 5),
        ("a deletion in the middle", "DELETE FROM audit_log WHERE org_id = ORG AND seq = 3", 3),
        ("a deletion of the first", "DELETE FROM audit_log WHERE org_id = ORG AND seq = 1", 1),
        (
            "a deletion that closes the gap",
            "DELETE FROM audit_log WHERE org_id = ORG AND seq = 2;
             UPDATE audit_log SET seq = seq - 10 WHERE org_id = ORG AND seq > 2;
             UPDATE audit_log SET seq = seq + 9 WHERE org_id = ORG AND seq < 0",
            2,
        ),
        (
            "an insertion in the middle",
            "UPDATE audit_log SET seq = seq + 10 WHERE org_id = ORG AND seq >= 3;
             UPDATE audit_log SET seq = seq - 9 WHERE org_id = ORG AND seq >= 13;
             INSERT INTO audit_log SELECT org_id, 3, at, actor_kind, actor_id, actor_name, action, target_kind, target_id,
                                          before, after, sha256('guess') FROM audit_log WHERE org_id = ORG AND seq = 2",
            3,
        ),
        (
            "an insertion at the end",
            "INSERT INTO audit_log SELECT org_id, 6, at, actor_kind, actor_id, actor_name, action, target_kind, target_id,
                                          before, after, hash FROM audit_log WHERE org_id = ORG AND seq = 5",
            6,
        ),
        (
            "another order",
            "UPDATE audit_log SET seq = 0 WHERE org_id = ORG AND seq = 2;
             UPDATE audit_log SET seq = 2 WHERE org_id = ORG AND seq = 3;
             UPDATE audit_log SET seq = 3 WHERE org_id = ORG AND seq = 0",
            2,
        ),
        // Content may not move from one field into the next.
        (
            "a shift between fields",
            "UPDATE audit_log SET target_kind = target_kind || left(target_id, 1), target_id = substr(target_id, 2)
              WHERE org_id = ORG AND seq = 4",
            4,
        ),
    ] {
        let tenant = found(&db).await;
        for number in 1..=5 {
            record(&db, tenant, &format!("name {number}")).await;
        }
        let Verdict::Whole { entries: 5, last: Some(_) } = verify(&db, tenant.org).await else {
            panic!("five entries, untouched");
        };
        tamper(&mut superuser, tenant.org, statements).await;
        assert_eq!(verify(&db, tenant.org).await, Verdict::Broken { seq: broken }, "{what}");
    }
}

#[tokio::test]
async fn a_truncated_log_is_detected_by_a_recorded_hash() {
    let (database, db, tenant) = scene().await;
    for number in 1..=5 {
        record(&db, tenant, &format!("name {number}")).await;
    }
    let noted = verify(&db, tenant.org).await;
    tamper(
        &mut database.superuser().await,
        tenant.org,
        "DELETE FROM audit_log WHERE org_id = ORG AND seq > 3",
    )
    .await;
    let cut = verify(&db, tenant.org).await;
    assert!(matches!(cut, Verdict::Whole { entries: 3, .. }), "{cut:?}");
    // As many entries again make another chain.
    for number in 4..=5 {
        record(&db, tenant, &format!("name {number}")).await;
    }
    let remade = verify(&db, tenant.org).await;
    assert!(matches!(remade, Verdict::Whole { entries: 5, .. }), "{remade:?}");
    assert_ne!(remade, noted);
}

#[tokio::test]
async fn concurrent_writers_make_one_chain_without_gaps() {
    const WRITERS: i64 = 8;
    const EACH: i64 = 25;
    let (_database, db, tenant) = scene().await;
    let neighbor = found(&db).await;
    let writers = (0..WRITERS).map(|writer| {
        let db = db.clone();
        tokio::spawn(async move {
            for number in 0..EACH {
                record(&db, tenant, &format!("{writer}/{number}")).await;
                // What is rolled back takes its number back.
                let mut tx = db.org_tx(&neighbor.member(), neighbor.org).await.expect("a transaction");
                let change = Change::new(Action::OrganizationRenamed, "organization", neighbor.org);
                audit::record(&mut tx, change).await.expect("an entry");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("every writer gets through");
    }
    let verdict = verify(&db, tenant.org).await;
    assert!(matches!(verdict, Verdict::Whole { entries, .. } if entries == WRITERS * EACH), "{verdict:?}");
    assert_eq!(verify(&db, neighbor.org).await, Verdict::Whole { entries: 0, last: None });
}
