//! Nothing lost, nothing twice: resuming from memory and from Redis, over processes that come, go and die.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::Duration,
};

use atrium_api::{
    http::caller::Credential,
    live::{
        open_streams::{OpenStreams, StreamKind},
        presence::Presence,
    },
};
use atrium_harness::{
    Atrium,
    guest::{Guest, Window},
};
use atrium_shared::{
    db::Database,
    ids::OrgId,
    lifecycle::Shutdown,
    settings::{LogFormat, Pooling, Settings},
    streams::{Live, chat_epoch_key, chat_shard},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::scene::{SOON, Scene, accepted, actions, metric, open, refused, reset_stream};

const RESUMES: &str = "atrium_sse_resumes_total";

async fn press(guest: &Guest, window: &Window, count: usize) -> Vec<String> {
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        ids.push(guest.press(window, "ready").await.expect("accepted"));
    }
    ids
}

fn ids(seen: &[(String, String)]) -> Vec<String> {
    seen.iter().map(|(id, _)| id.clone()).collect()
}

/// The same guest, asking another process.
fn at(guest: &Guest, atrium: &Atrium, api: usize) -> Guest {
    Guest { client: guest.client.at(atrium.api(api).url()), ..guest.clone() }
}

fn live_stream(scene: &Scene) -> (String, String) {
    let shard = chat_shard(scene.project.parse().expect("an id"));
    (Live::Chat(shard).to_string(), chat_epoch_key(shard))
}

#[tokio::test]
async fn a_reconnecting_client_resumes_at_its_position() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let guest = &scene.owner;
    let window = scene.window(guest).await;
    let mut stream = open(guest, &window, None).await;
    let first = press(guest, &window, 3).await;
    let seen = actions(&mut stream, 3).await;
    assert_eq!(ids(&seen), first);
    drop(stream);

    let missed = press(guest, &window, 5).await;
    let query = format!("{}?last_event_id={}", window.events(), seen[2].1);
    let mut by_query = guest.client.events(&query, None).await.expect("a stream");
    assert_eq!(ids(&actions(&mut by_query, 5).await), missed);
    // The header counts: a browser sends it when it reconnects by itself.
    let mut by_header = guest.client.events(&query, Some(&seen[1].1)).await.expect("a stream");
    let expected: Vec<_> = first[2..].iter().chain(&missed).cloned().collect();
    assert_eq!(ids(&actions(&mut by_header, 6).await), expected);
    assert_eq!(metric(&atrium, 0, RESUMES, "ring").await, 2.0);

    let next = press(guest, &window, 1).await;
    for stream in [&mut by_query, &mut by_header] {
        assert_eq!(ids(&actions(stream, 1).await), next);
        stream.must_stay_silent(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_client_without_events_can_resume() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let guest = &scene.owner;
    let window = scene.window(guest).await;
    // Once on a live stream that has no entry at all, once on one that has.
    for _ in 0..2 {
        let position = first_position(&atrium, guest, &window).await;
        let missed = press(guest, &window, 2).await;
        let mut stream = open(guest, &window, Some(&position)).await;
        assert_eq!(ids(&actions(&mut stream, 2).await), missed);
    }
}

/// The id that a new stream sends before any event.
async fn first_position(atrium: &Atrium, guest: &Guest, window: &Window) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = atrium.url().replace("http://", "");
    let mut socket = tokio::net::TcpStream::connect(&address).await.expect("a connection");
    let (path, token) = (window.events(), guest.client.token().expect("signed in"));
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.expect("sent");
    let mut text = String::new();
    while !text.contains("\nid: ") || !text.ends_with("\n\n\r\n") {
        let mut piece = [0; 4096];
        let read = tokio::time::timeout(SOON, socket.read(&mut piece)).await;
        let length = read.unwrap_or_else(|_| panic!("no id came: {text:?}")).expect("received");
        text.push_str(std::str::from_utf8(&piece[..length]).expect("text"));
    }
    let (_, id) = text.rsplit_once("\nid: ").expect("an id");
    id.lines().next().expect("a line").to_owned()
}

