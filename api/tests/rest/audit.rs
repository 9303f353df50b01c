//! The audit log through the API: every change writes its entry, and no entry contains a secret.

use std::collections::BTreeSet;

use atrium_api::routes::{Found, Routes, table};
use atrium_contract::Reply;
use atrium_harness::{Atrium, client::Request, guest::Guest, operator};
use atrium_shared::{audit::Action, saga::SagaKind};
use http::Method;
use serde_json::{Value, json};

use crate::CheckedSend as _;

/// Routes that write and have no audit entry, with the reason.
const WITHOUT_ENTRY: &[(&str, &str, &str)] = &[
    ("POST", "/v1/auth/guest", "of no organization"),
    ("POST", "/v1/auth/refresh", "of no organization"),
    ("POST", "/v1/auth/logout", "of no organization"),
    ("POST", "/v1/orgs/{org}/projects/{project}/chat/sessions", "an open window is ephemeral"),
    ("DELETE", "/v1/orgs/{org}/projects/{project}/chat/sessions/{session}", "an open window is ephemeral"),
    (
        "POST",
        "/v1/orgs/{org}/projects/{project}/chat/sessions/{session}/actions",
        "pressed actions are not stored",
    ),
];

/// Changes an organization and checks the audit entries of each change.
struct AuditCheck {
    atrium: Atrium,
    routes: Routes,
    /// The member who reads the log.
    owner: Guest,
    org: String,
    /// Method and template of each route that was observed to write an entry.
    seen: BTreeSet<(String, String)>,
}

impl AuditCheck {
    /// The entries after this sequence number, oldest first.
    async fn since(&self, seq: i64) -> Vec<Value> {
        let page = self.owner.client.get(format!("/v1/orgs/{}/audit?limit=3", self.org)).answers(200).await;
        let mut entries = page.json()["items"].as_array().unwrap().clone();
        entries.retain(|entry| entry["seq"].as_i64() > Some(seq));
        entries.reverse();
        entries
    }

    async fn newest(&self) -> Value {
        self.since(0).await.pop().unwrap()
    }

    /// Sends the request and returns the entries that it wrote, after checking that all of them name the actor.
    async fn send_and_collect(
        &mut self,
        actor: &Guest,
        (method, path): (Method, &str),
        prepare: impl FnOnce(Request) -> Request,
    ) -> (Reply, Vec<Value>) {
        let last = self.newest().await["seq"].as_i64().unwrap();
        let reply = prepare(actor.client.request(method.clone(), path)).send().await.unwrap();
        assert!(reply.status.is_success(), "{}", reply.describe());
        let entries = self.since(last).await;
        assert!(!entries.is_empty(), "no entry was written: {}", reply.describe());
        for (entry, seq) in entries.iter().zip(last + 1..) {
            assert_eq!(
                (&entry["seq"], &entry["actor_kind"], &entry["actor_id"], &entry["actor_name"]),
                (&json!(seq), &json!("user"), &json!(actor.id), &json!(actor.name)),
                "{}: {entry}",
                reply.describe()
            );
        }
        self.mark_seen(&method, path);
        (reply, entries)
    }

    /// Sends the request and asserts that it writes exactly one entry, with this action, `before` and `after`.
    async fn writes(
        &mut self,
        actor: &Guest,
        request: (Method, &str),
        prepare: impl FnOnce(Request) -> Request,
        (action, before, after): (Action, Value, Value),
    ) -> Reply {
        let (reply, entries) = self.send_and_collect(actor, request, prepare).await;
        let recorded: Vec<_> =
            entries.iter().map(|entry| (&entry["action"], &entry["before"], &entry["after"])).collect();
        assert_eq!(recorded, [(&json!(action.name()), &before, &after)], "{}", reply.describe());
        reply
    }

    fn mark_seen(&mut self, method: &Method, path: &str) {
        let Found::Route(route, _) = self.routes.find(method, path.split('?').next().unwrap()) else {
            panic!("{method} {path} is no route");
        };
        self.seen.insert((method.to_string(), route.template.to_owned()));
    }
}

