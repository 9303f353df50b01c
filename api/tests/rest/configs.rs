//! Configuration over REST: scopes, revisions, history, and the revisions that the processes have applied.

use std::time::Instant;

use atrium_harness::{Atrium, client::Client, operator};
use serde_json::{Value, json};

use crate::{CheckedSend as _, until};

const KEY: &str = "chat.max_active_sessions";

#[tokio::test]
async fn configuration_values_resolve_through_the_scopes() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Layers").await.unwrap();
    let project = owner.project(&org, "P").await.unwrap();
    let client = &owner.client;
    let at_org = format!("/v1/orgs/{org}/configs");
    let at_project = format!("/v1/orgs/{org}/projects/{project}/configs");

    let list = client.get(&at_org).answers(200).await;
    assert_eq!(list.etag(), Some(format!("\"{}\"", list.json()["revision"]).as_str()));
    assert!(list.json()["items"].as_array().unwrap().len() >= 9);
    let read = |base: &str| client.get(format!("{base}/{KEY}")).send();
    let first = read(&at_org).await.unwrap().must(200);
    let revision = first.json()["revision"].as_i64().unwrap();

    let set = |base: &str, etag: &str, value| {
        client
            .put(format!("{base}/{KEY}"))
            .if_match(etag)
            .json(json!({ "value": value, "reason": "a test" }))
            .send()
    };
    let changed = set(&at_org, first.etag().unwrap(), json!(7)).await.unwrap().must(200);
    assert_eq!(
        (changed.json()["revision"].clone(), changed.at("/value"), changed.at("/source")),
        (json!(revision + 1), "7".into(), "organization".into())
    );
    // The new value can be read immediately, through any process.
    let seen = read(&at_project).await.unwrap().must(200);
    assert_eq!(
        (seen.at("/value"), seen.at("/source"), seen.etag()),
        ("7".into(), "organization".into(), changed.etag())
    );
    let narrow = set(&at_project, changed.etag().unwrap(), json!(1)).await.unwrap().must(200);
    assert_eq!((narrow.at("/value"), narrow.at("/source")), ("1".into(), "project".into()));
    assert_eq!(read(&at_org).await.unwrap().at("/value"), "7");

    let explained = client.get(format!("{at_project}/{KEY}/explain")).answers(200).await.json();
    let layers: Vec<_> = explained["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| (layer["source"].clone(), layer["set"].clone(), layer["value"].clone()))
        .collect();
    assert_eq!(
        layers,
        [
            (json!("builtin"), json!(true), json!(3)),
            (json!("default"), json!(false), json!(null)),
            (json!("organization"), json!(true), json!(7)),
            (json!("project"), json!(true), json!(1)),
        ]
    );

    let unset = client
        .delete(format!("{at_project}/{KEY}?reason=no%20longer%20needed"))
        .if_match(narrow.etag().unwrap());
    let unset = unset.answers(200).await;
    assert_eq!(
        (unset.at("/value"), unset.at("/source"), unset.json()["revision"].clone()),
        ("7".into(), "organization".into(), json!(revision + 3))
    );

    let history = client.get(format!("{at_project}/{KEY}/history")).answers(200).await.json();
    let entries = history["items"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(
        (&entries[0]["action"], &entries[0]["old_value"], &entries[0]["new_value"]),
        (&json!("unset"), &json!(1), &json!(null))
    );
    assert_eq!(
        (&entries[0]["reason"], &entries[0]["author"]["id"]),
        (&json!("no longer needed"), &json!(owner.id))
    );
    assert_eq!(
        (&entries[1]["action"], &entries[1]["scope"], &entries[1]["new_value"]),
        (&json!("set"), &json!("project"), &json!(1))
    );
    let page = client.get(format!("{at_org}/{KEY}/history?limit=1")).answers(200).await;
    let next = format!("{at_org}/{KEY}/history?limit=100&cursor={}", page.at("/next_cursor"));
    let rest = client.get(next).answers(200).await.json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn invalid_changes_are_rejected_and_keep_the_revision() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Refusals").await.unwrap();
    let member = owner.invite_guest(&org, "member").await.unwrap();
    let base = format!("/v1/orgs/{org}/configs");
    let before = owner.client.get(&base).answers(200).await;
    let etag = before.etag().unwrap().to_owned();
    let put = |key: &str, body| owner.client.put(format!("{base}/{key}")).json(body);
    let good = || json!({ "value": 2, "reason": "a test" });

    put(KEY, good()).refused(428, "precondition_required").await;
    put(KEY, good()).if_match("\"999999\"").refused(412, "precondition_failed").await;
    put(KEY, good()).if_match("W/\"1\"").refused(412, "precondition_failed").await;
    for key in ["chat.unknown", "CHAT.MAX_ACTIVE_SESSIONS", "..", "a%00b", "%F0%9F%99%82"] {
        put(key, good()).if_match(&etag).refused(404, "config_key_unknown").await;
        owner.client.get(format!("{base}/{key}")).refused(404, "config_key_unknown").await;
    }
    for key in ["log.level", "limits.requests_per_minute", "saga.fail_step"] {
        let refused =
            put(key, json!({ "value": "debug", "reason": "x" })).if_match(&etag).send().await.unwrap();
        let _ = refused.must_be(422, "config_scope_not_allowed");
    }
    for (key, value, pointer) in [
        (KEY, json!(0), "/value"),
        (KEY, json!(21), "/value"),
        (KEY, json!("2"), "/value"),
        (KEY, json!(2.5), "/value"),
        (KEY, json!(null), "/value"),
        (KEY, json!({ "a": [1] }), "/value"),
        (KEY, json!(1e300), "/value"),
        ("chat.actions", json!([]), "/value"),
        ("chat.actions", json!(["ready", "ready"]), "/value"),
        ("chat.actions", json!(["ready", "dance"]), "/value/1"),
        ("chat.session_overflow", json!("explode"), "/value"),
    ] {
        let refused =
            put(key, json!({ "value": value, "reason": "x" })).if_match(&etag).send().await.unwrap();
        assert_eq!(
            refused.must_be(422, "config_value_invalid").at("/errors/0/pointer"),
            pointer,
            "{key} = {value}"
        );
    }
    for wrong in [
        json!({ "value": 2 }),
        json!({ "reason": "x" }),
        json!({ "value": 2, "reason": " " }),
        json!({ "value": 2, "reason": "x".repeat(501) }),
        json!({ "value": 2, "reason": "a\u{0}" }),
        json!({ "value": 2, "reason": "x", "revision": 9 }),
    ] {
        put(KEY, wrong).if_match(&etag).refused(422, "validation_failed").await;
    }
    for query in ["", "?reason=", "?reason=%20", "?reason=a&reason=b", "?reason=a&force=true"] {
        let unset = owner.client.delete(format!("{base}/{KEY}{query}")).if_match(&etag);
        unset.refused(422, "validation_failed").await;
    }
    let refused =
        member.client.put(format!("{base}/{KEY}")).if_match(&etag).json(good()).send().await.unwrap();
    let _ = refused.must_be(403, "forbidden");
    member.client.get(&base).answers(200).await;
    assert_eq!(owner.client.get(&base).answers(200).await.body, before.body);
}

#[tokio::test]
async fn one_of_many_concurrent_changes_succeeds_for_each_revision() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Race").await.unwrap();
    let path = format!("/v1/orgs/{org}/configs/{KEY}");
    let etag = owner.client.get(&path).send().await.unwrap().etag().unwrap().to_owned();
    let racers: Vec<_> = (1..=10)
        .map(|value| {
            let set =
                owner.client.put(&path).if_match(&etag).json(json!({ "value": value, "reason": "a race" }));
            tokio::spawn(set.send())
        })
        .collect();
    let mut won = Vec::new();
    for racer in racers {
        let reply = racer.await.unwrap().unwrap();
        match reply.code() {
            200 => won.push(reply.at("/value")),
            _ => drop(reply.must_be(412, "precondition_failed")),
        }
    }
    assert_eq!(won.len(), 1);
    assert_eq!(owner.client.get(&path).send().await.unwrap().at("/value"), won[0]);
}