#[tokio::test]
async fn another_process_reads_missed_events_from_redis() {
    let mut atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let guest = &scene.owner;
    let window = scene.window(guest).await;
    let mut stream = open(guest, &window, None).await;
    press(guest, &window, 2).await;
    let seen = actions(&mut stream, 2).await;
    // More than two pages.
    let missed = press(guest, &window, 300).await;
    actions(&mut stream, 300).await;

    atrium.add_api().await;
    let elsewhere = at(guest, &atrium, 1);
    let mut late = open(&elsewhere, &window, Some(&seen[1].1)).await;
    assert_eq!(ids(&actions(&mut late, 300).await), missed);
    assert_eq!(metric(&atrium, 1, "atrium_sse_resets_total", "").await, 0.0);
    let next = press(guest, &window, 2).await;
    assert_eq!(ids(&actions(&mut late, 2).await), next);
    assert_eq!(ids(&actions(&mut stream, 2).await), next);
    assert_eq!(metric(&atrium, 1, RESUMES, "redis").await, 1.0);
    // A client that has missed nothing joins the ring immediately.
    let last = late.last_event_id().expect("an id").to_owned();
    let mut again = open(&elsewhere, &window, Some(&last)).await;
    again.must_stay_silent(Duration::from_millis(200)).await;
    let next = press(&elsewhere, &window, 1).await;
    assert_eq!(ids(&actions(&mut again, 1).await), next);
}

#[tokio::test]
async fn a_trimmed_position_gets_a_reset_and_no_silent_gap() {
    let mut atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let guest = &scene.owner;
    let window = scene.window(guest).await;
    let mut stream = open(guest, &window, None).await;
    press(guest, &window, 10).await;
    let seen = actions(&mut stream, 10).await;
    let (live, _) = live_stream(&scene);
    let mut redis = atrium.redis_connection().await;
    let trim = redis::cmd("XTRIM").arg(live).arg("MAXLEN").arg(4).query_async::<i64>(&mut redis).await;
    assert_eq!(trim.expect("trimmed"), 6);

    atrium.add_api().await;
    let elsewhere = at(guest, &atrium, 1);
    let mut lost = open(&elsewhere, &window, Some(&seen[2].1)).await;
    let reset = lost.must_next(SOON).await;
    assert_eq!((reset.event.as_str(), reset.json()), ("reset", json!({ "reason": "too_old" })));
    let next = press(guest, &window, 1).await;
    assert_eq!(ids(&actions(&mut lost, 1).await), next, "and it goes on from now");
    // The first entry that is left is kept, and so is everything after it.
    let mut kept = open(&elsewhere, &window, Some(&seen[6].1)).await;
    let expected: Vec<_> = ids(&seen[7..]).into_iter().chain(next).collect();
    assert_eq!(ids(&actions(&mut kept, 4).await), expected);
    assert_eq!(metric(&atrium, 1, "atrium_sse_resets_total", "too_old").await, 1.0);
}

#[tokio::test]
async fn forged_positions_get_a_reset() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let guest = &scene.owner;
    let window = scene.window(guest).await;
    let mut stream = open(guest, &window, None).await;
    press(guest, &window, 1).await;
    let (_, id) = actions(&mut stream, 1).await.remove(0);
    let (epoch, _) = id.split_once('-').expect("an epoch");

    let huge = "9".repeat(200);
    for wrong in ["1", "a-b-c", "-1-0", "*", "a-1-0-0", "e-18446744073709551616-0", "é-1-0", "%00", &huge] {
        for request in [
            guest.client.get(window.events()).header("last-event-id", wrong),
            guest.client.get(format!("{}?last_event_id={}", window.events(), wrong.replace('é', "%C3%A9"))),
        ] {
            reset_stream(request).await;
        }
    }
    for (position, reason) in [
        (format!("{epoch}-18446744073709551615-0"), "history_lost"),
        ("0badcafe-1-0".to_owned(), "history_lost"),
        ("0badcafe-18446744073709551615-18446744073709551615".to_owned(), "history_lost"),
    ] {
        let mut stream = open(guest, &window, Some(&position)).await;
        let reset = stream.must_next(SOON).await;
        assert_eq!(
            (reset.event.as_str(), reset.json()),
            ("reset", json!({ "reason": reason })),
            "{position}"
        );
        let next = press(guest, &window, 1).await;
        assert_eq!(ids(&actions(&mut stream, 1).await), next);
    }

    // Another project's position opens nothing of that project.
    let other = scene.owner.project(&scene.org, "Other").await.expect("a project");
    let elsewhere = scene.owner.open_chat(&scene.org, &other).await.expect("a session");
    let mut stream = open(guest, &elsewhere, Some(&id)).await;
    let mine = press(guest, &elsewhere, 1).await;
    loop {
        let event = stream.must_next(SOON).await;
        if event.event == "chat.action" {
            assert_eq!(accepted(&event).0, mine[0]);
            break;
        }
        assert_eq!(event.event, "reset");
    }
}

