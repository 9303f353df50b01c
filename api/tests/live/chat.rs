//! The chat through the public API: permissions, and the events that members see.

use std::time::Duration;

use atrium_harness::{Atrium, client::EventStream, guest::Guest};
use serde_json::json;

use crate::scene::{SOON, Scene, actions, answered, open, refused};

#[tokio::test]
async fn every_member_sees_an_action_once_and_it_is_counted() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let (a, b) = (&scene.owner, scene.member().await);
    let (window_a, window_b) = (scene.window(a).await, scene.window(&b).await);
    let mut streams = [open(a, &window_a, None).await, open(&b, &window_b, None).await];

    let id = b.press(&window_b, "ready").await.expect("accepted");
    for stream in &mut streams {
        let event = stream.must_next(SOON).await;
        let data = event.json();
        assert_eq!((event.event.as_str(), &data["id"]), ("chat.action", &json!(id)));
        assert_eq!(data["user"], json!({ "id": b.id, "name": b.name }));
        assert_eq!((&data["action"], &data["session_id"]), (&json!("ready"), &json!(window_b.session)));
        assert_eq!(data["project_id"], json!(scene.project));
        stream.must_stay_silent(Duration::from_millis(200)).await;
    }
    assert_eq!(scene.total(a).await, 1);
}

#[tokio::test]
async fn a_project_receives_no_events_of_other_projects() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let mut quiet = open(&scene.owner, &scene.window(&scene.owner).await, None).await;
    // Enough for several to share the first one's shard.
    for number in 0..20 {
        let project = scene.owner.project(&scene.org, &format!("Project {number}")).await.expect("a project");
        let window = scene.owner.open_chat(&scene.org, &project).await.expect("a session");
        scene.owner.press(&window, "ready").await.expect("accepted");
    }
    quiet.must_stay_silent(Duration::from_millis(500)).await;
}

#[tokio::test]
async fn a_fourth_chat_session_closes_the_oldest_with_an_event() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let (guest, other) = (&scene.owner, scene.member().await);
    let others = scene.window(&other).await;
    let mut others_stream = open(&other, &others, None).await;
    let first = scene.window(guest).await;
    let mut stream = open(guest, &first, None).await;
    guest.press(&first, "ready").await.expect("accepted");
    let seen = stream.must_next(SOON).await.id;
    let second = scene.window(guest).await;
    assert_eq!((first.closed.as_ref(), second.closed, scene.window(guest).await.closed), (None, None, None));

    let fourth = scene.window(guest).await;
    assert_eq!(fourth.closed.as_ref(), Some(&first.session));
    let told = stream.must_next(SOON).await;
    assert_eq!(told.event, "chat.session-closed");
    assert_eq!(told.json()["session_id"], json!(first.session));
    assert_eq!(told.json()["reason"], json!("replaced"));
    assert!(stream.must_end(SOON).await.is_empty());

    // A client that was disconnected gets the event once after reconnecting.
    let mut late = open(guest, &first, Some(&seen)).await;
    let told_late = late.must_next(SOON).await;
    assert_eq!(told_late.json()["reason"], json!("replaced"));
    assert!(late.must_end(SOON).await.is_empty());
    for id in [Some(told.id.as_str()), Some(&told_late.id), None] {
        let nothing = guest.client.get(first.events()).last_event_id(id).send().await.expect("an answer");
        assert_eq!(nothing.code(), 204, "after {id:?}");
    }
    refused(guest.pressing(&first, "ready"), 409, "chat_session_closed").await;
    guest.press(&fourth, "deployed").await.expect("accepted");
    let others_see = actions(&mut others_stream, 2).await;
    assert_eq!(others_see.len(), 2, "and nothing of the end of another session");
}

#[tokio::test]
async fn concurrent_opens_leave_at_most_three_chat_sessions() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let (guest, org, project) = (scene.owner.clone(), scene.org.clone(), scene.project.clone());
        opening.spawn(async move { guest.open_chat(&org, &project).await.expect("a session") });
    }
    let windows = opening.join_all().await;
    let closed = windows.iter().filter(|window| window.closed.is_some()).count();
    assert_eq!(closed, 9);
    let mut open = 0;
    for window in &windows {
        let reply = scene.owner.pressing(window, "ready").send().await.expect("an answer");
        open += usize::from(reply.code() == 202);
    }
    assert_eq!(open, 3);
}

#[tokio::test]
async fn configuration_changes_apply_to_open_chat_sessions() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let owner = &scene.owner;
    let sessions = format!("{}/sessions", scene.chat());
    let first = scene.window(owner).await;
    let path = format!("/v1/orgs/{}/configs/events", scene.org);
    let mut changes = owner.client.events(&path, None).await.expect("a stream");
    set(owner, &scene, &mut changes, "chat.session_overflow", json!("refuse")).await;
    set(owner, &scene, &mut changes, "chat.max_active_sessions", json!(1)).await;
    refused(owner.client.post(&sessions), 409, "chat_session_limit").await;
    owner.press(&first, "ready").await.expect("the one that is open stays");

    set(owner, &scene, &mut changes, "chat.actions", json!(["thumbs_up"])).await;
    refused(owner.pressing(&first, "ready"), 422, "chat_action_not_offered").await;
    owner.press(&first, "thumbs_up").await.expect("offered");
    answered(owner.client.delete(format!("{sessions}/{}", first.session)), 204).await;
    let opened = answered(owner.client.post(&sessions), 201).await;
    assert_eq!(opened.json()["actions"], json!(["thumbs_up"]));
}