/// Waits until the configuration status that this client reads lists this number of processes, all at the revision.
/// Returns the status.
///
/// A process that has not loaded the organization yet counts as up to date, and is not listed.
pub(crate) async fn until_applied(client: &Client, org: &str, revision: &Value, processes: usize) -> Value {
    let mut status = Value::Null;
    until(
        &format!("{processes} processes have applied {revision}, according to {}", client.base()),
        async || {
            status = client.get(format!("/v1/orgs/{org}/configs/status")).answers(200).await.json();
            assert_eq!(status["revision"], *revision);
            let reported = status["processes"].as_array().unwrap();
            reported.len() == processes && reported.iter().all(|process| process["revision"] == *revision)
        },
    )
    .await;
    status
}

#[tokio::test]
async fn every_process_reports_the_revision_that_it_applied() {
    let atrium = Atrium::builder().apis(2).start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Status").await.unwrap();
    let started_at = Instant::now();
    let revision = owner.configure(&org, KEY, json!(2), "a test").await.unwrap().json()["revision"].clone();
    let status = until_applied(&owner.client, &org, &revision, 3).await;
    assert_eq!((&status["applied"], &status["total"]), (&json!(3), &json!(3)));
    let elapsed_ms = started_at.elapsed().as_secs_f64() * 1000.0;
    let mut lags =
        status["processes"].as_array().unwrap().iter().map(|process| process["lag_ms"].as_f64().unwrap());
    assert!(lags.all(|lag| lag <= elapsed_ms), "{status}");
}

