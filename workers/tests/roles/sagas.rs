//! Sagas end in exactly one state, and every effect is performed once or compensated.

use atrium_harness::{Atrium, TiedRace, service::Service};
use atrium_servers::postgres::Durability;
use atrium_shared::{
    ids::SagaId,
    saga::{self, SagaKind},
};
use serde_json::json;

use crate::platform::{SYSTEM, Tenant, TestPlatform, until};

const STEPS: [&str; 4] = ["reserve", "default-configuration", "isolation-gate", "commit"];

async fn events(platform: &TestPlatform, tenant: Tenant, saga: SagaId) -> Vec<(i64, Option<String>, String)> {
    let mut tx = platform.db.org_tx(&SYSTEM, tenant.org).await.expect("a transaction");
    let events = saga::events_after(&mut tx, saga, 0).await.expect("events");
    events.into_iter().map(|event| (event.seq, event.step, event.status)).collect()
}

/// The effects of creating an organization: slugs, members, configurations, and the status of the organization.
async fn effects(platform: &TestPlatform, tenant: Tenant) -> (i64, i64, i64, String) {
    let org = tenant.org;
    let status = sqlx::query_scalar("SELECT status FROM orgs WHERE id = $1")
        .bind(org)
        .fetch_one(&mut platform.atrium.superuser().await)
        .await
        .expect("the organization");
    (
        platform.query_i64(&format!("SELECT count(*) FROM org_slugs WHERE org_id = '{org}'")).await,
        platform.query_i64(&format!("SELECT count(*) FROM members WHERE org_id = '{org}'")).await,
        platform
            .query_i64(&format!("SELECT count(*) FROM config_heads WHERE org_id = '{org}' AND revision = 1"))
            .await,
        status,
    )
}

#[tokio::test]
async fn every_step_is_done_in_order_and_the_organization_is_active() {
    let platform = TestPlatform::start(Atrium::builder()).await;
    let (tenant, saga) = platform.request_organization().await;
    until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;

    let mut expected: Vec<_> =
        (1..).zip(STEPS).map(|(seq, step)| (seq, Some(step.to_owned()), "DONE".to_owned())).collect();
    expected.push((5, None, "COMMITTED".to_owned()));
    assert_eq!(events(&platform, tenant, saga).await, expected);
    assert_eq!(effects(&platform, tenant).await, (1, 1, 1, "COMMITTED".to_owned()));

    let mut tx = platform.db.operation_tx(tenant.user, saga).await.expect("the founder may read it");
    let operation = saga::operation(&mut tx, saga).await.expect("an operation");
    assert_eq!(operation.steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), STEPS);
    assert!(operation.finished_at.is_some() && operation.failure.is_none());
}

#[tokio::test]
async fn a_failing_step_compensates_the_steps_before_it_in_reverse_order() {
    let platform = TestPlatform::start(Atrium::builder()).await;
    for (at, step) in STEPS.iter().enumerate() {
        platform
            .atrium
            .set_default("saga.fail_step", json!(format!("{}/{step}", SagaKind::CreateOrganization.name())))
            .await;
        // The workers need some milliseconds to read the configuration. A saga that is faster is COMMITTED; then this
        // tries again.
        let (tenant, saga) = loop {
            let (tenant, saga) = platform.request_organization().await;
            until("the saga ends", async || {
                ["COMMITTED", "FAILED"].contains(&platform.saga_status(saga).await.as_str())
            })
            .await;
            let events = events(&platform, tenant, saga).await;
            if events.iter().any(|(_, failed, status)| failed.as_deref() == Some(*step) && status == "FAILED")
            {
                break (tenant, saga);
            }
        };
        let recorded: Vec<_> = events(&platform, tenant, saga)
            .await
            .into_iter()
            .map(|(_, step, status)| (step, status))
            .collect();
        let done = STEPS[..at].iter().map(|step| (Some((*step).to_owned()), "DONE".to_owned()));
        let failed = [(Some((*step).to_owned()), "FAILED".to_owned())];
        let compensated =
            STEPS[..at].iter().rev().map(|step| (Some((*step).to_owned()), "COMPENSATED".to_owned()));
        let expected: Vec<_> =
            done.chain(failed).chain(compensated).chain([(None, "FAILED".to_owned())]).collect();
        assert_eq!(recorded, expected);
        assert_eq!(effects(&platform, tenant).await, (0, 0, 0, "FAILED".to_owned()), "{step}");

        let mut tx = platform
            .db
            .operation_tx(tenant.user, saga)
            .await
            .expect("the founder may read it after the failure");
        let operation = saga::operation(&mut tx, saga).await.expect("an operation");
        assert_eq!(operation.failure.expect("a reason").code, "drill");
        let statuses: Vec<&str> = operation.steps.iter().map(|step| step.status.name()).collect();
        let mut expected = vec!["COMPENSATED"; at];
        expected.push("FAILED");
        expected.resize(STEPS.len(), "PENDING");
        assert_eq!(statuses, expected);
    }
}

