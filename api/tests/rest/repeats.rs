//! Repeated requests: a create with an idempotency key takes effect once, even if the first attempt failed midway.

use std::{collections::BTreeSet, time::Duration};

use atrium_contract::Reply;
use atrium_harness::{
    Atrium,
    client::Request,
    guest::{Guest, patiently},
};
use http::header::LOCATION;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::{CheckedSend as _, operations::Operation, until, world::World};

#[test]
fn every_create_is_repeatable_or_documents_why_not() {
    for operation in Operation::all() {
        let documented = operation.repeatable || operation.not_repeatable.is_some();
        assert_eq!(
            (operation.creates(), operation.repeatable && operation.not_repeatable.is_some()),
            (documented, false),
            "{}: operations that answer 201 or 202 document either `Idempotency-Key` or `x-not-repeatable`, others neither",
            operation.id
        );
    }
}

#[tokio::test]
async fn every_create_takes_effect_once_per_idempotency_key() {
    let atrium = Atrium::start().await;
    let world = World::create(&atrium, &["admin"]).await;
    let mut creates = 0;
    for operation in Operation::all().iter().filter(|operation| operation.repeatable) {
        creates += 1;
        let (media_type, body) = operation.valid_body().unwrap();
        let create = |role: &'static str, body: String| {
            let request = operation
                .without_body(&world.people[role].client, |name| world.own(operation, role, name))
                .idempotency_key("key-1");
            request.body(media_type, body)
        };
        let first = create("owner", body.clone()).send().await.unwrap();
        assert!([201, 202].contains(&first.code()), "{}", first.describe());
        if let Some(location) = first.header("location") {
            let created = world.people["owner"].client.get(location).answers(200).await;
            assert_eq!(created.at("/id"), first.at("/id"), "{location}");
        }
        let again = create("owner", body.clone()).send().await.unwrap();
        if again.code() == 409 {
            // The response contains a secret and is not stored. `Location` names the resource, so that it can be
            // deleted.
            let again = again.must_be(409, "response_not_stored");
            assert_eq!(again.headers[LOCATION], first.headers[LOCATION]);
            assert!(again.header("location").unwrap().ends_with(&first.at("/id")));
        } else {
            assert_eq!(
                (again.status, &again.body, again.headers.get(LOCATION), again.etag()),
                (first.status, &first.body, first.headers.get(LOCATION), first.etag()),
                "{}",
                operation.id
            );
            assert_eq!(
                (first.header("idempotent-replayed"), again.header("idempotent-replayed")),
                (None, Some("true"))
            );
        }
        // A different body is a different request, and the same key of another caller is a different key.
        create("owner", format!("{body} ")).refused(422, "idempotency_key_reused").await;
        let other = create("admin", body).send().await.unwrap().must(first.code());
        assert_ne!(other.at("/id"), first.at("/id"), "{}", operation.id);
    }
    assert!(creates >= 4, "{creates}");
    // Stored responses contain no invitation codes and no API keys.
    let secrets: i64 =
        sqlx::query_scalar("SELECT count(*) FROM idempotency_keys WHERE body::text LIKE '%code%' OR position('atk_' in body::text) > 0")
            .fetch_one(&mut atrium.superuser().await)
            .await
            .unwrap();
    assert_eq!(secrets, 0);
}

/// A request that creates the organization `name` with the idempotency key `key`.
fn create(guest: &Guest, name: &str, key: &str) -> Request {
    guest.client.post("/v1/orgs").json(json!({ "name": name })).idempotency_key(key)
}

/// The numbers of organizations of this name and of their operations.
async fn counts(atrium: &Atrium, name: &str) -> (i64, i64) {
    sqlx::query_as(
        "SELECT (SELECT count(*) FROM orgs WHERE name = $1),
                (SELECT count(*) FROM sagas JOIN orgs ON orgs.id = sagas.org_id WHERE orgs.name = $1)",
    )
    .bind(name)
    .fetch_one(&mut atrium.superuser().await)
    .await
    .unwrap()
}

/// Blocks every create of an organization in the middle of its transaction, until the returned connection is closed.
async fn block_creates(atrium: &Atrium) -> PgConnection {
    let mut connection = atrium.superuser().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE outbox IN EXCLUSIVE MODE").execute(&mut connection).await.unwrap();
    connection
}

/// Waits until a create is blocked by [`block_creates`]. The relay, which has a role of its own, is blocked as well.
async fn until_create_blocked(atrium: &Atrium) {
    let mut connection = atrium.superuser().await;
    let waits = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
                  WHERE NOT granted AND relation = 'outbox'::regclass AND usename = 'atrium_app'
                    AND datname = current_database()";
    until("a create waits for the lock", async || {
        sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut connection).await.unwrap() > 0
    })
    .await;
}