/// An access token of a guest with a shorter lifetime, signed with the test's key.
fn ending_in(atrium: &Atrium, guest: &Guest, seconds: u64) -> String {
    let (kid, token) = ("test-1", guest.client.token().expect("signed in"));
    let keys = &atrium.wiring().keys;
    let pem = std::fs::read(keys.join(format!("{kid}.pem"))).expect("a key");
    let ours = EncodingKey::from_ed_pem(&pem).expect("a key");
    let mut claims = jsonwebtoken::dangerous::insecure_decode::<Value>(token).expect("a token").claims;
    claims["exp"] = json!(jsonwebtoken::get_current_timestamp() + seconds);
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, &claims, &ours).expect("a token")
}

/// A page whose token ends opens a new stream after a refresh, with the last id it saw in the address: an
/// `EventSource` cannot set a header.
#[tokio::test]
async fn a_new_stream_continues_without_a_gap_after_token_expiry() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let guest = scene.member().await;
    let (window, pressing) = (scene.window(&guest).await, scene.window(&scene.owner).await);
    let ending = guest.client.bearer(ending_in(&atrium, &guest, 5));
    let mut stream = ending.events(&window.events(), None).await.expect("a stream");

    // Actions are pressed all the time: before the end, at the end, and while no stream is open.
    let stop = Arc::new(AtomicBool::new(false));
    let presser = tokio::spawn({
        let (owner, stop) = (scene.owner.clone(), Arc::clone(&stop));
        async move {
            let mut pressed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                pressed.push(owner.press(&pressing, "ready").await.expect("accepted"));
            }
            pressed
        }
    });
    let (mut seen, mut warned) = (Vec::new(), 0);
    while let Some(event) = tokio::time::timeout(SOON * 3, stream.next()).await.expect("the stream ends") {
        match event.event.as_str() {
            "token-expiring" => warned += 1,
            _ => seen.push(accepted(&event)),
        }
    }
    assert_eq!(warned, 1, "it is told before");
    let last = seen.last().expect("events before the end").1.clone();

    let query = format!("{}?last_event_id={last}", window.events());
    let mut stream = guest.client.events(&query, None).await.expect("a stream");
    seen.extend(actions(&mut stream, 20).await);
    stop.store(true, Ordering::Relaxed);
    let pressed = presser.await.expect("pressed");
    seen.extend(actions(&mut stream, pressed.len() - seen.len()).await);
    // Every press, once, in order.
    assert_eq!(ids(&seen), pressed);
    stream.must_stay_silent(Duration::from_millis(100)).await;
}