#[tokio::test]
async fn quotas_are_set_by_operators_only_and_read_by_every_member() {
    let atrium = &Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Quotas").await.unwrap();
    let path = format!("/v1/orgs/{org}/configs/quotas.projects");
    let before = owner.client.get(&path).answers(200).await;
    assert_eq!(
        (before.at("/value"), before.at("/source"), before.at("/set_by")),
        ("100".into(), "builtin".into(), "operator".into())
    );
    let change = json!({ "value": 5000, "reason": "we want more" });
    owner.client.put(&path).if_match("*").json(change).refused(403, "config_operator_only").await;
    let unset = owner.client.delete(format!("{path}?reason=more")).if_match("*");
    unset.refused(403, "config_operator_only").await;
    let stranger = atrium.guest().await;
    let change = json!({ "value": 5000, "reason": "x" });
    stranger.client.put(&path).if_match("*").json(change).refused(404, "not_found").await;

    atrium.set_for(&org, "quotas.projects", json!(7)).await;
    atrium.set_default("quotas.projects", json!(50)).await;
    let viewer = owner.invite_guest(&org, "viewer").await.unwrap();
    let granted = viewer.client.get(&path).answers(200).await;
    assert_eq!((granted.at("/value"), granted.at("/source")), ("7".into(), "organization".into()));
    let history = owner.client.get(format!("{path}/history")).answers(200).await.json();
    assert_eq!(
        (&history["items"][0]["author"], &history["items"][0]["reason"]),
        (&json!(null), &json!("a test"))
    );
    let ctl = |arguments: &str| {
        let arguments = format!("config {arguments} --org {org}");
        async move {
            let arguments: Vec<_> = arguments.split(' ').collect();
            operator::run(atrium.wiring(), &arguments).await.unwrap()
        }
    };
    let list = ctl("list").await;
    let granted = |line: &str| line.starts_with("quotas.projects") && line.ends_with("7  (organization)");
    assert!(list.lines().any(granted), "{list}");
    ctl("unset quotas.projects --reason over").await;
    assert_eq!(ctl("get quotas.projects").await.trim(), "50");
    let unknown_org = ["config", "set", "quotas.projects", "1", "--reason", "x", "--org", &stranger.id];
    let refused = operator::run(atrium.wiring(), &unknown_org).await.unwrap_err().to_string();
    assert!(refused.contains("does not exist"), "{refused}");
    let default_only = ["config", "set", "log.level", "\"info\"", "--reason", "x", "--org", &org];
    assert!(
        operator::run(atrium.wiring(), &default_only).await.is_err(),
        "the key can be set in the default scope only"
    );
}
