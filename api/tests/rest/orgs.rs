//! Organizations: from PENDING to COMMITTED or FAILED, and their invisibility to other users.

use atrium_harness::Atrium;
use serde_json::json;
use uuid::Uuid;

use crate::{CheckedSend as _, assert_identical_problems, failed_creation, final_status};

#[tokio::test]
async fn an_organization_is_created_and_renamed() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let client = &guest.client;
    let accepted = client.post("/v1/orgs").json(json!({ "name": "  Northwind  " })).answers(202).await;
    let org = accepted.at("/id");
    assert_eq!(
        (accepted.at("/name"), accepted.at("/status"), accepted.at("/role")),
        ("Northwind".into(), "PENDING".into(), "owner".into())
    );
    assert_eq!(accepted.header("location"), Some(format!("/v1/orgs/{org}").as_str()));
    let operation = format!("/v1/operations/{}", accepted.at("/operation_id"));
    assert_eq!(accepted.header("operation-location"), Some(operation.as_str()));

    assert_eq!(final_status(client, &operation).await, "COMMITTED");
    let finished = client.get(&operation).answers(200).await;
    assert!(
        finished.json()["steps"].as_array().unwrap().iter().all(|step| step["status"] == "DONE"),
        "{}",
        finished.describe()
    );

    let path = format!("/v1/orgs/{org}");
    let read = client.get(&path).answers(200).await;
    assert_eq!(read.at("/status"), "COMMITTED");
    let etag = read.etag().unwrap().to_owned();
    let rename = |name: &str| client.patch(&path).json(json!({ "name": name }));
    rename("b").refused(428, "precondition_required").await;
    let renamed = rename("Northwind Traders").if_match(&etag).answers(200).await;
    assert_eq!((renamed.at("/name"), renamed.at("/slug")), ("Northwind Traders".into(), read.at("/slug")));
    assert_ne!(renamed.etag(), Some(etag.as_str()));
    rename("late").if_match(&etag).refused(412, "precondition_failed").await;
    rename("any").if_match("*").answers(200).await;
    assert_eq!(client.get(&path).send().await.unwrap().at("/name"), "any");
}

