//! SIGTERM and clients that disconnect: each request that has started is completed, once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use atrium_harness::{Atrium, client::Client, guest::patiently};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::{
    CheckedSend as _, until,
    wire::{connect, read_all},
};

#[tokio::test]
async fn sigterm_completes_requests_that_have_started() {
    let atrium = Atrium::builder().setting("ATRIUM_DRAIN_SECONDS", "5").start().await;
    let guest = atrium.guest().await;
    let api = atrium.api(0);
    let admin = Client::new(api.admin_url());
    admin.get("/readyz").answers(200).await;

    // A request whose body is still being sent when the drain begins.
    let token = guest.client.token().unwrap();
    let mut stream = connect(&atrium).await;
    let head = format!(
        "POST /v1/orgs HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: 18\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ended = api.end();
    api.sigterm();
    until("the process drains", async || admin.get("/readyz").send().await.unwrap().code() == 503).await;
    // A request on an existing connection is still served, and its response closes the connection.
    let late = guest.client.get("/v1/auth/me").answers(200).await;
    assert_eq!(late.header("connection"), Some("close"));
    tokio::time::sleep(Duration::from_millis(1000)).await;
    stream.write_all(b"{\"name\":\"drained\"").await.unwrap();
    stream.write_all(b"}").await.unwrap();
    let response = read_all(&mut stream, Duration::from_secs(5)).await;
    assert!(response.starts_with("HTTP/1.1 202"), "{response}");
    let status = tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
    assert!(status.success(), "{status}: {}", api.log_tail(20));
}

#[tokio::test]
async fn a_drain_under_load_cuts_no_response() {
    let atrium = Atrium::builder().setting("ATRIUM_DRAIN_SECONDS", "60").start().await;
    let guest = atrium.guest().await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..16)
        .map(|_| {
            // Each writer has its own connections, kept alive between requests.
            let client = Client::new(atrium.url()).bearer(guest.client.token().unwrap());
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let (mut accepted, mut cut) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    match client.post("/v1/orgs").json(json!({ "name": "Load" })).send().await {
                        Ok(reply) if reply.code() == 202 => accepted += 1,
                        Ok(reply) => cut.push(reply.describe()),
                        Err(error) => {
                            let error = format!("{error:?}");
                            if error.contains("Connection refused") {
                                break;
                            }
                            cut.push(error);
                        }
                    }
                }
                (accepted, cut)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (ended, started_at) = (atrium.api(0).end(), Instant::now());
    atrium.api(0).sigterm();
    let status = ended.await;
    assert!(status.success(), "{status}: {}", atrium.api(0).log_tail(20));
    // Without open streams, the drain does not use its whole time.
    assert!(started_at.elapsed() < Duration::from_secs(30), "the drain took {:?}", started_at.elapsed());
    stop.store(true, Ordering::Relaxed);
    let mut accepted = 0;
    for writer in writers {
        let (count, cut) = writer.await.unwrap();
        assert!(cut.is_empty(), "{cut:?}");
        accepted += count;
    }
    let created: i64 = sqlx::query_scalar("SELECT count(*) FROM orgs WHERE name = 'Load'")
        .fetch_one(&mut atrium.superuser().await)
        .await
        .unwrap();
    assert!(accepted > 0);
    assert_eq!(accepted, created, "organizations accepted (left) and created (right)");
}

#[tokio::test]
async fn a_client_that_disconnects_leaves_nothing_half_done() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let token = guest.client.token().unwrap();
    for number in 0..50 {
        let mut stream = connect(&atrium).await;
        let body = json!({ "name": "Gone" }).to_string();
        let request = format!(
            "POST /v1/orgs HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\nidempotency-key: {number}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_micros(200 * number)).await;
        drop(stream);
    }
    // Each request either never arrived or took full effect. Repeating it with its key creates no second organization.
    for number in 0..50 {
        let repeat = || {
            let create = guest.client.post("/v1/orgs").json(json!({ "name": "Gone" }));
            create.idempotency_key(number.to_string())
        };
        assert_eq!(patiently(repeat).await.unwrap().code(), 202);
    }
    let (orgs, sagas): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM orgs WHERE name = 'Gone'), (SELECT count(*) FROM sagas)",
    )
    .fetch_one(&mut atrium.superuser().await)
    .await
    .unwrap();
    assert_eq!((orgs, sagas), (50, 50));
    assert!(atrium.api(0).logs().contains("the client disconnected before its response"));
}
