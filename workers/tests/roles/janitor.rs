//! What has served its purpose is deleted, also when nobody who used it comes back.

use atrium_devstack::testing::Atrium;

use crate::platform::{Platform, until};

#[tokio::test]
async fn a_janitor_deletes_what_users_who_never_come_back_leave_behind() {
    let mut platform = Platform::start(Atrium::builder().workers([])).await;
    let (tenant, _) = platform.ask_for_organization().await;
    for statement in [
        "INSERT INTO idempotency_keys (user_id, route, key, fingerprint, status, headers, body, created_at)
         VALUES ($1, 'POST /v1/orgs', 'old', '', 202, '{}', '\"\"', now() - interval '25 hours'),
                ($1, 'POST /v1/orgs', 'new', '', 202, '{}', '\"\"', now() - interval '1 hour')",
        "INSERT INTO refresh_families (user_id, id, started_at, expires_at)
         VALUES ($1, gen_random_uuid(), now() - interval '31 days', now() - interval '1 day'),
                ($1, gen_random_uuid(), now(), now() + interval '30 days')",
    ] {
        sqlx::query(statement).bind(tenant.user).execute(&mut platform.superuser).await.expect("old rows");
    }
    platform.atrium.add_worker(Some("janitor")).await;
    let left = "SELECT (SELECT count(*) FROM idempotency_keys) + (SELECT count(*) FROM refresh_families)";
    until("what is over is gone", async || platform.number(left).await == 2).await;
    let new =
        "SELECT count(*) FROM idempotency_keys, refresh_families WHERE key = 'new' AND expires_at > now()";
    assert_eq!(platform.number(new).await, 1);
}