#[tokio::test]
async fn every_change_writes_an_audit_entry_without_secrets() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Northwind").await.unwrap();
    let mut audit = AuditCheck {
        routes: Routes::new(table()).unwrap(),
        seen: BTreeSet::new(),
        owner: owner.clone(),
        org: org.clone(),
        atrium,
    };
    let first = audit.newest().await;
    let slug = audit.owner.client.get(format!("/v1/orgs/{org}")).answers(200).await.at("/slug");
    assert_eq!((&first["seq"], &first["action"]), (&json!(1), &json!("organization.created")));
    assert_eq!(
        (&first["actor_id"], &first["after"]),
        (&json!(owner.id), &json!({ "name": "Northwind", "slug": slug }))
    );
    audit.mark_seen(&Method::POST, "/v1/orgs");
    // An import writes the first entry of a new organization's log; import.rs checks it.
    audit.mark_seen(&Method::POST, "/v1/orgs/import");

    let path = format!("/v1/orgs/{org}");
    let name =
        |name: &'static str| move |request: Request| request.if_match("*").json(json!({ "name": name }));
    audit
        .writes(
            &owner,
            (Method::PATCH, &path),
            name("Northwind Traders"),
            (
                Action::OrganizationRenamed,
                json!({ "name": "Northwind" }),
                json!({ "name": "Northwind Traders" }),
            ),
        )
        .await;

    // Invitations and members.
    let invitations = format!("{path}/invitations");
    let role = |role: &'static str| move |request: Request| request.json(json!({ "role": role }));
    let invited = audit
        .writes(
            &owner,
            (Method::POST, &invitations),
            role("admin"),
            (Action::InvitationCreated, Value::Null, json!({ "role": "admin" })),
        )
        .await;
    let code = invited.at("/code");
    let admin = audit.atrium.guest().await;
    audit
        .writes(
            &admin,
            (Method::POST, "/v1/invitations/accept"),
            |request| request.json(json!({ "code": code })),
            (
                Action::MemberJoined,
                Value::Null,
                json!({ "role": "admin", "invitation_id": invited.at("/id") }),
            ),
        )
        .await;
    let second = audit
        .writes(
            &admin,
            (Method::POST, &invitations),
            role("viewer"),
            (Action::InvitationCreated, Value::Null, json!({ "role": "viewer" })),
        )
        .await;
    audit
        .writes(
            &owner,
            (Method::DELETE, &format!("{invitations}/{}", second.at("/id"))),
            |request| request,
            (Action::InvitationRevoked, json!({ "role": "viewer" }), Value::Null),
        )
        .await;

    // Projects and configuration.
    let projects = format!("{path}/projects");
    let project = audit
        .writes(
            &admin,
            (Method::POST, &projects),
            |request| request.json(json!({ "name": "Härbor" })),
            (Action::ProjectCreated, Value::Null, json!({ "name": "Härbor" })),
        )
        .await
        .at("/id");
    let project_path = format!("{projects}/{project}");
    audit
        .writes(
            &admin,
            (Method::PATCH, &project_path),
            name("Harbor"),
            (Action::ProjectRenamed, json!({ "name": "Härbor" }), json!({ "name": "Harbor" })),
        )
        .await;
    let key = "chat.max_active_sessions";
    let mut revision = 1;
    for (below, scope) in [(path.clone(), Value::Null), (project_path.clone(), json!(project))] {
        let config = format!("{below}/configs/{key}");
        revision += 1;
        audit
            .writes(
                &admin,
                (Method::PUT, &config),
                |request| request.if_match("*").json(json!({ "value": 5, "reason": "more windows" })),
                (
                    Action::ConfigurationSet,
                    Value::Null,
                    json!({ "project_id": scope, "value": 5, "revision": revision, "reason": "more windows" }),
                ),
            )
            .await;
        revision += 1;
        audit
            .writes(
                &owner,
                (Method::DELETE, &format!("{config}?reason=fewer")),
                |request| request.if_match("*"),
                (
                    Action::ConfigurationUnset,
                    json!({ "project_id": scope, "value": 5 }),
                    json!({ "project_id": scope, "value": null, "revision": revision, "reason": "fewer" }),
                ),
            )
            .await;
    }
    audit
        .writes(
            &admin,
            (Method::DELETE, &project_path),
            |request| request,
            (Action::ProjectDeleted, json!({ "name": "Harbor" }), Value::Null),
        )
        .await;

    // A request that changes nothing or is rejected writes no entry.
    let last = audit.newest().await;
    owner.client.delete(&project_path).refused(404, "not_found").await;
    owner.client.delete(format!("{invitations}/{}", second.at("/id"))).answers(204).await;
    let unset = owner.client.delete(format!("{path}/configs/{key}?reason=again")).if_match("*");
    unset.answers(200).await;
    assert_eq!(audit.newest().await, last);

    let api_keys = format!("{path}/api-keys");
    let made = audit
        .writes(
            &admin,
            (Method::POST, &api_keys),
            |request| request.json(json!({ "name": "Builder", "scopes": ["config:read"] })),
            (Action::ApiKeyCreated, Value::Null, json!({ "name": "Builder", "scopes": ["config:read"] })),
        )
        .await;
    audit
        .writes(
            &owner,
            (Method::DELETE, &format!("{api_keys}/{}", made.at("/id"))),
            |request| request,
            (Action::ApiKeyRevoked, json!({ "name": "Builder" }), Value::Null),
        )
        .await;

    // Members and the organization itself.
    let member = format!("{path}/members/{}", admin.id);
    audit
        .writes(
            &owner,
            (Method::PATCH, &member),
            role("member"),
            (Action::MemberRoleChanged, json!({ "role": "admin" }), json!({ "role": "member" })),
        )
        .await;
    audit
        .writes(
            &owner,
            (Method::POST, &format!("{path}/suspend")),
            |request| request,
            (Action::OrganizationSuspended, Value::Null, json!({ "suspended_by": "owner", "reason": null })),
        )
        .await;
    audit
        .writes(
            &owner,
            (Method::POST, &format!("{path}/resume")),
            |request| request,
            (Action::OrganizationResumed, Value::Null, json!({ "resumed_by": "owner", "reason": null })),
        )
        .await;
    let (deleted, entries) = audit.send_and_collect(&owner, (Method::DELETE, &path), |request| request).await;
    let operation = json!(deleted.at("/operation_id"));
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["action"], Action::OrganizationDeletionRequested.name());
    assert_eq!(entries[0]["after"]["operation_id"], operation);
    audit
        .writes(
            &owner,
            (Method::POST, &format!("{path}/restore")),
            |request| request,
            (Action::OrganizationRestored, Value::Null, json!({ "operation_id": operation })),
        )
        .await;
    let deleted = audit.send_and_collect(&owner, (Method::DELETE, &path), |request| request).await.0;
    let operation = format!("/v1/operations/{}", deleted.at("/operation_id"));
    audit
        .writes(
            &owner,
            (Method::POST, &format!("{operation}/cancel")),
            |request| request,
            (Action::OperationCanceled, Value::Null, json!({ "kind": SagaKind::DeleteOrganization.name() })),
        )
        .await;
    let mut progress = owner.client.events(&format!("{operation}/events"), None).await.unwrap();
    progress.must_see("operation.finished", crate::PATIENCE).await;
    let heir = json!({ "user_id": admin.id });
    let transfer = format!("{path}/transfer");
    let (_, entries) =
        audit.send_and_collect(&owner, (Method::POST, &transfer), |request| request.json(heir)).await;
    let changes: Vec<_> =
        entries.iter().map(|entry| (&entry["target_id"], &entry["after"]["role"])).collect();
    assert_eq!(changes, [(&json!(admin.id), &json!("owner")), (&json!(owner.id), &json!("admin"))]);
    let last_member = owner.invite_guest(&org, "viewer").await.unwrap();
    audit
        .writes(
            &admin,
            (Method::DELETE, &format!("{path}/members/{}", last_member.id)),
            |request| request,
            (Action::MemberRemoved, json!({ "role": "viewer", "name": last_member.name }), Value::Null),
        )
        .await;

    // Every route that writes was either observed here or is listed in `WITHOUT_ENTRY`.
    let writing: BTreeSet<_> = table()
        .iter()
        .filter(|route| route.writes())
        .map(|route| (route.method.to_string(), route.template.to_owned()))
        .collect();
    let listed: BTreeSet<_> = WITHOUT_ENTRY
        .iter()
        .map(|(method, template, _)| ((*method).to_owned(), (*template).to_owned()))
        .collect();
    assert!(audit.seen.is_disjoint(&listed), "a route is both observed and listed in WITHOUT_ENTRY");
    let expected_routes: BTreeSet<_> = audit.seen.union(&listed).cloned().collect();
    assert_eq!(
        writing, expected_routes,
        "the routes that write (left), and those this test accounts for (right)"
    );

    let last = audit.newest().await;
    // The log contains no code, token or key, and no suffix of 16 characters of one.
    let list = ["audit", "list", "--org", &org, "--limit", "1000"];
    let log = operator::run(audit.atrium.wiring(), &list).await.unwrap();
    assert_eq!(log.lines().count() as i64, last["seq"].as_i64().unwrap());
    let bearers = [&owner, &admin].map(|guest| guest.client.token().unwrap().to_owned());
    for secret in bearers.iter().chain([&code, &second.at("/code"), &made.at("/key")]) {
        for part in [secret.as_str(), &secret[secret.len() - 16..]] {
            assert!(!log.contains(part), "the log contains {part}");
        }
    }
    let verified = operator::run(audit.atrium.wiring(), &["audit", "verify", "--org", &org]).await.unwrap();
    let expected = format!("entries {}\nlast {}\n", last["seq"], last["hash"].as_str().unwrap());
    assert_eq!(verified, expected);
}

