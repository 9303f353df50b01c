//! API keys: what their scopes permit, in which organization and for how long, and what the database stores of them.

use std::collections::BTreeMap;

use atrium_api::routes;
use atrium_contract::{Contract, Reply};
use atrium_harness::{Atrium, client::Client, guest::Guest};
use atrium_shared::api_key::ApiScope;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::Method;
use serde_json::{Value, json};

use crate::{CheckedSend as _, PATIENCE, assert_identical_problems, until};

fn all_scopes() -> Vec<&'static str> {
    ApiScope::ALL.iter().map(|scope| scope.name()).collect()
}

async fn create_key(guest: &Guest, org: &str, scopes: &[&str]) -> Reply {
    let body = json!({ "name": "Deployment", "scopes": scopes });
    guest.client.post(format!("/v1/orgs/{org}/api-keys")).json(body).answers(201).await
}

/// A client of an API process with a key.
fn client_with_key(atrium: &Atrium, api: usize, key: &Reply) -> Client {
    atrium.client_of(api).bearer(key.at("/key"))
}

async fn owner_with_organization(atrium: &Atrium, name: &str) -> (Guest, String) {
    let owner = atrium.guest().await;
    let org = owner.organization(name).await.unwrap();
    (owner, org)
}

async fn execute(atrium: &Atrium, statement: &'static str) {
    let done = sqlx::query(statement).execute(&mut atrium.superuser().await).await.unwrap();
    assert!(done.rows_affected() > 0, "{statement}");
}

#[tokio::test]
async fn a_key_is_shown_once_stored_as_a_hash_and_created_by_admins_only() {
    let atrium = Atrium::start().await;
    let (owner, org) = owner_with_organization(&atrium, "Northwind").await;
    let (admin, member) =
        (owner.invite_guest(&org, "admin").await.unwrap(), owner.invite_guest(&org, "member").await.unwrap());
    let path = format!("/v1/orgs/{org}/api-keys");
    let created = create_key(&admin, &org, &["config:read", "config:write"]).await;
    let key = created.at("/key");
    assert!(key.starts_with("atk_"));
    assert_eq!((created.at("/status").as_str(), created.at("/created_by")), ("ACTIVE", admin.id.clone()));
    assert_eq!(
        (&created.json()["expires_at"], &created.json()["last_used_at"]),
        (&Value::Null, &Value::Null)
    );

    let listed = owner.client.get(&path).answers(200).await;
    assert_eq!(listed.at("/items/0/id"), created.at("/id"));
    assert!(!listed.text().contains(&key) && listed.json()["items"][0]["key"].is_null());
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(&key[4..]).unwrap();
    let stored: String =
        sqlx::query_scalar("SELECT api_keys::text || audit_log::text FROM api_keys, audit_log LIMIT 1")
            .fetch_one(&mut atrium.superuser().await)
            .await
            .unwrap();
    let secret: String = bytes[32..].iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!stored.contains(&secret) && !stored.contains(&key[20..]), "{stored}");
    assert!(!atrium.api(0).logs().contains(&key));

    let create = |guest: &Guest, body: Value| guest.client.post(&path).json(body);
    create(&member, json!({ "name": "a", "scopes": ["config:read"] })).refused(403, "forbidden").await;
    member.client.get(&path).refused(403, "forbidden").await;
    // An admin cannot create a key with a scope that the admin role lacks.
    create(&admin, json!({ "name": "a", "scopes": ["export:read"] })).refused(403, "forbidden").await;
    create(&owner, json!({ "name": "a", "scopes": ["export:read"] })).answers(201).await;
    for wrong in [
        json!({ "name": "a" }),
        json!({ "scopes": ["config:read"] }),
        json!({ "name": "a", "scopes": [] }),
        json!({ "name": "a", "scopes": "config:read" }),
        json!({ "name": "a", "scopes": ["config:read", "config:read"] }),
        json!({ "name": "a", "scopes": ["config:delete"] }),
        json!({ "name": "a", "scopes": ["*"] }),
        json!({ "name": "", "scopes": ["config:read"] }),
        json!({ "name": "a", "scopes": ["config:read"], "expires_in_seconds": 59 }),
        json!({ "name": "a", "scopes": ["config:read"], "expires_in_seconds": 1e12 }),
        json!({ "name": "a", "scopes": ["config:read"], "key": "mine" }),
    ] {
        create(&owner, wrong).refused(422, "validation_failed").await;
    }

    // The list is paged, newest first.
    let first = owner.client.get(format!("{path}?limit=1")).answers(200).await;
    let second =
        owner.client.get(format!("{path}?limit=1&cursor={}", first.at("/next_cursor"))).answers(200).await;
    assert_eq!(second.at("/items/0/id"), created.at("/id"));
    assert_eq!(second.json()["next_cursor"], Value::Null);
    // The audit log has one entry for the creation and one for the revocation, although it was requested twice.
    let revoke = || admin.client.delete(format!("{path}/{}", created.at("/id")));
    revoke().answers(204).await;
    revoke().answers(204).await;
    let entries: Vec<(String, String)> =
        sqlx::query_as("SELECT action, actor_name FROM audit_log WHERE target_id = $1 ORDER BY seq")
            .bind(created.at("/id"))
            .fetch_all(&mut atrium.superuser().await)
            .await
            .unwrap();
    let entry = |action: &str| (action.to_owned(), admin.name.clone());
    assert_eq!(entries, [entry("api_key.created"), entry("api_key.revoked")]);
    assert_eq!(owner.client.get(&path).answers(200).await.at("/items/1/status"), "REVOKED");
}