#[tokio::test]
async fn a_saga_past_its_deadline_is_compensated() {
    let mut platform = TestPlatform::start(Atrium::builder().workers(["relay"])).await;
    let (tenant, saga) = platform.request_organization().await;
    sqlx::query("UPDATE sagas SET deadline_at = now() - interval '1 second' WHERE id = $1")
        .bind(saga)
        .execute(&mut platform.superuser)
        .await
        .expect("an hour passes");
    platform.atrium.add_worker(Some("saga")).await;
    until("FAILED", async || platform.saga_status(saga).await == "FAILED").await;
    // No step had begun, but what the request stored is compensated.
    let expected =
        [(1, Some("reserve".to_owned()), "COMPENSATED".to_owned()), (2, None, "FAILED".to_owned())];
    assert_eq!(events(&platform, tenant, saga).await, expected);
    assert_eq!(effects(&platform, tenant).await, (0, 0, 0, "FAILED".to_owned()));
}

#[tokio::test]
async fn a_terminal_state_is_final_even_for_a_superuser() {
    let mut platform = TestPlatform::start(Atrium::builder()).await;
    let (_, saga) = platform.request_organization().await;
    until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    let error = sqlx::query("UPDATE sagas SET status = 'PENDING', finished_at = NULL WHERE id = $1")
        .bind(saga)
        .execute(&mut platform.superuser)
        .await
        .expect_err("even a superuser is refused");
    let constraint = error.as_database_error().and_then(|error| error.constraint());
    assert_eq!(constraint, Some("sagas_terminal_is_final"));
}

#[tokio::test]
async fn workers_killed_repeatedly_perform_every_effect_once() {
    let platform = TestPlatform::start(Atrium::builder().full_workers(2)).await;
    let mut requested = Vec::new();
    for round in 0..6_usize {
        for _ in 0..10 {
            requested.push(platform.request_organization().await);
        }
        platform.atrium.worker(round % 2).restart().await.expect("the worker starts again");
    }
    for (tenant, saga) in &requested {
        until("COMMITTED", async || platform.saga_status(*saga).await == "COMMITTED").await;
        assert_eq!(effects(&platform, *tenant).await, (1, 1, 1, "COMMITTED".to_owned()));
        assert_eq!(
            events(&platform, *tenant, *saga).await.len(),
            STEPS.len() + 1,
            "each step is recorded once"
        );
    }
    platform.until_all_is_consumed().await;
}

#[tokio::test]
async fn postgresql_restarted_in_the_middle_leaves_no_partial_effects() {
    let platform = TestPlatform::start(Atrium::builder().private_postgres(Durability::Durable)).await;
    let mut requested = Vec::new();
    for _ in 0..20 {
        requested.push(platform.request_organization().await);
    }
    platform.atrium.postgres().sigkill().await;
    platform.atrium.postgres().respawn().await.expect("PostgreSQL starts again");
    for (tenant, saga) in &requested {
        until("COMMITTED", async || platform.saga_status(*saga).await == "COMMITTED").await;
        assert_eq!(effects(&platform, *tenant).await, (1, 1, 1, "COMMITTED".to_owned()));
    }
}

#[tokio::test]
async fn a_compensation_that_fails_ten_times_raises_an_alarm_and_is_retried_until_it_succeeds() {
    let platform =
        TestPlatform::start(Atrium::builder().default_value(
            "saga.fail_step",
            json!(format!("{}/commit", SagaKind::CreateOrganization.name())),
        ))
        .await;
    let superuser = async |statement: &'static str| {
        sqlx::raw_sql(statement).execute(&mut platform.atrium.superuser().await).await.expect("done");
    };
    superuser("REVOKE DELETE ON org_slugs FROM atrium_app").await;
    let (tenant, saga) = platform.request_organization().await;
    let tries_query = format!(
        "SELECT compensation_attempts::bigint FROM saga_steps WHERE saga_id = '{saga}' AND name = 'reserve'"
    );
    until("ten tries", async || {
        // Skips the growing pauses between tries, which are not tested here.
        superuser("UPDATE outbox SET available_at = now() WHERE published_at IS NULL AND payload->>'wake' = 'advance'")
            .await;
        sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(tries_query.clone()))
            .fetch_optional(&mut platform.atrium.superuser().await)
            .await
            .expect("a number")
            .is_some_and(|tries| tries >= 10)
    })
    .await;
    assert_eq!(platform.saga_status(saga).await, "COMPENSATING");
    until("the alarm", async || platform.atrium.worker(0).logs().contains("a compensation does not work"))
        .await;
    superuser("GRANT DELETE ON org_slugs TO atrium_app").await;
    until("FAILED", async || platform.saga_status(saga).await == "FAILED").await;
    assert_eq!(effects(&platform, tenant).await, (0, 0, 0, "FAILED".to_owned()));
    let events = events(&platform, tenant, saga).await;
    let compensated = events.iter().filter(|(_, _, status)| status == "COMPENSATED");
    assert_eq!(compensated.count(), 3, "each step is compensated once: {events:?}");
}