#[tokio::test]
async fn strangers_cannot_tell_whether_an_organization_exists() {
    let atrium = Atrium::start().await;
    let (owner, stranger) = (atrium.guest().await, atrium.guest().await);
    let org = owner.organization("Secret").await.unwrap();
    let project = owner.project(&org, "Secret").await.unwrap();
    let created = owner.create_organization("Second").await.unwrap();
    let (unknown, malformed) = (Uuid::now_v7().to_string(), "no-uuid".to_owned());
    let client = &stranger.client;

    let mut replies = Vec::new();
    for id in
        [&org, &unknown, &malformed, &format!("{{{org}}}"), &org.replace('-', ""), &Uuid::nil().to_string()]
    {
        replies.push(client.get(format!("/v1/orgs/{id}")).send().await.unwrap());
        for below in [
            "members",
            "invitations",
            "projects",
            "configs",
            "configs/status",
            "configs/log.level",
            "configs/nonsense",
            "configs/log.level/history",
            "configs/log.level/explain",
            "configs/events",
        ] {
            replies.push(client.get(format!("/v1/orgs/{id}/{below}")).send().await.unwrap());
        }
        for project in [&project, &unknown, &malformed] {
            for below in
                ["", "/configs", "/configs/log.level", "/configs/log.level/explain", "/chat/counters"]
            {
                replies.push(
                    client.get(format!("/v1/orgs/{id}/projects/{project}{below}")).send().await.unwrap(),
                );
            }
        }
    }
    for operation in [&created.operation, &unknown, &malformed] {
        replies.push(client.get(format!("/v1/operations/{operation}")).send().await.unwrap());
    }
    // The owner gets the same response for ids that do not exist.
    replies.push(owner.client.get(format!("/v1/orgs/{unknown}")).send().await.unwrap());
    replies.push(owner.client.get(format!("/v1/orgs/{org}/projects/{unknown}")).send().await.unwrap());
    let other = owner.organization("Other").await.unwrap();
    replies.push(owner.client.get(format!("/v1/orgs/{other}/projects/{project}")).send().await.unwrap());
    assert_identical_problems(&replies, 404, "not_found");

    let mut replies = Vec::new();
    for id in [&org, &unknown, &malformed] {
        let name = || json!({ "name": "mine" });
        replies.push(
            client.patch(format!("/v1/orgs/{id}")).if_match("\"1\"").json(name()).send().await.unwrap(),
        );
        replies.push(client.post(format!("/v1/orgs/{id}/projects")).json(name()).send().await.unwrap());
        replies.push(
            client
                .post(format!("/v1/orgs/{id}/invitations"))
                .json(json!({ "role": "owner" }))
                .send()
                .await
                .unwrap(),
        );
        let project = format!("/v1/orgs/{id}/projects/{project}");
        replies.push(client.patch(&project).if_match("\"1\"").json(name()).send().await.unwrap());
        replies.push(client.delete(&project).send().await.unwrap());
        replies.push(client.post(format!("{project}/chat/sessions")).send().await.unwrap());
        let set = client.put(format!("/v1/orgs/{id}/configs/chat.max_active_sessions")).if_match("\"1\"");
        replies.push(set.json(json!({ "value": 1, "reason": "x" })).send().await.unwrap());
        let unset = client.delete(format!("/v1/orgs/{id}/configs/nonsense?reason=x")).if_match("\"1\"");
        replies.push(unset.send().await.unwrap());
    }
    assert_identical_problems(&replies, 404, "not_found");
    assert_eq!(client.get("/v1/orgs").answers(200).await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_pending_organization_rejects_changes() {
    let atrium = Atrium::builder().workers([]).start().await;
    let guest = atrium.guest().await;
    let client = &guest.client;
    let org = guest.create_organization("Waiting").await.unwrap().org;
    assert_eq!(client.get(format!("/v1/orgs/{org}")).answers(200).await.at("/status"), "PENDING");
    client.get(format!("/v1/orgs/{org}/members")).answers(200).await;
    let replies = [
        client
            .patch(format!("/v1/orgs/{org}"))
            .if_match("\"1\"")
            .json(json!({ "name": "a" }))
            .send()
            .await
            .unwrap(),
        client.post(format!("/v1/orgs/{org}/projects")).json(json!({ "name": "a" })).send().await.unwrap(),
        client
            .post(format!("/v1/orgs/{org}/invitations"))
            .json(json!({ "role": "member" }))
            .send()
            .await
            .unwrap(),
    ];
    for refused in replies {
        let _ = refused.must_be(409, "organization_not_ready");
    }
}

#[tokio::test]
async fn the_operation_of_a_failed_creation_can_be_read() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let steps = {
        let created = guest.create_organization("First").await.unwrap();
        guest.organization("Second").await.unwrap();
        guest.client.get(format!("/v1/operations/{}", created.operation)).answers(200).await.json()["steps"]
            .clone()
    };
    let last = steps.as_array().unwrap().last().unwrap()["name"].as_str().unwrap().to_owned();
    atrium.set_default("saga.fail_step", json!(format!("organization.create/{last}"))).await;
    let failed = failed_creation(&guest).await;
    let operation = guest.client.get(format!("/v1/operations/{}", failed.operation)).answers(200).await;
    assert_eq!(operation.json()["failure"].as_object().unwrap().len(), 2, "{}", operation.describe());
    assert!(
        operation.json()["steps"].as_array().unwrap().iter().all(|step| step["status"] != "DONE"),
        "{}",
        operation.describe()
    );
}

#[tokio::test]
async fn a_repeated_create_takes_effect_once() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let create =
        |name: &str| guest.client.post("/v1/orgs").json(json!({ "name": name })).idempotency_key("key-1");
    let first = create("Once").answers(202).await;
    let again = create("Once").answers(202).await;
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(again.header("operation-location"), first.header("operation-location"));
    assert_eq!(
        (first.header("idempotent-replayed"), again.header("idempotent-replayed")),
        (None, Some("true"))
    );
    create("Twice").refused(422, "idempotency_key_reused").await;

    // The same idempotency key of another user is a different key.
    let other = atrium.guest().await;
    let reply = other
        .client
        .post("/v1/orgs")
        .json(json!({ "name": "Once" }))
        .idempotency_key("key-1")
        .send()
        .await
        .unwrap();
    assert_ne!(reply.must(202).at("/id"), first.at("/id"));

    // Twenty concurrent repetitions create one organization.
    let concurrent: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn(
                guest
                    .client
                    .post("/v1/orgs")
                    .json(json!({ "name": "Storm" }))
                    .idempotency_key("key-2")
                    .send(),
            )
        })
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    for reply in concurrent {
        let reply = reply.await.unwrap().unwrap();
        match reply.code() {
            202 => drop(ids.insert(reply.at("/id"))),
            _ => drop(reply.must_be(409, "idempotency_in_flight")),
        }
    }
    assert_eq!(ids.len(), 1);
    let organizations = guest.client.get("/v1/orgs").answers(200).await.json();
    assert_eq!(organizations["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn organizations_are_listed_page_by_page() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let mut created = Vec::new();
    for number in 0..5 {
        created.push(guest.create_organization(&format!("Org {number}")).await.unwrap().org);
    }
    created.reverse();
    let mut listed = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = guest.client.get(format!("/v1/orgs{query}")).answers(200).await.json();
        let items = page["items"].as_array().unwrap();
        listed.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("?limit=2&cursor={cursor}"),
            None => break,
        }
        assert_eq!(items.len(), 2);
    }
    assert_eq!(listed, created);
}
