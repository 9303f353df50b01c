//! Members and invitations.

use atrium_harness::{Atrium, guest::Guest};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use sqlx::Connection as _;

use crate::{CheckedSend as _, PATIENCE, assert_identical_problems};

#[tokio::test]
async fn an_invitation_code_admits_one_person_once() {
    let atrium = Atrium::start().await;
    let (owner, guest, late_guest) = (atrium.guest().await, atrium.guest().await, atrium.guest().await);
    let org = owner.organization("Club").await.unwrap();
    let invitations = format!("/v1/orgs/{org}/invitations");
    let invite = |body| owner.client.post(&invitations).json(body);
    let created = invite(json!({ "role": "member", "expires_in_seconds": 60 })).answers(201).await;
    let accept = |client: &atrium_harness::client::Client, code: &str| {
        client.post("/v1/invitations/accept").json(json!({ "code": code }))
    };
    let code = created.at("/code");
    let joined = accept(&guest.client, &code).answers(200).await;
    assert_eq!((joined.at("/org/id"), joined.at("/org/role")), (org.clone(), "member".into()));

    // A member who accepts another invitation keeps the role and does not use up the code.
    let better = invite(json!({ "role": "admin" })).answers(201).await;
    let unchanged = accept(&guest.client, &better.at("/code")).answers(200).await;
    assert_eq!(unchanged.at("/org/role"), "member");

    let revoked = invite(json!({ "role": "viewer" })).answers(201).await;
    let revoke = format!("{invitations}/{}", revoked.at("/id"));
    for _ in 0..2 {
        owner.client.delete(&revoke).answers(204).await;
    }
    let expired = invite(json!({ "role": "viewer" })).answers(201).await;
    sqlx::query("UPDATE invitations SET expires_at = now() - interval '1 second' WHERE id = $1::uuid")
        .bind(expired.at("/id"))
        .execute(&mut atrium.superuser().await)
        .await
        .unwrap();
    let mut tampered = better.at("/code");
    let last = if tampered.ends_with('A') { 'B' } else { 'A' };
    tampered.replace_range(tampered.len() - 2..tampered.len() - 1, &last.to_string());
    let mut refusals = Vec::new();
    for code in [
        code,
        revoked.at("/code"),
        expired.at("/code"),
        tampered,
        String::new(),
        "x".repeat(1000),
        "🙂".to_owned(),
        "a\u{0}".to_owned(),
    ] {
        refusals.push(accept(&late_guest.client, &code).send().await.unwrap());
    }
    assert_identical_problems(&refusals, 404, "invitation_not_found");

    let statuses = owner.client.get(&invitations).answers(200).await.json();
    let statuses: Vec<_> = statuses["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["status"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(statuses, ["EXPIRED", "REVOKED", "OPEN", "ACCEPTED"]);
    accept(&late_guest.client, &better.at("/code")).answers(200).await;

    // The database does not contain the codes.
    let mut connection = atrium.superuser().await;
    let stored: Vec<String> = sqlx::query_scalar("SELECT row_to_json(invitations)::text FROM invitations")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    assert!(stored.iter().all(|row| !row.contains(&better.at("/code"))));
}

#[tokio::test]
async fn one_of_several_guests_with_the_same_code_joins() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Race").await.unwrap();
    for _ in 0..5 {
        let code = owner.invite(&org, "member").await.unwrap();
        let mut racers = Vec::new();
        for _ in 0..4 {
            let guest = atrium.guest().await;
            racers.push(tokio::spawn(
                guest.client.post("/v1/invitations/accept").json(json!({ "code": code })).send(),
            ));
        }
        let mut joined = 0;
        for racer in racers {
            let reply = racer.await.unwrap().unwrap();
            match reply.code() {
                200 => joined += 1,
                _ => drop(reply.must_be(404, "invitation_not_found")),
            }
        }
        assert_eq!(joined, 1);
    }
    let members = owner.client.get(format!("/v1/orgs/{org}/members")).answers(200).await.json();
    assert_eq!(members["items"].as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn invitations_are_limited_to_the_creators_role() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Roles").await.unwrap();
    let invitations = format!("/v1/orgs/{org}/invitations");
    let admin = owner.invite_guest(&org, "admin").await.unwrap();
    let member = owner.invite_guest(&org, "member").await.unwrap();
    let viewer = admin.invite_guest(&org, "viewer").await.unwrap();
    admin.client.post(&invitations).json(json!({ "role": "owner" })).refused(403, "forbidden").await;
    admin.client.post(&invitations).json(json!({ "role": "admin" })).answers(201).await;
    for guest in [&member, &viewer] {
        guest.client.post(&invitations).json(json!({ "role": "viewer" })).refused(403, "forbidden").await;
        guest.client.get(&invitations).refused(403, "forbidden").await;
        guest.client.delete(format!("{invitations}/{}", guest.id)).refused(403, "forbidden").await;
        guest.client.get(format!("/v1/orgs/{org}/members")).answers(200).await;
    }
    for wrong in [
        json!({ "role": "king" }),
        json!({}),
        json!({ "role": "member", "expires_in_seconds": 59 }),
        json!({ "role": "member", "expires_in_seconds": 604_801 }),
        json!({ "role": "member", "expires_in_seconds": 60.5 }),
        json!({ "role": "member", "code": "x" }),
        json!({ "role": ["member"] }),
    ] {
        owner.client.post(&invitations).json(wrong).refused(422, "validation_failed").await;
    }

    let mut listed = Vec::new();
    let mut query = "?limit=1".to_owned();
    loop {
        let page = viewer.client.get(format!("/v1/orgs/{org}/members{query}")).answers(200).await;
        listed.push((page.at("/items/0/user/id"), page.at("/items/0/role")));
        match page.at("/next_cursor").as_str() {
            "" => break,
            cursor => query = format!("?limit=1&cursor={cursor}"),
        }
    }
    let expected = [(&owner, "owner"), (&admin, "admin"), (&member, "member"), (&viewer, "viewer")];
    assert_eq!(listed, expected.map(|(guest, role)| (guest.id.clone(), role.to_owned())));
}

#[tokio::test]
async fn forged_cursors_are_rejected() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Cursors").await.unwrap();
    // Before PostgreSQL's first timestamp, before any member joined, and after the last timestamp.
    for microseconds in [-220_000_000_000_000_000, -1, i64::MAX, i64::MIN] {
        let cursor = BASE64_URL_SAFE_NO_PAD.encode(json!([microseconds, owner.id]).to_string());
        let page = owner.client.get(format!("/v1/orgs/{org}/members?cursor={cursor}"));
        page.refused(422, "validation_failed").await;
    }
}

