//! Members and invitations: one code, one person.

use atrium_devstack::testing::Atrium;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use sqlx::Connection as _;

use crate::{Ask as _, alike};

#[tokio::test]
async fn a_code_lets_one_person_in_once() {
    let atrium = Atrium::start().await;
    let (owner, guest, late) = (atrium.guest().await, atrium.guest().await, atrium.guest().await);
    let org = owner.organization("Club").await.unwrap();
    let invitations = format!("/v1/orgs/{org}/invitations");
    let invite = |body| owner.client.post(&invitations).json(body);
    let made = invite(json!({ "role": "member", "expires_in_seconds": 60 })).answers(201).await;
    let accept = |client: &atrium_devstack::client::Client, code: &str| {
        client.post("/v1/invitations/accept").json(json!({ "code": code }))
    };
    let code = made.at("/code");
    let joined = accept(&guest.client, &code).answers(200).await;
    assert_eq!((joined.at("/org/id"), joined.at("/org/role")), (org.clone(), "member".into()));

    // Who has joined stays what they are, and does not use up a code.
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
        refusals.push(accept(&late.client, &code).send().await.unwrap());
    }
    alike(&refusals, 404, "invitation_not_found");

    let statuses = owner.client.get(&invitations).answers(200).await.json();
    let statuses: Vec<_> = statuses["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["status"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(statuses, ["EXPIRED", "REVOKED", "OPEN", "ACCEPTED"]);
    accept(&late.client, &better.at("/code")).answers(200).await;

    // Who reads the database cannot join.
    let mut connection = atrium.superuser().await;
    let stored: Vec<String> = sqlx::query_scalar("SELECT row_to_json(invitations)::text FROM invitations")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    assert!(stored.iter().all(|row| !row.contains(&better.at("/code"))));
}

#[tokio::test]
async fn of_two_with_the_same_code_one_joins() {
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
async fn nobody_gives_away_more_than_they_have() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Roles").await.unwrap();
    let invitations = format!("/v1/orgs/{org}/invitations");
    let admin = owner.bring(&org, "admin").await.unwrap();
    let member = owner.bring(&org, "member").await.unwrap();
    let viewer = admin.bring(&org, "viewer").await.unwrap();
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
async fn a_cursor_that_nobody_was_given_is_refused() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Cursors").await.unwrap();
    // Before PostgreSQL's calendar begins, before anybody joined, and after all calendars.
    for microseconds in [-220_000_000_000_000_000, -1, i64::MAX, i64::MIN] {
        let cursor = BASE64_URL_SAFE_NO_PAD.encode(json!([microseconds, owner.id]).to_string());
        let page = owner.client.get(format!("/v1/orgs/{org}/members?cursor={cursor}"));
        page.refused(422, "validation_failed").await;
    }
}
