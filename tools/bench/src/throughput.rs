//! Rows a second: through the relay without consumers, and through the consumers with everything published.
//!
//! The messages are configuration changes of 64 organizations, whose only effect is an event for the other
//! processes, so this measures the path and not the work at its end.

use std::time::{Duration, Instant};

use atrium_harness::Atrium;
use atrium_shared::ids::OrgId;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::floor;

const ORGS: usize = 64;
const ROWS: usize = 30_000;

/// By 1, 2 and 4 relays.
pub(crate) async fn relay() -> anyhow::Result<()> {
    for relays in [1, 2, 4] {
        let mut atrium = Atrium::builder().apis(0).workers([]).start().await;
        let mut connection = atrium.superuser().await;
        let orgs = organizations(&mut connection).await?;
        add_messages(&mut connection, &orgs, ROWS / ORGS).await?;
        let floor = floor::stream_entries(&atrium).await?;
        for _ in 0..relays {
            atrium.add_worker(Some("relay")).await;
        }
        let rate = rate(&mut connection, "published_at").await?;
        println!(
            "relay, {relays} process(es): {rate:.0} rows/s; floor {floor:.0} entries/s added by one connection, {:.2} of it",
            rate / floor
        );
    }
    Ok(())
}

/// By 1, 2 and 4 processes.
pub(crate) async fn consumers() -> anyhow::Result<()> {
    for processes in [1, 2, 4] {
        let mut atrium = Atrium::builder().apis(0).workers(["relay"]).start().await;
        let mut connection = atrium.superuser().await;
        let orgs = organizations(&mut connection).await?;
        let floor = floor::transactions(&atrium).await?;
        add_messages(&mut connection, &orgs, ROWS / ORGS).await?;
        until_none(&mut connection, "published_at IS NULL").await?;
        for _ in 0..processes {
            atrium.add_worker(Some("config")).await;
        }
        let rate = rate(&mut connection, "consumed_at").await?;
        println!(
            "consumers, {processes} process(es): {rate:.0} messages/s; floor {floor:.0} bare transactions/s, {:.2} of it",
            rate / floor
        );
    }
    Ok(())
}

/// Creates the organizations of the messages.
pub(crate) async fn organizations(connection: &mut PgConnection) -> anyhow::Result<Vec<OrgId>> {
    let orgs: Vec<OrgId> = (0..ORGS).map(|_| OrgId::new()).collect();
    for org in &orgs {
        sqlx::query("INSERT INTO orgs (id, name, slug, status) VALUES ($1, 'Acme', $2, 'COMMITTED')")
            .bind(org)
            .bind(format!("acme-{org}"))
            .execute(&mut *connection)
            .await?;
    }
    Ok(orgs)
}

/// Adds this many messages for each organization.
pub(crate) async fn add_messages(
    connection: &mut PgConnection,
    orgs: &[OrgId],
    each: usize,
) -> anyhow::Result<()> {
    let orgs: Vec<String> = orgs.iter().map(ToString::to_string).collect();
    sqlx::query(
        "INSERT INTO outbox (org_id, message_id, topic, aggregate_id, payload)
         SELECT org, gen_random_uuid(), 'config', org, '{\"revision\":1}'
           FROM generate_series(1, $2) AS turn, unnest($1::text[]::uuid[]) AS org ORDER BY turn",
    )
    .bind(orgs)
    .bind(i32::try_from(each)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// Waits until no message matches the condition.
pub(crate) async fn until_none(connection: &mut PgConnection, condition: &'static str) -> anyhow::Result<()> {
    let query = format!("SELECT EXISTS (SELECT FROM outbox WHERE {condition})");
    while sqlx::query_scalar::<_, bool>(AssertSqlSafe(query.clone())).fetch_one(&mut *connection).await? {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// How many messages a second got this timestamp, from the first to the last of them.
async fn rate(connection: &mut PgConnection, column: &'static str) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let none: &'static str =
        if column == "published_at" { "published_at IS NULL" } else { "consumed_at IS NULL" };
    until_none(connection, none).await?;
    anyhow::ensure!(begun.elapsed() < Duration::from_secs(600), "too slow to measure");
    let query = format!(
        "SELECT count(*)::float8 / EXTRACT(EPOCH FROM max({column}) - min({column}))::float8 FROM outbox"
    );
    Ok(sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(connection).await?)
}
