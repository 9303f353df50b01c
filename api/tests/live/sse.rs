//! What all event streams have in common: how they begin, stay alive and end; and the streams of operations and
//! configuration.

use std::time::{Duration, Instant};

use atrium_harness::{Atrium, client::EventStream};
use serde_json::json;

use crate::scene::{SOON, Scene, actions, answered, metric, open, refused, reset_stream};

#[tokio::test]
async fn a_stream_starts_immediately_and_sends_heartbeats() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let window = scene.window(&scene.owner).await;
    let stream = open(&scene.owner, &window, None).await;
    let headers = stream.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-store, no-transform");
    assert_eq!(headers["x-accel-buffering"], "no");
    drop(stream);

    // The interval is configuration, and applies to open streams.
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(open(&scene.owner, &window, None).await);
    }
    atrium.set_default("sse.heartbeat_seconds", json!(1)).await;
    let mut retries = Vec::new();
    for stream in &mut streams {
        stream.must_stay_silent(Duration::from_millis(1700)).await;
        assert!(stream.comments() >= 1, "no heartbeat");
        retries.push(stream.retry().expect("a client is told how long to wait"));
    }
    assert!(
        retries.iter().any(|retry| *retry != retries[0]),
        "everybody would come back at once: {retries:?}"
    );
    assert_eq!(metric(&atrium, 0, "atrium_sse_streams", "chat").await, 3.0);
    drop(streams);
    let begun = Instant::now();
    while metric(&atrium, 0, "atrium_sse_streams", "chat").await != 0.0 {
        assert!(begun.elapsed() < SOON, "streams that nobody reads are still open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_client_chooses_its_heartbeats() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let window = scene.window(&scene.owner).await;
    let events = |query: &str| scene.owner.client.get(format!("{}?{query}", window.events()));
    let mut commented = events("heartbeat=2").events().await.expect("a stream");
    let mut pinged = events("heartbeat=2&ping=1").events().await.expect("a stream");
    commented.must_stay_silent(Duration::from_millis(2_500)).await;
    pinged.must_stay_silent(Duration::from_millis(10)).await;
    assert!(commented.comments() >= 1 && commented.pings() == 0);
    assert!(pinged.pings() >= 1 && pinged.comments() == 0);
    for wrong in ["heartbeat=1", "heartbeat=61", "heartbeat=x", "ping=2", "heartbeat=5&heartbeat=6", "pong=1"]
    {
        refused(events(wrong), 422, "validation_failed").await;
    }
}

#[tokio::test]
async fn a_stream_cut_before_its_first_event_resumes_from_its_position() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let window = scene.window(&scene.owner).await;
    // The chat has a history, so that there is a position.
    let mut first = open(&scene.owner, &window, None).await;
    scene.owner.press(&window, "ready").await.expect("accepted");
    actions(&mut first, 1).await;
    let mut stream = open(&scene.owner, &window, None).await;
    stream.must_stay_silent(Duration::from_millis(100)).await;
    let position = stream.last_event_id().expect("the first event has the position").to_owned();
    drop(stream);
    let missed = scene.owner.press(&window, "deployed").await.expect("accepted");
    let mut again = open(&scene.owner, &window, Some(&position)).await;
    assert_eq!(actions(&mut again, 1).await[0].0, missed);
}

#[tokio::test]
async fn a_browser_signs_in_with_its_cookie() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let window = scene.window(&scene.owner).await;
    let cookie = format!("atrium_session={}", scene.owner.client.token().expect("signed in"));
    let with_cookie = |site: &'static str| {
        let request = atrium.client().get(window.events());
        request.header("cookie", &cookie).header("sec-fetch-site", site)
    };
    let mut stream = with_cookie("same-origin").events().await.expect("a stream");
    scene.owner.press(&window, "ready").await.expect("accepted");
    actions(&mut stream, 1).await;
    refused(with_cookie("cross-site"), 403, "cross_site_request").await;
    refused(atrium.client().get(window.events()), 401, "unauthenticated").await;
}

#[tokio::test]
async fn a_sign_out_ends_the_streams_of_its_session_in_every_process() {
    let atrium = Atrium::builder().apis(2).start().await;
    let scene = Scene::begin(&atrium).await;
    let member = scene.member().await;
    let (window, others) = (scene.window(&member).await, scene.window(&scene.owner).await);
    let elsewhere = member.client.at(atrium.api(1).url());
    let configs = format!("/v1/orgs/{}/configs/events", scene.org);
    let mut streams = vec![
        open(&member, &window, None).await,
        elsewhere.events(&window.events(), None).await.expect("a stream"),
        elsewhere.events(&configs, None).await.expect("a stream"),
    ];
    let mut staying = open(&scene.owner, &others, None).await;

    answered(member.client.post("/v1/auth/logout"), 204).await;
    for stream in &mut streams {
        stream.must_end(SOON).await;
    }
    for client in [&member.client, &elsewhere] {
        refused(client.get(window.events()), 401, "unauthenticated").await;
    }
    scene.owner.press(&others, "ready").await.expect("accepted");
    actions(&mut staying, 1).await;
}