#[tokio::test]
async fn a_key_permits_only_the_routes_of_its_scopes() {
    let atrium = Atrium::start().await;
    let (owner, org) = owner_with_organization(&atrium, "Northwind").await;
    let project = owner.project(&org, "Harbor").await.unwrap();
    let mut keys = BTreeMap::new();
    for scope in ApiScope::ALL {
        keys.insert(
            scope.name(),
            client_with_key(&atrium, 0, &create_key(&owner, &org, &[scope.name()]).await),
        );
    }
    let contract = Contract::load().unwrap();
    for route in routes::table() {
        let method = route.method.as_str().to_ascii_lowercase();
        let ways = &contract.document()["paths"][route.template][method.as_str()]["security"];
        let documented = ways.as_array().into_iter().flatten().find_map(|way| way["apiKeyAuth"][0].as_str());
        assert_eq!(documented, route.scope.map(ApiScope::name), "{method} {}", route.template);
        if route.access != routes::Access::User {
            continue;
        }
        let path = route.template.replace("{org}", &org).replace("{project}", &project);
        let path = path.replace("{key}", "chat.max_active_sessions").replace("{operation}", &org);
        for (scope, client) in &keys {
            // A request with an unknown query parameter changes nothing, but passes or fails authorization first.
            let path = if route.method == Method::GET { path.clone() } else { format!("{path}?nothing=1") };
            let request = client.request(route.method.clone(), path).unchecked();
            let about = format!("{method} {} with {scope}", route.template);
            if route.stream && route.scope.map(ApiScope::name) == Some(scope) {
                request.events().await.unwrap_or_else(|error| panic!("{about}: {error}"));
                continue;
            }
            let reply = request.send().await.unwrap();
            match route.scope {
                None => assert_eq!(
                    (reply.code(), reply.problem().as_str()),
                    (403, "api_key_not_accepted"),
                    "{about}"
                ),
                Some(required) if required.name() == *scope => {
                    assert!(![401, 403, 500].contains(&reply.code()), "{about}: {}", reply.describe());
                }
                Some(_) => assert_eq!(
                    (reply.code(), reply.problem().as_str()),
                    (403, "api_key_scope_missing"),
                    "{about}"
                ),
            }
        }
    }
}