/// A stream that resumes from a position it never had.
#[tokio::test]
async fn a_position_of_another_tenant_reveals_none_of_its_events() {
    let atrium = Atrium::start().await;
    let (scene, other) = (Scene::begin(&atrium).await, Scene::begin(&atrium).await);
    let (window, theirs) = (scene.window(&scene.owner).await, other.window(&other.owner).await);
    let mut stream = open(&other.owner, &theirs, None).await;
    press(&other.owner, &theirs, 5).await;
    let foreign = actions(&mut stream, 5).await;
    // Far back in time, in the middle of the other's, and in no time at all.
    let (epoch, _) = foreign[0].1.split_once('-').expect("an epoch");
    let positions = [
        foreign[0].1.clone(),
        foreign[4].1.clone(),
        format!("{epoch}-0-0"),
        format!("{epoch}-1-0"),
        "0badcafe-1-0".to_owned(),
        "00000000-18446744073709551615-18446744073709551615".to_owned(),
    ];
    for position in positions {
        let mut stream = open(&scene.owner, &window, Some(&position)).await;
        let mine = press(&scene.owner, &window, 1).await.remove(0);
        press(&other.owner, &theirs, 1).await;
        loop {
            let event = stream.must_next(SOON).await;
            if event.event == "reset" {
                continue;
            }
            assert_eq!(event.json()["project_id"], json!(scene.project), "{position}");
            if accepted(&event).0 == mine {
                break;
            }
        }
    }
    for path in [format!("/v1/orgs/{}/configs/events", scene.org), window.events()] {
        for huge in ["9".repeat(127), "9".repeat(4_000)] {
            reset_stream(scene.owner.client.get(&path).last_event_id(Some(&huge))).await;
            reset_stream(scene.owner.client.get(format!("{path}?last_event_id={huge}"))).await;
        }
    }
}

#[tokio::test]
async fn a_flush_causes_one_reset_and_the_chat_continues() {
    let atrium = Atrium::builder().private_redis().start().await;
    let scene = Scene::begin(&atrium).await;
    let guest = &scene.owner;
    let window = scene.window(guest).await;
    let mut stream = open(guest, &window, None).await;
    press(guest, &window, 3).await;
    let before = actions(&mut stream, 3).await;

    atrium.redis().flush_all().await.expect("flushed");
    let after = press(guest, &window, 3).await;
    let reset = stream.must_next(SOON).await;
    assert_eq!(reset.event, "reset");
    assert_eq!(ids(&actions(&mut stream, 3).await), after);
    // An id of before the flush is one of another history.
    let mut old = open(guest, &window, Some(&before[0].1)).await;
    assert_eq!(old.must_next(SOON).await.json(), json!({ "reason": "history_lost" }));
    assert_eq!(scene.total(guest).await, 6);
}

/// Two API processes, two workers of which one is killed, clients that reconnect to alternating processes while many
/// members press: every client sees every accepted action, once and in one order.
#[tokio::test]
async fn mass_reconnects_over_two_processes_lose_and_repeat_nothing() {
    const PRESSES: usize = 120;
    let atrium = Arc::new(Atrium::builder().apis(2).full_workers(2).start().await);
    let scene = Scene::begin(&atrium).await;
    let window = scene.window(&scene.owner).await;
    let over = Arc::new(AtomicBool::new(false));

    let mut watching = tokio::task::JoinSet::new();
    let mut ready = Vec::new();
    for number in 0..6_usize {
        let guest = scene.member().await;
        let own = scene.window(&guest).await;
        let (atrium, over) = (Arc::clone(&atrium), Arc::clone(&over));
        let (opened, is_open) = tokio::sync::oneshot::channel();
        ready.push(is_open);
        watching.spawn(async move {
            let mut seen: Vec<String> = Vec::new();
            let mut hops = number;
            let mut stream = open(&at(&guest, &atrium, hops % 2), &own, None).await;
            let _ = opened.send(());
            loop {
                let complete = over.load(Ordering::Acquire) && seen.len() >= PRESSES;
                // Longer than a dead worker's lease; once everything is here, long enough for a repetition to show.
                let patience = if complete { Duration::from_secs(1) } else { 2 * SOON };
                match tokio::time::timeout(patience, stream.next()).await {
                    Ok(Some(event)) => {
                        assert_eq!(event.event, "chat.action", "{}", event.data);
                        seen.push(accepted(&event).0);
                        if seen.len().is_multiple_of(7 + number) {
                            hops += 1;
                            stream = open(&at(&guest, &atrium, hops % 2), &own, Some(&event.id)).await;
                        }
                    }
                    Ok(None) => panic!("the stream ended"),
                    Err(_) if complete => return (seen, hops - number),
                    // The last event may have come before the last press was known to be the last.
                    Err(_) => assert!(seen.len() >= PRESSES, "{} of {PRESSES} came", seen.len()),
                }
            }
        });
    }
    for is_open in ready {
        is_open.await.expect("a watcher is there");
    }

    let mut accepted_ids = Vec::new();
    for number in 0..PRESSES {
        accepted_ids.extend(press(&at(&scene.owner, &atrium, number % 2), &window, 1).await);
        if number == PRESSES / 3 {
            atrium.worker(0).sigkill().await;
        }
        if number == 2 * PRESSES / 3 {
            atrium.worker(0).respawn().await.expect("the worker comes back");
            atrium.worker(1).sigkill().await;
        }
    }
    over.store(true, Ordering::Release);

    let expected: HashSet<_> = accepted_ids.iter().cloned().collect();
    let mut first_order: Option<Vec<String>> = None;
    for (seen, hops) in watching.join_all().await {
        assert_eq!(seen.len(), PRESSES, "lost or repeated");
        assert_eq!(seen.iter().cloned().collect::<HashSet<_>>(), expected);
        assert!(hops >= 8, "{hops} hops");
        assert_eq!(first_order.get_or_insert_with(|| seen.clone()), &seen, "one order for all");
    }
    assert_eq!(scene.total(&scene.owner).await, PRESSES as i64);
}