#[tokio::test]
async fn fifty_concurrent_creates_make_one_organization() {
    let atrium = Atrium::builder().apis(2).start().await;
    let guest = atrium.guest().await;
    let elsewhere = Guest { client: guest.client.at(atrium.api(1).url()), ..guest.clone() };
    let concurrent: Vec<_> = (0..50)
        .map(|number| {
            let guest = if number % 2 == 0 { &guest } else { &elsewhere };
            tokio::spawn(create(guest, "Storm", "key-1").send())
        })
        .collect();
    let mut ids = BTreeSet::new();
    for reply in concurrent {
        let reply = reply.await.unwrap().unwrap();
        match reply.code() {
            202 => drop(ids.insert(reply.at("/id"))),
            _ => drop(reply.must_be(409, "idempotency_in_flight")),
        }
    }
    assert_eq!((ids.len(), counts(&atrium, "Storm").await), (1, (1, 1)));
    // Another process returns the same organization. The same key of another tenant is a different key.
    assert!(ids.contains(&create(&elsewhere, "Storm", "key-1").answers(202).await.at("/id")));
    let other = create(&atrium.guest().await, "Storm", "key-1").answers(202).await;
    assert!(!ids.contains(&other.at("/id")));
}

#[tokio::test]
async fn a_repeated_create_is_rejected_while_the_first_is_in_progress() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let blocker = block_creates(&atrium).await;
    let first = tokio::spawn(create(&guest, "Slow", "key-1").send());
    until_create_blocked(&atrium).await;
    let early = create(&guest, "Slow", "key-1").refused(409, "idempotency_in_flight").await;
    assert_eq!(early.header("retry-after"), Some("1"));
    blocker.close().await.unwrap();
    let first = first.await.unwrap().unwrap().must(202);
    assert_eq!(create(&guest, "Slow", "key-1").answers(202).await.body, first.body);
    assert_eq!(counts(&atrium, "Slow").await, (1, 1));
}

/// Repeats the create until it succeeds, and asserts that exactly one organization exists and is committed.
async fn assert_completed_once(atrium: &Atrium, guest: &Guest, name: &str, key: &str) -> Reply {
    let reply = patiently(|| create(guest, name, key)).await.unwrap().must(202);
    assert_eq!(counts(atrium, name).await, (1, 1), "{name}");
    guest.committed(&reply.at("/operation_id")).await.unwrap();
    assert_eq!(create(guest, name, key).answers(202).await.body, reply.body);
    reply
}

#[tokio::test]
async fn a_create_can_be_repeated_after_a_lost_database_connection() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let blocker = block_creates(&atrium).await;
    let first = tokio::spawn(create(&guest, "Cut", "key-1").send());
    until_create_blocked(&atrium).await;
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND usename = 'atrium_app'",
    )
    .execute(&mut atrium.superuser().await)
    .await
    .unwrap();
    let refused = first.await.unwrap().unwrap().must_be(503, "unavailable");
    assert!(refused.header("retry-after").is_some());
    blocker.close().await.unwrap();
    assert_eq!(counts(&atrium, "Cut").await, (0, 0), "a request that failed with 503 had no effect");
    assert_completed_once(&atrium, &guest, "Cut", "key-1").await;
}

#[tokio::test]
async fn a_create_can_be_repeated_after_a_killed_process() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    // First in the middle of the transaction, then at arbitrary points of the create.
    for round in 0..6_u64 {
        let name = format!("Killed-{round}");
        let blocker = if round == 0 { Some(block_creates(&atrium).await) } else { None };
        let first = tokio::spawn(create(&guest, &name, &name).send());
        match blocker {
            Some(blocker) => {
                until_create_blocked(&atrium).await;
                atrium.api(0).sigkill().await;
                blocker.close().await.unwrap();
                assert!(first.await.unwrap().is_err(), "a killed process sent a response");
            }
            None => {
                tokio::time::sleep(Duration::from_millis(round * 3)).await;
                atrium.api(0).sigkill().await;
                drop(first.await.unwrap());
            }
        }
        atrium.api(0).respawn().await.unwrap();
        assert_completed_once(&atrium, &guest, &name, &name).await;
    }
}

#[tokio::test]
async fn an_idempotency_key_is_kept_for_a_day_per_route() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let first = create(&guest, "Once", "key-1").answers(202).await;
    guest.committed(&first.at("/operation_id")).await.unwrap();
    let age = |interval: &'static str| {
        let age = format!("UPDATE idempotency_keys SET created_at = now() - interval '{interval}'");
        async {
            sqlx::raw_sql(sqlx::AssertSqlSafe(age)).execute(&mut atrium.superuser().await).await.unwrap()
        }
    };
    age("23 hours 59 minutes").await;
    assert_eq!(create(&guest, "Once", "key-1").answers(202).await.body, first.body);
    let project = guest.client.post(format!("/v1/orgs/{}/projects", first.at("/id")));
    project.json(json!({ "name": "Once" })).idempotency_key("key-1").answers(201).await;
    age("24 hours 1 minute").await;
    let second = create(&guest, "Once", "key-1").answers(202).await;
    assert_ne!(second.at("/id"), first.at("/id"));
}