#[tokio::test]
async fn changes_by_a_service_are_recorded_under_its_key() {
    let atrium = Atrium::start().await;
    let (owner, org) = owner_with_organization(&atrium, "Northwind").await;
    let created = create_key(&owner, &org, &all_scopes()).await;
    let service = client_with_key(&atrium, 0, &created);
    let path = format!("/v1/orgs/{org}/configs/chat.max_active_sessions");
    let tag = service.get(&path).answers(200).await.etag().unwrap().to_owned();
    let change = service.put(&path).if_match(tag).json(json!({ "value": 2, "reason": "by a service" }));
    // Requests with an API key are accepted from any origin, because a script of another site has no key.
    change.header("origin", "https://elsewhere.example").answers(200).await;
    let history = owner.client.get(format!("{path}/history")).answers(200).await;
    assert_eq!(history.json()["items"][0]["author"], Value::Null);
    assert_eq!(history.at("/items/0/api_key"), "Deployment");

    // A repeated create has one effect. Idempotency keys of different callers do not collide.
    let projects = format!("/v1/orgs/{org}/projects");
    let create =
        |client: &Client| client.post(&projects).json(json!({ "name": "Harbor" })).idempotency_key("same");
    let [first, second] = [create(&service).answers(201).await, create(&service).answers(201).await];
    assert_eq!((first.at("/id"), second.header("idempotent-replayed")), (second.at("/id"), Some("true")));
    assert_ne!(create(&owner.client).answers(201).await.at("/id"), first.at("/id"));
    let another = client_with_key(&atrium, 0, &create_key(&owner, &org, &all_scopes()).await);
    assert_ne!(create(&another).answers(201).await.at("/id"), first.at("/id"));

    let actors: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT action, actor_name, actor_id::text FROM audit_log WHERE actor_kind = 'api_key' AND actor_id = $1::uuid ORDER BY seq",
    )
    .bind(created.at("/id"))
    .fetch_all(&mut atrium.superuser().await)
    .await
    .unwrap();
    let actor = |action: &str| (action.to_owned(), "Deployment".to_owned(), created.at("/id"));
    assert_eq!(actors, [actor("config.set"), actor("project.created")]);

    // The key belongs to the organization, so its creator's logout does not end it.
    owner.client.post("/v1/auth/logout").answers(204).await;
    service.get(&projects).answers(200).await;
}

#[tokio::test]
async fn invalid_keys_get_identical_responses() {
    let atrium = Atrium::start().await;
    let (owner, org) = owner_with_organization(&atrium, "Northwind").await;
    let path = format!("/v1/orgs/{org}/configs");
    let created = create_key(&owner, &org, &["config:read"]).await;
    let key = created.at("/key");
    let (other, others_org) = owner_with_organization(&atrium, "Southwind").await;
    let foreign_key = create_key(&other, &others_org, &["config:read"]).await.at("/key");
    let body = json!({ "name": "Short", "scopes": ["config:read"], "expires_in_seconds": 60 });
    let expired = owner.client.post(format!("/v1/orgs/{org}/api-keys")).json(body).answers(201).await;
    client_with_key(&atrium, 0, &expired).get(&path).answers(200).await;
    execute(
        &atrium,
        "UPDATE api_keys SET expires_at = now() - interval '1 millisecond' WHERE name = 'Short'",
    )
    .await;
    let revoked = create_key(&owner, &org, &["config:read"]).await;
    owner.client.delete(format!("/v1/orgs/{org}/api-keys/{}", revoked.at("/id"))).answers(204).await;

    let [mine, foreign] = [&key, &foreign_key].map(|key| BASE64_URL_SAFE_NO_PAD.decode(&key[4..]).unwrap());
    let text = |parts: [&[u8]; 3]| format!("atk_{}", BASE64_URL_SAFE_NO_PAD.encode(parts.concat()));
    let (own_org, id, secret) = (&mine[..16], &mine[16..32], &mine[32..]);
    let mut replies = vec![atrium.client().get(&path).send().await.unwrap()];
    for wrong in [
        "atk_".to_owned(),
        "atk_x".to_owned(),
        format!("{key}A"),
        key[..key.len() - 1].to_owned(),
        key[4..].to_owned(),
        key.to_uppercase(),
        text([own_org, id, &[0; 32]]),
        text([own_org, &[7; 16], secret]),
        text([own_org, &foreign[16..32], &foreign[32..]]),
        text([&foreign[..16], id, secret]),
        text([&[0; 16], id, secret]),
        text([&[7; 16], &[7; 16], secret]),
        expired.at("/key"),
        revoked.at("/key"),
    ] {
        replies.push(atrium.client().bearer(&wrong).get(&path).send().await.unwrap());
    }
    // An API key in the session cookie is not accepted.
    let cookie = format!("atrium_session={key}");
    replies.push(atrium.client().get(&path).header("cookie", cookie).send().await.unwrap());
    assert_identical_problems(&replies, 401, "unauthenticated");
    assert_eq!(
        owner.client.get(format!("/v1/orgs/{org}/api-keys")).answers(200).await.at("/items/1/status"),
        "EXPIRED"
    );
    atrium.client().bearer(&key).get(&path).answers(200).await;
}