#[tokio::test]
async fn role_changes_respect_the_callers_role_and_keep_an_owner() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Roles").await.unwrap();
    let admin = owner.invite_guest(&org, "admin").await.unwrap();
    let member = owner.invite_guest(&org, "member").await.unwrap();
    let stranger = atrium.guest().await;
    let path = |guest: &Guest| format!("/v1/orgs/{org}/members/{}", guest.id);
    let set_role =
        |by: &Guest, to: &Guest, role: &str| by.client.patch(path(to)).json(json!({ "role": role }));

    set_role(&admin, &member, "owner").refused(403, "forbidden").await;
    set_role(&admin, &owner, "viewer").refused(403, "forbidden").await;
    set_role(&member, &member, "admin").refused(403, "forbidden").await;
    set_role(&owner, &stranger, "member").refused(404, "not_found").await;
    set_role(&stranger, &member, "viewer").refused(404, "not_found").await;
    set_role(&owner, &owner, "admin").refused(409, "last_owner").await;
    owner.client.delete(path(&owner)).refused(409, "last_owner").await;
    admin.client.delete(path(&owner)).refused(403, "forbidden").await;
    member.client.delete(path(&admin)).refused(403, "forbidden").await;
    set_role(&owner, &member, "king").refused(422, "validation_failed").await;

    let changed = set_role(&admin, &member, "admin").answers(200).await;
    assert_eq!((changed.at("/role"), changed.at("/user/name")), ("admin".into(), member.name.clone()));
    // An invitation is no longer valid when its role is higher than its creator's current role.
    let code = member.invite(&org, "admin").await.unwrap();
    set_role(&owner, &member, "member").answers(200).await;
    let accept = |code: &str| stranger.client.post("/v1/invitations/accept").json(json!({ "code": code }));
    accept(&code).refused(404, "invitation_not_found").await;

    let transfer =
        |to: &str| owner.client.post(format!("/v1/orgs/{org}/transfer")).json(json!({ "user_id": to }));
    transfer(&stranger.id).refused(404, "not_found").await;
    transfer(&owner.id).refused(422, "validation_failed").await;
    assert_eq!(transfer(&admin.id).answers(200).await.at("/role"), "admin");
    transfer(&admin.id).refused(403, "forbidden").await;
    set_role(&admin, &owner, "viewer").answers(200).await;
    owner.client.delete(path(&owner)).answers(204).await;
    owner.client.get(format!("/v1/orgs/{org}")).refused(404, "not_found").await;
    admin.client.delete(path(&owner)).refused(404, "not_found").await;
}