#[tokio::test]
async fn a_saga_whose_deadline_races_its_commit_ends_in_one_state() {
    let mut platform = TestPlatform::start(Atrium::builder().full_workers(2)).await;
    let mut race = TiedRace::default();
    for _ in 0..40 {
        let workers = [platform.atrium.worker(0), platform.atrium.worker(1)];
        workers.into_iter().for_each(Service::suspend);
        let (tenant, saga) = platform.request_organization().await;
        let superuser = &mut platform.superuser;
        let deadline_passes = async {
            for overdue in [
                "UPDATE sagas SET deadline_at = clock_timestamp() WHERE id = $1 AND status = 'PENDING'",
                "UPDATE outbox SET available_at = clock_timestamp()
                  WHERE aggregate_id = $1 AND payload->>'wake' = 'deadline'",
            ] {
                sqlx::query(overdue).bind(saga).execute(&mut *superuser).await.expect("the deadline passes");
            }
        };
        race.run(deadline_passes, async { workers.into_iter().for_each(Service::resume) }).await;
        until("the saga ends", async || {
            ["COMMITTED", "FAILED"].contains(&platform.saga_status(saga).await.as_str())
        })
        .await;
        let status = platform.saga_status(saga).await;
        let expected = if status == "COMMITTED" { (1, 1, 1) } else { (0, 0, 0) };
        let (slugs, members, configurations, org) = effects(&platform, tenant).await;
        assert_eq!(((slugs, members, configurations), &org), (expected, &status));
        let events = events(&platform, tenant, saga).await;
        let ends: Vec<&str> =
            events.iter().filter(|(_, step, _)| step.is_none()).map(|(.., status)| status.as_str()).collect();
        assert_eq!(ends, [status.as_str()], "the end is recorded once");
        race.ended(status == "FAILED");
    }
    race.was_open();
    platform.until_all_is_consumed().await;
}

#[tokio::test]
async fn terminated_backends_and_serialization_failures_are_retried_and_leave_no_partial_effects() {
    let mut platform = TestPlatform::start(Atrium::builder().full_workers(2)).await;
    // Of five inserts into a saga's journal, one fails with a serialization failure and one with a deadlock.
    sqlx::raw_sql(
        "CREATE SEQUENCE unlucky;
         CREATE FUNCTION unlucky() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         DECLARE turn bigint := nextval('unlucky');
         BEGIN
             IF turn % 5 = 1 THEN RAISE EXCEPTION 'a serialization failure' USING ERRCODE = 'serialization_failure'; END IF;
             IF turn % 5 = 3 THEN RAISE EXCEPTION 'a deadlock' USING ERRCODE = 'deadlock_detected'; END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER unlucky AFTER INSERT ON saga_events FOR EACH STATEMENT EXECUTE FUNCTION unlucky()",
    )
    .execute(&mut platform.superuser)
    .await
    .expect("a trigger");
    let mut requested = Vec::new();
    for _ in 0..20 {
        requested.push(platform.request_organization().await);
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = current_database() AND usename = 'atrium_app' AND application_name LIKE 'workers%'
              ORDER BY random() LIMIT 2",
        )
        .execute(&mut platform.superuser)
        .await
        .expect("terminated");
    }
    for (tenant, saga) in &requested {
        until("COMMITTED", async || platform.saga_status(*saga).await == "COMMITTED").await;
        assert_eq!(effects(&platform, *tenant).await, (1, 1, 1, "COMMITTED".to_owned()));
        assert_eq!(
            events(&platform, *tenant, *saga).await.len(),
            STEPS.len() + 1,
            "each step is recorded once"
        );
    }
    platform.until_all_is_consumed().await;
    assert_eq!(platform.query_i64("SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL").await, 0);
}