#[tokio::test]
async fn a_key_gives_no_access_to_another_organization() {
    let atrium = Atrium::start().await;
    let (owner, org) = owner_with_organization(&atrium, "Northwind").await;
    let (other, others_org) = owner_with_organization(&atrium, "Southwind").await;
    let project = other.project(&others_org, "Harbor").await.unwrap();
    let service = client_with_key(&atrium, 0, &create_key(&owner, &org, &all_scopes()).await);
    let unknown = "01a208ec-2a11-7d01-8a5b-94f1a5be7d10";
    for tail in [
        "configs",
        "configs/events",
        "configs/log.level",
        "members",
        "projects",
        &format!("projects/{project}"),
    ] {
        let mut replies = Vec::new();
        for org in [others_org.as_str(), unknown, "no-uuid", "00000000-0000-0000-0000-000000000000"] {
            replies.push(service.get(format!("/v1/orgs/{org}/{tail}")).send().await.unwrap());
        }
        assert_identical_problems(&replies, 404, "not_found");
    }
    let write = |org: &str| service.post(format!("/v1/orgs/{org}/projects")).json(json!({ "name": "a" }));
    assert_identical_problems(
        &[write(&others_org).send().await.unwrap(), write(unknown).send().await.unwrap()],
        404,
        "not_found",
    );
    // A key cannot be revoked by its id through another organization.
    let id = create_key(&owner, &org, &["config:read"]).await.at("/id");
    let revoke = |id: &str| other.client.delete(format!("/v1/orgs/{others_org}/api-keys/{id}"));
    assert_identical_problems(
        &[revoke(&id).send().await.unwrap(), revoke(unknown).send().await.unwrap()],
        404,
        "not_found",
    );
    let listed = other.client.get(format!("/v1/orgs/{others_org}/api-keys")).answers(200).await;
    assert_eq!(listed.json()["items"], json!([]));
}