#[tokio::test]
async fn concurrent_owner_removals_leave_one_owner() {
    let atrium = Atrium::builder().apis(2).start().await;
    for round in 0..8 {
        let owner = atrium.guest().await;
        let org = owner.organization("Duel").await.unwrap();
        let other = owner.invite_guest(&org, "owner").await.unwrap();
        let path = |guest: &Guest| format!("/v1/orgs/{org}/members/{}", guest.id);
        let elsewhere = other.client.at(atrium.api(1).url());
        let (one, two) = if round % 2 == 0 {
            // Each owner demotes the other one.
            tokio::join!(
                owner.client.patch(path(&other)).json(json!({ "role": "viewer" })).send(),
                elsewhere.patch(path(&owner)).json(json!({ "role": "viewer" })).send()
            )
        } else {
            // Each owner leaves.
            tokio::join!(owner.client.delete(path(&owner)).send(), elsewhere.delete(path(&other)).send())
        };
        let codes = [one.unwrap().code(), two.unwrap().code()];
        assert_eq!(codes.iter().filter(|code| **code < 300).count(), 1, "{codes:?}");
        let owners: i64 =
            sqlx::query_scalar("SELECT count(*) FROM members WHERE org_id = $1::uuid AND role = 'owner'")
                .bind(&org)
                .fetch_one(&mut atrium.superuser().await)
                .await
                .unwrap();
        assert_eq!(owners, 1);
    }
}

#[tokio::test]
async fn a_removed_member_loses_access_in_every_process() {
    let atrium = Atrium::builder().apis(2).start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Goodbye").await.unwrap();
    let project = owner.project(&org, "Harbor").await.unwrap();
    let (leaver, remaining) = (
        owner.invite_guest(&org, "member").await.unwrap(),
        owner.invite_guest(&org, "member").await.unwrap(),
    );
    let code = leaver_code(&owner, &leaver, &org).await;
    let elsewhere = leaver.client.at(atrium.api(1).url());
    let window = leaver.open_chat(&org, &project).await.unwrap();
    let others = remaining.open_chat(&org, &project).await.unwrap();
    let mut chat = elsewhere.events(&window.events(), None).await.unwrap();
    let mut configs = elsewhere.events(&format!("/v1/orgs/{org}/configs/events"), None).await.unwrap();
    let mut unaffected =
        remaining.client.at(atrium.api(1).url()).events(&others.events(), None).await.unwrap();
    // Both processes have cached the chat session.
    for client in [&leaver.client, &elsewhere] {
        client.post(window.actions()).json(json!({ "action": "ready" })).answers(202).await;
    }

    owner.client.delete(format!("/v1/orgs/{org}/members/{}", leaver.id)).answers(204).await;
    chat.must_end(PATIENCE).await;
    configs.must_end(PATIENCE).await;
    for client in [&leaver.client, &elsewhere] {
        let mut refused =
            client.post(window.actions()).json(json!({ "action": "ready" })).send().await.unwrap();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while refused.code() != 404 && tokio::time::Instant::now() < deadline {
            refused = client.post(window.actions()).json(json!({ "action": "ready" })).send().await.unwrap();
        }
        let _ = refused.must_be(404, "not_found");
        client.get(window.events()).refused(404, "not_found").await;
    }
    leaver
        .client
        .post("/v1/invitations/accept")
        .json(json!({ "code": code }))
        .refused(404, "invitation_not_found")
        .await;

    // Other members are unaffected.
    remaining.press(&others, "deployed").await.unwrap();
    loop {
        let event = unaffected.must_see("chat.action", PATIENCE).await;
        if event.json()["action"] == "deployed" {
            break;
        }
    }
    // A removed member who is invited again has full access.
    leaver.join(&org, &owner.invite(&org, "member").await.unwrap()).await.unwrap();
    let window = leaver.open_chat(&org, &project).await.unwrap();
    let mut rejoined = elsewhere.events(&window.events(), None).await.unwrap();
    leaver.press(&window, "ready").await.unwrap();
    rejoined.must_see("chat.action", PATIENCE).await;
}