#[tokio::test]
async fn admins_read_the_audit_log_by_page_and_by_action_even_while_suspended() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Northwind").await.unwrap();
    let path = format!("/v1/orgs/{org}/audit");
    let (admin, member) =
        (owner.invite_guest(&org, "admin").await.unwrap(), owner.invite_guest(&org, "member").await.unwrap());
    for number in 0..4 {
        owner.project(&org, &format!("Project {number}")).await.unwrap();
    }
    let mut superuser = atrium.superuser().await;
    sqlx::query("UPDATE orgs SET status = 'SUSPENDED', suspended_by = 'operator' WHERE id = $1::uuid")
        .bind(&org)
        .execute(&mut superuser)
        .await
        .unwrap();

    member.client.get(&path).refused(403, "forbidden").await;
    atrium.guest().await.client.get(&path).refused(404, "not_found").await;
    for (query, parameter) in [("?action=nonsense", "action"), ("?limit=0", "limit"), ("?cursor=!", "cursor")]
    {
        let refused = admin.client.get(format!("{path}{query}")).refused(422, "validation_failed").await;
        assert_eq!(refused.at("/errors/0/parameter"), parameter);
    }

    let mut numbers = Vec::new();
    let mut query = "?limit=3".to_owned();
    loop {
        let page = admin.client.get(format!("{path}{query}")).answers(200).await.json();
        numbers.extend(page["items"].as_array().unwrap().iter().map(|entry| entry["seq"].as_i64().unwrap()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=3&cursor={cursor}");
    }
    // The creation, two invitations, two accepted invitations and four projects.
    assert_eq!(numbers, (1..=9).rev().collect::<Vec<_>>());
    let made = admin.client.get(format!("{path}?action=project.created&limit=3")).answers(200).await.json();
    let names: Vec<_> =
        made["items"].as_array().unwrap().iter().map(|entry| &entry["after"]["name"]).collect();
    assert_eq!(names, ["Project 3", "Project 2", "Project 1"]);
    assert!(made["next_cursor"].is_string());
}

#[tokio::test]
async fn audit_verify_fails_at_the_entry_that_was_tampered_with() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Northwind").await.unwrap();
    for number in 0..3 {
        owner.project(&org, &format!("Project {number}")).await.unwrap();
    }
    let verify = async |org: &str| operator::run(atrium.wiring(), &["audit", "verify", "--org", org]).await;
    assert!(verify(&org).await.unwrap().starts_with("entries 4\nlast "));
    let unknown = verify(&uuid::Uuid::now_v7().to_string()).await.unwrap_err().to_string();
    assert!(unknown.contains("does not exist"), "{unknown}");

    let mut superuser = atrium.superuser().await;
    for statement in [
        "SET session_replication_role = replica",
        "UPDATE audit_log SET actor_name = 'guest-9999' WHERE seq = 3",
    ] {
        sqlx::query(statement).execute(&mut superuser).await.unwrap();
    }
    let broken = verify(&org).await.unwrap_err().to_string();
    assert!(broken.contains("the audit log was changed at entry 3"), "{broken}");
}