#[tokio::test]
async fn each_key_has_its_own_rate_limit_and_last_use_is_updated_once_a_minute() {
    let atrium = Atrium::builder().default_limits().start().await;
    let (owner, org) = owner_with_organization(&atrium, "Northwind").await;
    let path = format!("/v1/orgs/{org}/configs");
    let (busy, quiet) =
        (create_key(&owner, &org, &["config:read"]).await, create_key(&owner, &org, &["config:read"]).await);
    let mut last = client_with_key(&atrium, 0, &busy).get(&path).send().await.unwrap();
    for _ in 0..110 {
        last = client_with_key(&atrium, 0, &busy).get(&path).send().await.unwrap();
    }
    assert_eq!((last.code(), last.problem().as_str()), (429, "rate_limited"));
    client_with_key(&atrium, 0, &quiet).get(&path).answers(200).await;
    owner.client.get(&path).answers(200).await;

    let last_used_at = async || -> Vec<Option<time::OffsetDateTime>> {
        sqlx::query_scalar("SELECT last_used_at FROM api_keys WHERE id = $1::uuid")
            .bind(busy.at("/id"))
            .fetch_all(&mut atrium.superuser().await)
            .await
            .unwrap()
    };
    until("last_used_at is set", async || last_used_at().await[0].is_some()).await;
    let first = last_used_at().await;
    client_with_key(&atrium, 0, &quiet).get(&path).answers(200).await;
    assert_eq!(last_used_at().await, first);
    let busy_again = "UPDATE api_keys SET last_used_at = now() - interval '61 seconds'";
    execute(&atrium, busy_again).await;
    client_with_key(&atrium, 0, &quiet).get(&path).answers(200).await;
    until("last_used_at is updated", async || {
        sqlx::query_scalar::<_, bool>(
            "SELECT last_used_at > now() - interval '60 seconds' FROM api_keys WHERE id = $1::uuid",
        )
        .bind(quiet.at("/id"))
        .fetch_one(&mut atrium.superuser().await)
        .await
        .unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_revoked_key_is_rejected_by_every_process_and_its_streams_end() {
    let atrium = Atrium::builder().apis(3).start().await;
    let (owner, org) = owner_with_organization(&atrium, "Northwind").await;
    let (path, events) = (format!("/v1/orgs/{org}/configs"), format!("/v1/orgs/{org}/configs/events"));
    let (revoked, other) =
        (create_key(&owner, &org, &["config:read"]).await, create_key(&owner, &org, &["config:read"]).await);
    let mut streams = Vec::new();
    for api in 0..3 {
        streams.push(client_with_key(&atrium, api, &revoked).events(&events, None).await.unwrap());
    }
    let mut unaffected = client_with_key(&atrium, 1, &other).events(&events, None).await.unwrap();
    owner.configure(&org, "chat.max_active_sessions", json!(2), "seen by services").await.unwrap();
    for stream in streams.iter_mut().chain([&mut unaffected]) {
        stream.must_see("config.changed", PATIENCE).await;
    }

    owner.client.delete(format!("/v1/orgs/{org}/api-keys/{}", revoked.at("/id"))).answers(204).await;
    for api in 0..3 {
        // It takes effect immediately, because every request looks the key up.
        client_with_key(&atrium, api, &revoked).get(&path).refused(401, "unauthenticated").await;
    }
    for (api, stream) in streams.iter_mut().enumerate() {
        let end = tokio::time::timeout(PATIENCE, async { while stream.next().await.is_some() {} });
        assert!(end.await.is_ok(), "the stream of process {api} is still open");
    }
    owner.configure(&org, "chat.max_active_sessions", json!(1), "still seen").await.unwrap();
    unaffected.must_see("config.changed", PATIENCE).await;
}

#[tokio::test]
async fn a_stream_ends_when_its_key_expires() {
    let atrium = Atrium::start().await;
    let (owner, org) = owner_with_organization(&atrium, "Northwind").await;
    let created = create_key(&owner, &org, &["config:read"]).await;
    execute(&atrium, "UPDATE api_keys SET expires_at = now() + interval '3 seconds'").await;
    let mut stream = client_with_key(&atrium, 0, &created)
        .events(&format!("/v1/orgs/{org}/configs/events"), None)
        .await
        .unwrap();
    stream.must_see("token-expiring", PATIENCE).await;
    let end = tokio::time::timeout(PATIENCE, async { while stream.next().await.is_some() {} });
    assert!(end.await.is_ok(), "the stream is still open");
}