/// A code that `leaver` creates after being promoted to admin.
async fn leaver_code(owner: &Guest, leaver: &Guest, org: &str) -> String {
    let path = format!("/v1/orgs/{org}/members/{}", leaver.id);
    owner.client.patch(&path).json(json!({ "role": "admin" })).answers(200).await;
    leaver.invite(org, "member").await.unwrap()
}

#[tokio::test]
async fn a_deleted_projects_streams_end_and_others_continue() {
    let atrium = Atrium::builder().apis(2).start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Projects").await.unwrap();
    let (deleted, remaining) =
        (owner.project(&org, "Gone").await.unwrap(), owner.project(&org, "Stays").await.unwrap());
    let client = owner.client.at(atrium.api(1).url());
    let (window, other) =
        (owner.open_chat(&org, &deleted).await.unwrap(), owner.open_chat(&org, &remaining).await.unwrap());
    let mut deleted_events = client.events(&window.events(), None).await.unwrap();
    let mut remaining_events = client.events(&other.events(), None).await.unwrap();
    owner.client.delete(format!("/v1/orgs/{org}/projects/{deleted}")).answers(204).await;
    deleted_events.must_end(PATIENCE).await;
    owner.press(&other, "ready").await.unwrap();
    remaining_events.must_see("chat.action", PATIENCE).await;
}

#[tokio::test]
async fn quotas_hold_under_concurrent_creates() {
    let atrium = Atrium::builder().apis(2).start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Quotas").await.unwrap();
    for key in ["quotas.projects", "quotas.members"] {
        atrium.set_for(&org, key, json!(3)).await;
    }
    let projects = format!("/v1/orgs/{org}/projects");
    let mut racers = Vec::new();
    for n in 0..10 {
        let client = owner.client.at(atrium.api(n % 2).url());
        let guest = atrium.guest().await;
        let code = owner.invite(&org, "viewer").await.unwrap();
        let accept = guest.client.post("/v1/invitations/accept").json(json!({ "code": code }));
        racers.push(tokio::spawn(async move { accept.send().await.unwrap() }));
        let create = client.post(&projects).json(json!({ "name": format!("Project {n}") }));
        racers.push(tokio::spawn(async move { create.send().await.unwrap() }));
    }
    let mut added = [0, 0];
    for (n, racer) in racers.into_iter().enumerate() {
        let reply = racer.await.unwrap();
        match reply.code() {
            200 | 201 => added[n % 2] += 1,
            _ => drop(reply.must_be(409, "quota_reached")),
        }
    }
    assert_eq!(added, [2, 3], "two members in addition to the owner, three projects");
    let first = owner.client.get(&projects).answers(200).await.at("/items/0/id");
    owner.client.delete(format!("{projects}/{first}")).answers(204).await;
    owner.client.post(&projects).json(json!({ "name": "Room again" })).answers(201).await;
    // An existing member can accept an invitation although the quota is reached.
    let code = owner.invite(&org, "viewer").await.unwrap();
    owner.client.post("/v1/invitations/accept").json(json!({ "code": code })).answers(200).await;
}