/// A client that does not read falls behind the ring, gets a reset when it reads again, and continues; the others are
/// not delayed.
#[tokio::test]
async fn a_slow_client_gets_a_reset() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let (slow, quick) = (&scene.owner, scene.member().await);
    let (slow_window, quick_window) = (scene.window(slow).await, scene.window(&quick).await);
    let mut quick_stream = open(&quick, &quick_window, None).await;
    let mut socket = {
        use tokio::io::AsyncWriteExt as _;
        let address = atrium.url().replace("http://", "");
        let mut socket = tokio::net::TcpStream::connect(&address).await.expect("a connection");
        let (path, token) = (slow_window.events(), slow.client.token().expect("signed in"));
        let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n");
        socket.write_all(head.as_bytes()).await.expect("sent");
        socket
    };
    press(&quick, &quick_window, 1).await;
    actions(&mut quick_stream, 1).await;

    // More than the kernel's buffers and the ring contain together, written straight into the live stream; and quickly
    // enough that the client does not count as disconnected.
    const EVENTS: usize = 20_000;
    let (live, epoch) = live_stream(&scene);
    let mut redis = atrium.redis_connection().await;
    let epoch: String = redis::cmd("GET").arg(epoch).query_async(&mut redis).await.expect("an epoch");
    let data = json!({
        "id": uuid::Uuid::now_v7(), "project_id": scene.project, "session_id": quick_window.session,
        "user": { "id": quick.id, "name": quick.name }, "action": "ready", "at": "2026-01-01T00:00:00Z",
    });
    let data = data.to_string();
    for _ in 0..EVENTS / 500 {
        let mut pipe = redis::pipe();
        for _ in 0..500 {
            pipe.cmd("XADD").arg(&live).arg("MAXLEN").arg("~").arg(20_000).arg("*");
            pipe.arg("e").arg(&epoch).arg("org").arg(&scene.org).arg("project").arg(&scene.project);
            pipe.arg("event")
                .arg("chat.action")
                .arg("session")
                .arg(&quick_window.session)
                .arg("data")
                .arg(&data);
            pipe.ignore();
        }
        pipe.query_async::<()>(&mut redis).await.expect("written");
        // At the pace of the client that reads; the other one never would.
        actions(&mut quick_stream, 500).await;
    }

    let mut text = String::new();
    let mut read_until = async |what: &str| {
        use tokio::io::AsyncReadExt as _;
        let mut piece = vec![0; 1 << 16];
        let read = async {
            while !text.contains(what) {
                let length = socket.read(&mut piece).await.expect("received");
                assert!(length > 0, "the stream ended");
                text.push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        };
        tokio::time::timeout(SOON, read).await.unwrap_or_else(|_| panic!("{what} does not come"));
    };
    read_until("event: reset\ndata: {\"reason\":\"slow\"}").await;
    // It continues from now, and not from before.
    let id = slow.press(&slow_window, "deployed").await.expect("accepted");
    read_until(&id).await;
    assert_eq!(metric(&atrium, 0, "atrium_sse_resets_total", "slow").await, 1.0);
}