/// Sets a key of the organization, and waits until this process reports that it applies it.
async fn set(guest: &Guest, scene: &Scene, changes: &mut EventStream, key: &str, value: serde_json::Value) {
    let reply = guest.configure(&scene.org, key, value, "a test").await.expect("set");
    let revision = reply.json()["revision"].as_i64().expect("a number");
    while changes.must_see("config.changed", SOON).await.json()["revision"].as_i64() < Some(revision) {}
}

#[tokio::test]
async fn only_permitted_members_press_and_close() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let (member, viewer, stranger) = (scene.member().await, scene.join("viewer").await, atrium.guest().await);
    let (window, viewers) = (scene.window(&member).await, scene.window(&viewer).await);
    refused(viewer.pressing(&viewers, "ready"), 403, "forbidden").await;
    drop(open(&viewer, &viewers, None).await);

    // Another's session, from outside and from inside, is like one that does not exist.
    let elsewhere = scene.owner.project(&scene.org, "Elsewhere").await.expect("a project");
    let mut paths: Vec<String> = vec![format!("{}/sessions/{}", scene.chat(), uuid::Uuid::now_v7())];
    paths.push(format!("{}/sessions/{}", window.chat, window.session));
    paths.push(format!("/v1/orgs/{}/projects/{elsewhere}/chat/sessions/{}", scene.org, window.session));
    paths.push(format!("/v1/orgs/{}/projects/{}/chat/sessions/nonsense", scene.org, scene.project));
    for guest in [&stranger, &scene.owner] {
        for path in &paths {
            let press = guest.client.post(format!("{path}/actions")).json(json!({ "action": "ready" }));
            refused(press, 404, "not_found").await;
            refused(guest.client.delete(path), 404, "not_found").await;
            refused(guest.client.get(format!("{path}/events")), 404, "not_found").await;
        }
    }
    for path in [
        format!("{}/counters", scene.chat()),
        format!("/v1/orgs/{}/projects/{}/chat/counters", scene.org, scene.org),
    ] {
        refused(stranger.client.get(path), 404, "not_found").await;
    }
    refused(stranger.client.post(format!("{}/sessions", scene.chat())), 404, "not_found").await;

    // It was never touched.
    member.press(&window, "ready").await.expect("accepted");
    let own = format!("{}/sessions/{}", window.chat, window.session);
    let mut stream = open(&member, &window, None).await;
    for _ in 0..2 {
        answered(member.client.delete(&own), 204).await;
    }
    assert_eq!(stream.must_see("chat.session-closed", SOON).await.json()["reason"], json!("closed"));
    refused(member.pressing(&window, "ready"), 409, "chat_session_closed").await;
}

#[tokio::test]
async fn unknown_actions_are_rejected() {
    let atrium = Atrium::start().await;
    let scene = Scene::begin(&atrium).await;
    let window = scene.window(&scene.owner).await;
    for (body, code) in [
        (json!({ "action": "dance" }), "chat_action_not_offered"),
        (json!({ "action": "" }), "chat_action_not_offered"),
        (json!({ "action": 7 }), "validation_failed"),
        (json!({}), "validation_failed"),
        (json!({ "action": "ready", "text": "hello" }), "validation_failed"),
        (json!([]), "validation_failed"),
    ] {
        let press = scene.owner.client.post(window.actions()).json(body);
        refused(press, 422, code).await;
    }
    assert_eq!(scene.total(&scene.owner).await, 0);
}

#[tokio::test]
async fn actions_are_limited_per_person_and_project() {
    let atrium = Atrium::builder().default_limits().start().await;
    let scene = Scene::begin(&atrium).await;
    let member = scene.member().await;
    let (mine, theirs) = (scene.window(&scene.owner).await, scene.window(&member).await);
    let mut codes = Vec::new();
    for _ in 0..8 {
        codes.push(scene.owner.pressing(&mine, "ready").send().await.expect("an answer"));
    }
    let admitted = codes.iter().filter(|reply| reply.code() == 202).count();
    assert!((5..8).contains(&admitted), "{admitted} of 8 in less than a second");
    let limited = codes.into_iter().find(|reply| reply.code() == 429).expect("one too many");
    assert!(limited.header("retry-after").is_some() && limited.header("ratelimit").is_some());
    answered(member.pressing(&theirs, "ready"), 202).await;
}

#[tokio::test]
async fn without_redis_actions_are_rejected_and_streams_stay_open() {
    let atrium = Atrium::builder().private_redis().start().await;
    let scene = Scene::begin(&atrium).await;
    let window = scene.window(&scene.owner).await;
    let mut stream = open(&scene.owner, &window, None).await;
    scene.owner.press(&window, "ready").await.expect("accepted");
    actions(&mut stream, 1).await;

    atrium.redis().sigkill().await;
    let later = refused(scene.owner.pressing(&window, "ready"), 503, "unavailable").await;
    assert_eq!(later.header("retry-after"), Some("1"));
    // A session needs no Redis.
    let second = scene.window(&scene.owner).await;
    drop(open(&scene.owner, &second, None).await);

    atrium.redis().respawn().await.expect("Redis");
    let id = scene.owner.press(&window, "deployed").await.expect("accepted again");
    // Whether Redis lost its last writes or not: the stream continues, possibly after a reset.
    let begun = std::time::Instant::now();
    while stream.must_next(SOON).await.json()["id"] != json!(id) {
        assert!(begun.elapsed() < SOON);
    }
}