#[tokio::test]
async fn a_stopping_process_drains_its_streams_without_loss() {
    let atrium = Atrium::builder().apis(2).setting("ATRIUM_DRAIN_SECONDS", "60").start().await;
    let scene = Scene::begin(&atrium).await;
    let window = scene.window(&scene.owner).await;
    let (here, there) = (&scene.owner.client, scene.owner.client.at(atrium.api(1).url()));
    let mut streams = Vec::new();
    for _ in 0..40 {
        streams.push(there.events(&window.events(), None).await.expect("a stream"));
    }
    let configs =
        there.events(&format!("/v1/orgs/{}/configs/events", scene.org), None).await.expect("a stream");
    scene.owner.press(&window, "ready").await.expect("accepted");
    let mut last = String::new();
    for stream in &mut streams {
        last = actions(stream, 1).await.remove(0).1;
    }
    streams.push(configs);

    let (stopped_at, ended) = (Instant::now(), atrium.api(1).end());
    atrium.api(1).sigterm();
    let during = scene.owner.press(&window, "deployed").await.expect("accepted");
    let mut drained = 0;
    for stream in &mut streams {
        for event in stream.must_end(SOON).await {
            match event.event.as_str() {
                "drain" => {
                    let retry = Duration::from_millis(event.json()["retry_ms"].as_u64().expect("a number"));
                    assert_eq!(stream.retry(), Some(retry), "the same for a native EventSource");
                    drained += 1;
                }
                other => assert_eq!((other, &event.json()["id"]), ("chat.action", &json!(during))),
            }
        }
    }
    assert_eq!(drained, streams.len());
    assert!(ended.await.success());
    let took = stopped_at.elapsed();
    assert!(took < Duration::from_secs(60), "it went on until its window was over: {took:?}");

    // Another process continues after the last event.
    let mut again: EventStream = here.events(&window.events(), Some(&last)).await.expect("a stream");
    assert_eq!(actions(&mut again, 1).await[0].0, during);
}

#[tokio::test]
async fn an_operation_stream_sends_every_step_from_the_start() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let creation = guest.create_organization("Northwind").await.expect("accepted");
    let path = format!("/v1/operations/{}/events", creation.operation);
    let mut live = guest.client.events(&path, None).await.expect("a stream");
    let mut events = Vec::new();
    loop {
        let event = live.must_next(SOON).await;
        let finished = event.event == "operation.finished";
        events.push(event);
        if finished {
            break;
        }
    }
    assert!(live.must_end(SOON).await.is_empty());
    for (number, event) in (1..).zip(&events) {
        assert_eq!(event.id, number.to_string());
        assert_eq!(event.json()["seq"], json!(number));
        assert_eq!(event.json()["operation_id"], json!(creation.operation));
    }
    let last = events.last().expect("events").json();
    assert_eq!((&last["status"], &last["failure"]), (&json!("COMMITTED"), &json!(null)));
    assert!(
        events.len() > 2 && events[..events.len() - 1].iter().all(|event| event.event == "operation.step")
    );

    // From the beginning again, from the middle, and after the end.
    let mut again = guest.client.events(&path, None).await.expect("a stream");
    assert_eq!(again.must_end(SOON).await.len(), events.len());
    let mut rest = guest.client.events(&path, Some("2")).await.expect("a stream");
    assert_eq!(rest.must_next(SOON).await.id, "3");
    answered(guest.client.get(&path).last_event_id(Some(&events.len().to_string())), 204).await;
    for wrong in [&*(events.len() + 1).to_string(), "-1", "x", "1-0", "01"] {
        let mut stream = reset_stream(guest.client.get(&path).last_event_id(Some(wrong))).await;
        assert_eq!(stream.must_end(SOON).await.len(), events.len(), "all events again");
    }
    let stranger = atrium.guest().await;
    refused(stranger.client.get(&path), 404, "not_found").await;
}

