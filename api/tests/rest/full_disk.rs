//! Full disks. PostgreSQL's disk fills up until its WAL cannot grow and the server stops, then space becomes free
//! again: accepted requests take effect once, rejected ones have no effect, and no operator intervenes. When Redis'
//! disk is full, Redis rejects writes.

use std::collections::BTreeMap;

use atrium_harness::{Atrium, guest::patiently};
use serde_json::json;

use crate::{CheckedSend as _, PATIENCE, watched_chat};

/// More rows than fit into the free space of existing pages.
const MAX_REQUESTS: usize = 500;

#[tokio::test]
async fn a_full_disk_of_postgresql_rejects_writes_and_loses_nothing() {
    let atrium = Atrium::builder().small_disk().start().await;
    let guest = atrium.guest().await;
    let org = guest.organization("Before").await.unwrap();
    let create = |key: &str| guest.client.post("/v1/orgs").idempotency_key(key).json(json!({ "name": key }));
    // Accepted, and in progress while the worker is suspended.
    atrium.worker(0).suspend();
    let mut accepted = BTreeMap::new();
    let reply = create("on-its-way").answers(202).await;
    accepted.insert("on-its-way".to_owned(), reply.at("/id"));

    atrium.postgres().disk().fill().unwrap();
    atrium.worker(0).resume();
    let mut refused = Vec::new();
    for number in 0..MAX_REQUESTS {
        let key = format!("while-full-{number}");
        let reply = create(&key).send().await.unwrap();
        if reply.code() == 202 {
            accepted.insert(key, reply.at("/id"));
            // PostgreSQL reused free space in its files, or removed files that it no longer needs.
            atrium.postgres().disk().fill().unwrap();
            continue;
        }
        let reply = reply.must_be(503, "unavailable");
        assert!(reply.header("retry-after").is_some(), "{}", reply.describe());
        refused.push(key);
        if refused.len() == 5 {
            break;
        }
    }
    assert_eq!(refused.len(), 5, "{} were accepted", accepted.len());
    guest.client.get(format!("/v1/orgs/{org}")).answers(200).await;
    guest.client.get("/v1/orgs").answers(200).await;

    // The WAL needs its next segment, which stops the server. A supervisor restarts it again and again.
    let mut superuser = atrium.superuser().await;
    let next_file =
        "SELECT pg_logical_emit_message(false, 'atrium', 'end of the file'); SELECT pg_switch_wal()";
    while sqlx::raw_sql(next_file).execute(&mut superuser).await.is_ok() {
        atrium.postgres().disk().fill().unwrap();
    }
    drop(superuser);
    atrium.postgres().end().await;
    let supervisor = atrium.postgres().respawn();
    let free_space = async {
        for path in ["/v1/orgs".to_owned(), format!("/v1/orgs/{org}")] {
            let reply = guest.client.get(path).refused(503, "unavailable").await;
            assert!(reply.header("retry-after").is_some(), "{}", reply.describe());
        }
        refused.push("while-dead".to_owned());
        create("while-dead").refused(503, "unavailable").await;
        assert!(atrium.services().all(|service| service.status().is_none()), "all processes keep running");
        atrium.postgres().disk().make_room().unwrap();
    };
    let (started, ()) = tokio::join!(supervisor, free_space);
    started.unwrap();
    guest.client.get(format!("/v1/orgs/{org}")).answers(200).await;

    // Clients repeat rejected requests, and accepted ones as well, because the response may have been lost.
    let keys: Vec<_> = accepted.keys().chain(&refused).cloned().collect();
    for key in keys {
        let reply = patiently(|| create(&key)).await.unwrap().must(202);
        let id = accepted.entry(key).or_insert_with(|| reply.at("/id"));
        assert_eq!(*id, reply.at("/id"));
        guest.committed(&reply.at("/operation_id")).await.unwrap();
    }
    let mut superuser = atrium.superuser().await;
    let mut all: Vec<(String, String)> = sqlx::query_as("SELECT id::text, status FROM orgs WHERE id <> $1")
        .bind(uuid::Uuid::nil())
        .fetch_all(&mut superuser)
        .await
        .unwrap();
    let committed = |id: &String| (id.clone(), "COMMITTED".to_owned());
    let mut expected: Vec<_> = accepted.values().chain([&org]).map(committed).collect();
    all.sort();
    expected.sort();
    assert_eq!(all, expected, "one organization for each key, and no other");
    let (dead_letters, ended_twice): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL),
                (SELECT count(*) FROM (SELECT FROM saga_events WHERE step IS NULL GROUP BY saga_id HAVING count(*) > 1) AS two)",
    )
    .fetch_one(&mut superuser)
    .await
    .unwrap();
    assert_eq!((dead_letters, ended_twice), (0, 0));
}

#[tokio::test]
async fn a_full_disk_of_redis_rejects_chat_actions_and_delays_the_rest() {
    let atrium = Atrium::builder().small_redis_disk().start().await;
    let guest = atrium.guest().await;
    let org = guest.organization("Before").await.unwrap();
    let (window, mut events) = watched_chat(&guest, &org).await;

    atrium.redis().disk().fill().unwrap();
    let mut pressed = Vec::new();
    let refused = loop {
        let reply = guest.pressing(&window, "ready").send().await.unwrap();
        if reply.code() != 202 {
            break reply.must_be(503, "unavailable");
        }
        pressed.push(reply.at("/id"));
        assert!(pressed.len() < MAX_REQUESTS, "Redis still accepts writes");
    };
    assert!(refused.header("retry-after").is_some(), "{}", refused.describe());
    let created = guest.create_organization("During").await.unwrap();
    guest.configure(&org, "chat.max_active_sessions", json!(2), "a full disk").await.unwrap();

    atrium.redis().disk().make_room().unwrap();
    guest.committed(&created.operation).await.unwrap();
    pressed.push(guest.press(&window, "ready").await.unwrap());
    for id in &pressed {
        let event = events.see("chat.action", PATIENCE).await.unwrap();
        assert_eq!(event.json()["id"], **id, "each action arrives once, in order");
    }
}
