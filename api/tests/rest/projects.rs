//! Projects: created, read, renamed and deleted, according to the caller's role.

use atrium_harness::Atrium;
use serde_json::json;
use uuid::Uuid;

use crate::CheckedSend as _;

#[tokio::test]
async fn a_project_is_created_renamed_and_deleted() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Projects").await.unwrap();
    let client = &owner.client;
    let projects = format!("/v1/orgs/{org}/projects");
    let create = |name: &str| client.post(&projects).json(json!({ "name": name }));
    let created = create("Storefront").idempotency_key("k").answers(201).await;
    let path = format!("{projects}/{}", created.at("/id"));
    assert_eq!(created.header("location"), Some(path.as_str()));
    let again = create("Storefront").idempotency_key("k").answers(201).await;
    assert_eq!((again.body, again.headers.get("etag")), (created.body.clone(), created.headers.get("etag")));
    create("Backoffice").idempotency_key("k").refused(422, "idempotency_key_reused").await;
    // Names need not be unique.
    create("Storefront").answers(201).await;

    let read = client.get(&path).answers(200).await;
    assert_eq!((&read.body, read.etag()), (&created.body, created.etag()));
    let rename = |name: &str| client.patch(&path).json(json!({ "name": name }));
    rename("x").refused(428, "precondition_required").await;
    let renamed = rename("Shop").if_match(read.etag().unwrap()).answers(200).await;
    assert_eq!(renamed.at("/name"), "Shop");
    rename("x").if_match(read.etag().unwrap()).refused(412, "precondition_failed").await;

    client.delete(&path).answers(204).await;
    for request in [
        client.get(&path),
        client.delete(&path),
        rename("x").if_match("\"2\""),
        client.get(format!("{path}/configs")),
    ] {
        request.refused(404, "not_found").await;
    }
    assert_eq!(client.get(&projects).answers(200).await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn only_admins_and_owners_change_projects() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Roles").await.unwrap();
    let project = owner.project(&org, "P").await.unwrap();
    let projects = format!("/v1/orgs/{org}/projects");
    for role in ["viewer", "member"] {
        let guest = owner.invite_guest(&org, role).await.unwrap();
        let client = &guest.client;
        client.get(&projects).answers(200).await;
        let path = format!("{projects}/{project}");
        client.get(&path).answers(200).await;
        for refused in [
            client.post(&projects).json(json!({ "name": "x" })),
            client.patch(&path).if_match("\"1\"").json(json!({ "name": "x" })),
            client.delete(&path),
            client.patch(format!("/v1/orgs/{org}")).if_match("\"1\"").json(json!({ "name": "x" })),
        ] {
            refused.refused(403, "forbidden").await;
        }
    }
    let admin = owner.invite_guest(&org, "admin").await.unwrap();
    admin.project(&org, "by the admin").await.unwrap();
}

#[tokio::test]
async fn one_of_several_concurrent_renames_succeeds() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Race").await.unwrap();
    let path = format!("/v1/orgs/{org}/projects/{}", owner.project(&org, "P").await.unwrap());
    let etag = owner.client.get(&path).send().await.unwrap().etag().unwrap().to_owned();
    let racers: Vec<_> = (0..10)
        .map(|number| {
            let rename =
                owner.client.patch(&path).if_match(&etag).json(json!({ "name": format!("racer {number}") }));
            tokio::spawn(rename.send())
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        let reply = racer.await.unwrap().unwrap();
        match reply.code() {
            200 => won += 1,
            _ => drop(reply.must_be(412, "precondition_failed")),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_cursor_stays_valid_when_items_change_between_pages() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Pages").await.unwrap();
    let projects = format!("/v1/orgs/{org}/projects");
    let mut made = Vec::new();
    for number in 0..6 {
        made.push(owner.project(&org, &format!("P{number}")).await.unwrap());
    }
    let page = owner.client.get(format!("{projects}?limit=2")).answers(200).await;
    // The last item of the first page is deleted, and a new project is created, which sorts before it.
    owner.client.delete(format!("{projects}/{}", made[4])).answers(204).await;
    owner.project(&org, "new").await.unwrap();
    let next = format!("{projects}?limit=2&cursor={}", page.at("/next_cursor"));
    let next = owner.client.get(next).answers(200).await.json();
    let ids: Vec<_> =
        next["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [made[3].as_str(), made[2].as_str()]);
    let unknown = format!("{projects}/{}", Uuid::now_v7());
    owner.client.get(unknown).refused(404, "not_found").await;
}