#[tokio::test]
async fn a_failed_operation_reports_the_reason() {
    let atrium =
        Atrium::builder().default_value("saga.fail_step", json!("organization.create/commit")).start().await;
    let guest = atrium.guest().await;
    let creation = guest.create_organization("Northwind").await.expect("accepted");
    let path = format!("/v1/operations/{}/events", creation.operation);
    let mut stream = guest.client.events(&path, None).await.expect("a stream");
    let finished = stream.must_see("operation.finished", SOON).await.json();
    assert_eq!(finished["status"], json!("FAILED"));
    assert!(finished["failure"]["code"].is_string(), "{finished}");
}

#[tokio::test]
async fn an_operation_stream_advances_by_polling_when_hints_are_lost() {
    let atrium = Atrium::builder().private_redis().start().await;
    let guest = atrium.guest().await;
    guest.organization("First").await.expect("an organization");
    // Every hint is lost.
    let mut redis = atrium.redis_connection().await;
    let command =
        redis::cmd("ACL").arg("SETUSER").arg("default").arg("-xread").query_async::<()>(&mut redis).await;
    command.expect("reading live streams is forbidden");
    drop(redis);
    let creation = guest.create_organization("Second").await.expect("accepted");
    let path = format!("/v1/operations/{}/events", creation.operation);
    let mut stream = guest.client.events(&path, None).await.expect("a stream");
    stream.must_see("operation.finished", SOON).await;
}

#[tokio::test]
async fn a_configuration_change_is_announced_when_it_is_applied() {
    let atrium = Atrium::builder().apis(2).start().await;
    let scene = Scene::begin(&atrium).await;
    let path = format!("/v1/orgs/{}/configs/events", scene.org);
    let elsewhere = scene.owner.client.at(atrium.api(1).url());
    let mut streams = [
        scene.owner.client.events(&path, None).await.expect("a stream"),
        elsewhere.events(&path, None).await.expect("a stream"),
    ];
    for stream in &mut streams {
        stream.must_stay_silent(Duration::from_millis(100)).await;
    }
    let reply =
        scene.owner.configure(&scene.org, "chat.max_active_sessions", json!(2), "a test").await.expect("set");
    let revision = reply.json()["revision"].clone();
    for stream in &mut streams {
        let event = stream.must_next(SOON).await;
        assert_eq!((event.event.as_str(), event.json()), ("config.changed", json!({ "revision": revision })));
        assert_eq!(event.id, revision.to_string());
    }

    // A client with an older revision is notified immediately, one with this revision is not.
    let mut late = scene.owner.client.events(&path, Some("0")).await.expect("a stream");
    assert_eq!(late.must_next(SOON).await.json()["revision"], revision);
    let mut current = scene.owner.client.events(&path, Some(&revision.to_string())).await.expect("a stream");
    current.must_stay_silent(Duration::from_millis(200)).await;
    for wrong in ["999999", "-1", "x", "9223372036854775808"] {
        let mut stream = reset_stream(scene.owner.client.get(&path).last_event_id(Some(wrong))).await;
        assert_eq!(stream.last_event_id(), Some(revision.to_string().as_str()));
        stream.must_stay_silent(Duration::from_millis(50)).await;
    }
    refused(atrium.guest().await.client.get(&path), 404, "not_found").await;

    // A new default applies to all organizations and is no revision of theirs.
    atrium.set_default("chat.session_overflow", json!("refuse")).await;
    for stream in &mut streams {
        assert_eq!(stream.must_next(SOON).await.event, "reset");
    }
}

/// A thousand clients that never read, and one that does.
#[tokio::test]
async fn clients_that_never_read_use_little_memory_and_delay_no_other() {
    use tokio::io::AsyncWriteExt as _;
    const IDLE: usize = 1_000;
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let window = scene.window(&scene.owner).await;
    let mut stream = open(&scene.owner, &window, None).await;
    let before = atrium.api(0).resident();

    let address = atrium.url().replace("http://", "");
    let token = scene.owner.client.token().expect("signed in");
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n",
        window.events()
    );
    let mut sockets = Vec::new();
    for _ in 0..IDLE {
        let mut socket = tokio::net::TcpStream::connect(&address).await.expect("a connection");
        socket.write_all(head.as_bytes()).await.expect("sent");
        sockets.push(socket);
    }
    let begun = Instant::now();
    while metric(&atrium, 0, "atrium_sse_streams", "chat").await < (IDLE + 1) as f64 {
        assert!(begun.elapsed() < SOON, "not all streams were opened");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // They delay no other client: every action still arrives.
    for _ in 0..100 {
        scene.owner.press(&window, "ready").await.expect("accepted");
        stream.must_next(SOON).await;
    }
    let each = atrium.api(0).resident().saturating_sub(before) / IDLE;
    // A bound against queues, not a measurement: this is an unoptimized build.
    assert!(each < 100 * 1024, "{each} bytes each");
}