/// The process's refresh, which runs every half minute, run now: sessions with an open stream are refreshed, and a
/// stream whose session has ended without an event is ended.
#[tokio::test]
async fn open_streams_keep_their_chat_sessions_alive() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let guest = &scene.owner;
    let (fresh, over) = (scene.window(guest).await, scene.window(guest).await);
    let mut postgres = atrium.superuser().await;
    let mut run = async |statement: &'static str| {
        sqlx::query(statement).execute(&mut postgres).await.expect("done").rows_affected()
    };
    run("UPDATE chat_sessions SET last_seen_at = now() - interval '90 seconds'").await;
    run("UPDATE chat_sessions SET closed_at = now(), close_reason = 'closed'
          WHERE id = (SELECT max(id::text)::uuid FROM chat_sessions)")
    .await;

    let streams = OpenStreams::new(Shutdown::new());
    let credential = Credential {
        principal: guest.id.parse().expect("an id"),
        auth_session: Some(atrium_shared::ids::AuthSessionId::new()),
        expires_at: atrium_shared::clock::now() + Duration::from_secs(900),
    };
    let presence = Presence::default();
    let mut present = Vec::new();
    for window in [&fresh, &over] {
        let registration = streams.register(
            StreamKind::Chat,
            credential,
            (OrgId::new(), None),
            std::time::Instant::now(),
            None,
        );
        let (org, session) = (scene.org.parse().expect("an id"), window.session.parse().expect("an id"));
        let entered = presence.enter(org, session, Arc::clone(registration.stream()));
        present.push((registration, entered));
    }
    let database = Database::connect(&settings(&atrium)).await.expect("the database answers");
    presence.report(&database).await;
    let ended = present.iter().map(|(registration, _)| registration.take_commands(Waker::noop()).end);
    assert_eq!(ended.collect::<Vec<_>>(), [false, true]);
    let seen = run("DELETE FROM chat_sessions WHERE last_seen_at > now() - interval '30 seconds'").await;
    assert_eq!(seen, 1, "only the one that is open");

    // No session has an open stream now: none is refreshed.
    present.clear();
    presence.report(&database).await;
    assert_eq!(run("DELETE FROM chat_sessions WHERE last_seen_at > now() - interval '30 seconds'").await, 0);
}

fn settings(atrium: &Atrium) -> Settings {
    let urls = atrium.database();
    Settings {
        database_url: urls.app.clone().into(),
        watcher_database_url: urls.watcher.clone().into(),
        database_pooling: Pooling::Session,
        database_connections: 2,
        redis_url: atrium.redis_url().to_owned().into(),
        admin_listen: ([127, 0, 0, 1], 0).into(),
        log_format: LogFormat::Text,
        drain: Duration::from_secs(1),
        process_name: "a-test".to_owned(),
    }
}

/// A session without an open stream for two minutes makes room for another.
#[tokio::test]
async fn an_idle_chat_session_expires_when_the_next_one_opens() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let guest = &scene.owner;
    let (forgotten, second, third) =
        (scene.window(guest).await, scene.window(guest).await, scene.window(guest).await);
    let mut postgres = atrium.superuser().await;
    let aged =
        sqlx::query("UPDATE chat_sessions SET last_seen_at = now() - interval '3 minutes' WHERE id = $1")
            .bind(forgotten.session.parse::<uuid::Uuid>().expect("an id"))
            .execute(&mut postgres)
            .await;
    assert_eq!(aged.expect("done").rows_affected(), 1);
    assert_eq!(scene.window(guest).await.closed, None, "there was room");
    refused(guest.pressing(&forgotten, "ready"), 409, "chat_session_closed").await;
    for window in [&second, &third] {
        guest.press(window, "ready").await.expect("still open");
    }
}
