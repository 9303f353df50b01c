//! Imports: an export creates an equal organization, and anything but a complete export creates none.

use std::collections::HashMap;

use atrium_contract::Reply;
use atrium_harness::{Atrium, client::Request, guest::Guest, operator};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    CheckedSend as _, PATIENCE,
    export::{export, lines, of_type},
    final_status,
    wire::{exchange, is_problem},
};

const NDJSON: &str = "application/x-ndjson";

fn import_request(guest: &Guest, body: impl Into<bytes::Bytes>) -> Request {
    guest.client.post("/v1/orgs/import").body(NDJSON, body).timeout(PATIENCE * 4)
}

/// Waits until the operation has ended, and returns its final status.
async fn import_status(guest: &Guest, accepted: &Reply) -> String {
    let path = format!("/v1/operations/{}", accepted.at("/operation_id"));
    assert_eq!(accepted.header("operation-location"), Some(path.as_str()));
    final_status(&guest.client, &path).await
}

async fn import(guest: &Guest, body: impl Into<bytes::Bytes>) -> String {
    let accepted = import_request(guest, body).answers(202).await;
    let org = accepted.at("/id");
    assert_eq!(accepted.header("location"), Some(format!("/v1/orgs/{org}").as_str()));
    assert_eq!((accepted.at("/status"), accepted.at("/role")), ("PENDING".to_owned(), "owner".to_owned()));
    assert_eq!(import_status(guest, &accepted).await, "COMMITTED");
    org
}

/// The lines as a text with a matching end line.
fn with_end_line(lines: &[Value]) -> String {
    let mut text: String =
        lines.iter().filter(|line| line["type"] != "end").map(|line| format!("{line}\n")).collect();
    let hash: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    let end = json!({ "type": "end", "lines": text.lines().count(), "sha256": hash });
    text.push_str(&format!("{end}\n"));
    text
}

/// What an import must preserve. Projects are identified by their order instead of their id; times, people and the
/// audit log are left out.
fn comparable(lines: &[Value]) -> Value {
    let mut labels: HashMap<String, String> = HashMap::new();
    let first = &lines[0];
    let mut comparable = json!({ "name": first["name"], "revision": first["config_revision"] });
    for (kind, field) in [
        ("project", "id"),
        ("config_value", "project_id"),
        ("config_change", "project_id"),
        ("chat_counter", "project_id"),
    ] {
        let mut kept = of_type(lines, kind);
        for line in &mut kept {
            if let Some(id) = line[field].as_str() {
                let label = format!("project {}", labels.len());
                line[field] = labels.entry(id.to_owned()).or_insert(label).clone().into();
            }
            let line = line.as_object_mut().unwrap();
            for excluded in ["created_at", "updated_at", "changed_at", "author_id"] {
                line.remove(excluded);
            }
        }
        comparable[kind] = kept.into();
    }
    comparable
}

/// An organization with a random history.
async fn random_organization(atrium: &Atrium, random: &mut StdRng) -> (Guest, String) {
    const NAMES: [&str; 6] =
        ["Ärzte \u{1f489}", "\"quoted\" \\ \u{2028}", "שלום", "a/b~c", "e\u{301}", "日本語"];
    let owner = atrium.guest().await;
    let org = owner.organization(NAMES[random.random_range(0..NAMES.len())]).await.unwrap();
    owner.invite_guest(&org, "admin").await.unwrap();
    let mut projects = Vec::new();
    for step in 0..40 {
        match random.random_range(0..10) {
            0..3 => {
                let name = format!("{} {step}", NAMES[random.random_range(0..NAMES.len())]);
                projects.push(owner.project(&org, &name).await.unwrap());
            }
            // Deleting a project keeps its history, and removes its values and counters.
            3 if projects.len() > 1 => {
                let project = projects.swap_remove(random.random_range(0..projects.len()));
                owner.client.delete(format!("/v1/orgs/{org}/projects/{project}")).answers(204).await;
            }
            choice => {
                let below = match projects.get(random.random_range(0..=projects.len())) {
                    Some(project) => format!("/v1/orgs/{org}/projects/{project}"),
                    None => format!("/v1/orgs/{org}"),
                };
                let (key, value) = match random.random_range(0..3) {
                    0 => ("chat.max_active_sessions", json!(random.random_range(1..=20))),
                    1 => ("chat.session_overflow", json!(["close_oldest", "refuse"][step % 2])),
                    _ => ("chat.actions", json!(["ready", "blocked", "deployed"][..=step % 3])),
                };
                let path = format!("{below}/configs/{key}");
                if choice == 9 {
                    owner.client.delete(format!("{path}?reason=no%20more")).if_match("*").answers(200).await;
                } else {
                    let body = json!({ "value": value, "reason": NAMES[step % NAMES.len()] });
                    owner.client.put(path).if_match("*").json(body).answers(200).await;
                }
            }
        }
    }
    let mut superuser = atrium.superuser().await;
    for project in &projects {
        for action in ["ready", "thumbs_up"] {
            sqlx::query("INSERT INTO chat_counters VALUES ($1::uuid, $2::uuid, $3, $4)")
                .bind(&org)
                .bind(project)
                .bind(action)
                .bind(random.random_range(0..i64::MAX))
                .execute(&mut superuser)
                .await
                .unwrap();
        }
    }
    (owner, org)
}

#[tokio::test]
async fn an_imported_organization_equals_the_exported_one() {
    let atrium = Atrium::start().await;
    for seed in [1, 2, 3] {
        let mut random = StdRng::seed_from_u64(seed);
        let (owner, org) = random_organization(&atrium, &mut random).await;
        // Invitations and API keys are exported but not imported, because an export does not contain their secrets.
        owner.invite(&org, "viewer").await.unwrap();
        let key = owner.client.post(format!("/v1/orgs/{org}/api-keys"));
        key.json(json!({ "name": "Builder", "scopes": ["config:read"] })).answers(201).await;
        let body = export(&owner, &org).await.body;
        let original = lines(&body);
        let importer = atrium.guest().await;
        let copy = import(&importer, body).await;
        let copied = lines(&export(&importer, &copy).await.body);
        assert_eq!(comparable(&copied), comparable(&original), "seed {seed}");
        let again = import(&importer, with_end_line(&copied)).await;
        assert_eq!(
            comparable(&lines(&export(&importer, &again).await.body)),
            comparable(&original),
            "seed {seed}"
        );

        // All ids are new.
        let old: Vec<_> = of_type(&original, "project").iter().map(|project| project["id"].clone()).collect();
        let new = of_type(&copied, "project");
        assert!(new.iter().all(|project| !old.contains(&project["id"])) && copy != org);

        // The effective configuration is the same, and revisions continue after the imported one.
        for (old, new) in of_type(&original, "project").iter().zip(&new) {
            let configs = async |guest: &Guest, org: &str, project: &Value| {
                let path = format!("/v1/orgs/{org}/projects/{}/configs", project["id"].as_str().unwrap());
                let items = guest.client.get(path).answers(200).await.json()["items"].clone();
                let items =
                    items.as_array().unwrap().iter().map(|item| (item["key"].clone(), item["value"].clone()));
                items.collect::<Vec<_>>()
            };
            assert_eq!(configs(&owner, &org, old).await, configs(&importer, &copy, new).await);
        }
        let revision = copied[0]["config_revision"].as_i64().unwrap();
        let changed =
            importer.configure(&copy, "chat.max_active_sessions", json!(7), "onwards").await.unwrap();
        assert_eq!(changed.etag(), Some(format!("\"{}\"", revision + 1).as_str()));

        // The importer is the only member, and the audit log begins with the source of the import.
        let members = of_type(&copied, "member");
        assert_eq!((members.len(), &members[0]["user_id"]), (1, &json!(importer.id)));
        for kind in ["invitation", "api_key"] {
            assert_ne!(of_type(&original, kind), [] as [Value; 0]);
            assert_eq!(of_type(&copied, kind), [] as [Value; 0]);
        }
        let log = of_type(&copied, "audit_entry");
        assert_eq!((&log[0]["action"], &log[0]["seq"]), (&json!("organization.imported"), &json!(1)));
        assert_eq!(log[0]["actor_id"], json!(importer.id));
        let past = of_type(&original, "audit_entry");
        let source = &log[0]["after"]["source"];
        assert_eq!(source["org_id"], json!(org));
        assert_eq!(
            (&source["audit_entries"], &source["audit_hash"]),
            (&json!(past.len()), &past.last().unwrap()["hash"])
        );
        assert_eq!(source["sha256"], original.last().unwrap()["sha256"]);
    }
}

#[tokio::test]
async fn invalid_imports_are_rejected_with_line_and_field() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Northwind").await.unwrap();
    let project = owner.project(&org, "Harbor").await.unwrap();
    owner.configure(&org, "chat.max_active_sessions", json!(4), "more").await.unwrap();
    let path = format!("/v1/orgs/{org}/projects/{project}/configs/chat.max_active_sessions");
    owner.client.put(path).if_match("*").json(json!({ "value": 5, "reason": "x" })).answers(200).await;
    let counter = "INSERT INTO chat_counters VALUES ($1::uuid, $2::uuid, 'ready', 3)";
    let mut superuser = atrium.superuser().await;
    sqlx::query(counter).bind(&org).bind(&project).execute(&mut superuser).await.unwrap();
    owner.invite(&org, "viewer").await.unwrap();
    let body = export(&owner, &org).await.text();
    let whole = lines(body.as_bytes());
    // 1 export, 2 project, 3 member, 4 invitation, 5 and 6 values, 7 and 8 changes, 9 counter, from 10 on the log.
    let kinds: Vec<_> = whole.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[..4], ["export", "project", "member", "invitation"]);
    assert_eq!(kinds[4..6], ["config_value"; 2]);
    assert_eq!(kinds[6..8], ["config_change"; 2]);
    assert_eq!(kinds[8..10], ["chat_counter", "audit_entry"]);

    let unknown = uuid::Uuid::now_v7().to_string();
    let end = whole.len();
    let with = |line: usize, field: &str, value: Value| {
        let mut lines = whole.clone();
        lines[line - 1][field] = value;
        with_end_line(&lines)
    };
    let duplicated = |line: usize| {
        let mut lines = whole.clone();
        lines.insert(line, lines[line - 1].clone());
        with_end_line(&lines)
    };
    let without = |line: usize, field: &str| {
        let mut lines = whole.clone();
        lines[line - 1].as_object_mut().unwrap().remove(field);
        with_end_line(&lines)
    };
    let with_line = |line: usize, text: &str| {
        let replaced: Vec<_> =
            body.lines().enumerate().map(|(at, old)| if at + 1 == line { text } else { old }).collect();
        replaced.join("\n")
    };
    let cases: Vec<(&str, String, String)> = [
        ("nothing", String::new(), String::new()),
        ("no end", body.lines().take(end - 1).map(|line| format!("{line}\n")).collect(), String::new()),
        ("a cut line", body[..body.len() - 10].to_owned(), format!("/lines/{end}")),
        (
            "a line less",
            {
                body.lines()
                    .enumerate()
                    .filter(|(at, _)| *at != 2)
                    .map(|(_, line)| format!("{line}\n"))
                    .collect()
            },
            format!("/lines/{}/lines", end - 1),
        ),
        ("another byte", body.replacen("Harbor", "Harbos", 1), format!("/lines/{end}/sha256")),
        ("something after the end", format!("{body}{{}}\n"), format!("/lines/{}", end + 1)),
        ("no first line", with_end_line(&whole[1..]), "/lines/1/type".to_owned()),
        ("two first lines", duplicated(1), "/lines/2/type".to_owned()),
        ("another version", with(1, "version", json!(2)), "/lines/1/version".to_owned()),
        ("an unknown type", with(2, "type", json!("secret")), "/lines/2/type".to_owned()),
        ("no type", without(2, "type"), "/lines/2/type".to_owned()),
        ("an unknown field", with(2, "color", json!("red")), "/lines/2/color".to_owned()),
        ("a field less", without(2, "name"), "/lines/2/name".to_owned()),
        ("no object", with_line(2, "[]"), "/lines/2".to_owned()),
        ("an empty line", with_line(2, ""), "/lines/2".to_owned()),
        (
            "a repeated field",
            with_line(2, "{\"type\":\"project\",\"type\":\"project\"}"),
            "/lines/2".to_owned(),
        ),
        ("a lone surrogate", body.replacen("Harbor", "\\ud800", 1), "/lines/2".to_owned()),
        ("deep nesting", with_line(2, &"[".repeat(10_000)), "/lines/2".to_owned()),
        ("NUL in a name", with(2, "name", json!("a\0b")), "/lines/2/name".to_owned()),
        ("an empty name", with(2, "name", json!(" ")), "/lines/2/name".to_owned()),
        ("no id", with(2, "id", json!("../etc")), "/lines/2/id".to_owned()),
        ("no time", with(2, "created_at", json!("yesterday")), "/lines/2/created_at".to_owned()),
        ("a project twice", duplicated(2), "/lines/3/id".to_owned()),
        ("a member twice", duplicated(3), "/lines/4/user_id".to_owned()),
        ("no role", with(3, "role", json!("king")), "/lines/3/role".to_owned()),
        ("an invitation twice", duplicated(4), "/lines/5/id".to_owned()),
        ("a hash of a code", with(4, "code_hash", json!("x")), "/lines/4/code_hash".to_owned()),
        ("an unknown key", with(5, "key", json!("chat.nothing")), "/lines/5/key".to_owned()),
        ("an operator's key", with(5, "key", json!("log.level")), "/lines/5/key".to_owned()),
        ("a wrong value", with(5, "value", json!(21)), "/lines/5/value".to_owned()),
        ("NUL in a value", with(5, "value", json!(["\0"])), "/lines/5/value".to_owned()),
        ("a value twice", duplicated(5), "/lines/6/key".to_owned()),
        ("a value of the future", with(5, "revision", json!(99)), "/lines/5/revision".to_owned()),
        ("a value of no project", with(6, "project_id", json!(unknown)), "/lines/6/project_id".to_owned()),
        ("a change twice", duplicated(7), "/lines/8/revision".to_owned()),
        ("no change", with(7, "action", json!("unset")), "/lines/7/new_value".to_owned()),
        ("no reason", with(7, "reason", json!("")), "/lines/7/reason".to_owned()),
        ("NUL in an old value", with(7, "old_value", json!({ "\0": 1 })), "/lines/7/old_value".to_owned()),
        ("a counter of no project", with(9, "project_id", json!(unknown)), "/lines/9/project_id".to_owned()),
        ("a negative counter", with(9, "count", json!(-1)), "/lines/9/count".to_owned()),
        ("an unknown action", with(9, "action", json!("dance")), "/lines/9/action".to_owned()),
        ("a counter twice", duplicated(9), "/lines/10/action".to_owned()),
        ("a gap in the log", with(11, "seq", json!(3)), "/lines/11/seq".to_owned()),
        ("no hash", with(10, "hash", json!("abc")), "/lines/10/hash".to_owned()),
    ]
    .into();
    for (name, body, pointer) in cases {
        let refused = import_request(&owner, body).send().await.unwrap();
        assert_eq!(
            (refused.code(), refused.problem().as_str()),
            (422, "import_invalid"),
            "{name}: {}",
            refused.describe()
        );
        assert_eq!(refused.at("/errors/0/pointer"), pointer, "{name}: {}", refused.describe());
    }
    // All errors are reported in one response, up to a limit of 50.
    let mut wrong = whole.clone();
    (wrong[1]["name"], wrong[4]["value"]) = (json!(1), json!(0));
    let refused = import_request(&owner, with_end_line(&wrong)).refused(422, "import_invalid").await.json();
    let pointers: Vec<_> =
        refused["errors"].as_array().unwrap().iter().map(|error| &error["pointer"]).collect();
    assert_eq!(pointers, ["/lines/2/name", "/lines/5/value"]);
    let refused = import_request(&owner, "{}\n".repeat(1_000)).refused(422, "import_invalid").await.json();
    assert_eq!(refused["errors"].as_array().unwrap().len(), 50);

    owner.client.post("/v1/orgs/import").json(json!({})).refused(415, "unsupported_media_type").await;
    let long = format!("{{\"type\":\"{}\"}}\n", "x".repeat(300_000));
    import_request(&owner, long).refused(413, "body_too_large").await;
    // A body whose declared length is too large is rejected before its first byte.
    let token = owner.client.token().unwrap();
    let head = format!(
        "POST /v1/orgs/import HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
         content-type: {NDJSON}\r\ncontent-length: {}\r\n\r\n",
        (64 << 20) + 1
    );
    is_problem(&exchange(&atrium, head.as_bytes()).await, "body_too_large", "64 MiB and a byte");
    atrium.client().post("/v1/orgs/import").body(NDJSON, "").refused(401, "unauthenticated").await;
    let organizations = owner.client.get("/v1/orgs").answers(200).await.json();
    assert_eq!(
        organizations["items"].as_array().unwrap().len(),
        1,
        "no rejected import created an organization"
    );
}

#[tokio::test]
async fn a_repeated_import_takes_effect_once() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Northwind").await.unwrap();
    let body = export(&owner, &org).await.body;
    let first = import_request(&owner, body.clone()).idempotency_key("key-1").answers(202).await;
    let again = import_request(&owner, body.clone()).idempotency_key("key-1").answers(202).await;
    assert_eq!((&again.body, again.header("idempotent-replayed")), (&first.body, Some("true")));
    assert_eq!(again.header("operation-location"), first.header("operation-location"));
    let other = export(&owner, &org).await.body;
    import_request(&owner, other).idempotency_key("key-1").refused(422, "idempotency_key_reused").await;
    import_request(&owner, body.clone()).idempotency_key("").refused(400, "malformed_request").await;
    let another = import_request(&owner, body).idempotency_key("key-2").answers(202).await;
    assert_ne!(another.at("/id"), first.at("/id"));
}

#[tokio::test]
async fn imports_respect_quotas_and_do_not_import_them() {
    let atrium = Atrium::builder().default_value("quotas.projects", json!(2)).start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Northwind").await.unwrap();
    let granted = ["config", "set", "quotas.projects", "3", "--org", &org, "--reason", "they asked"];
    operator::run(atrium.wiring(), &granted).await.unwrap();
    let mut projects = Vec::new();
    for name in ["one", "two", "three"] {
        projects.push(owner.project(&org, name).await.unwrap());
    }
    import_request(&owner, export(&owner, &org).await.body).refused(409, "quota_reached").await;

    owner.client.delete(format!("/v1/orgs/{org}/projects/{}", projects[0])).answers(204).await;
    let body = export(&owner, &org).await.body;
    let values = of_type(&lines(&body), "config_value");
    assert_eq!((&values[0]["key"], &values[0]["value"]), (&json!("quotas.projects"), &json!(3)));
    let copy = import(&owner, body).await;
    let path = format!("/v1/orgs/{copy}/configs/quotas.projects");
    assert_eq!(owner.client.get(path).answers(200).await.at("/value"), "2");
    let third = owner.client.post(format!("/v1/orgs/{copy}/projects")).json(json!({ "name": "three" }));
    third.refused(409, "quota_reached").await;
}

#[tokio::test]
async fn an_import_that_fails_at_any_step_leaves_no_rows() {
    let atrium = Atrium::start().await;
    let mut random = StdRng::seed_from_u64(4);
    let (owner, org) = random_organization(&atrium, &mut random).await;
    let body = export(&owner, &org).await.body;
    let mut superuser = atrium.superuser().await;
    for step in ["reserve", "default-configuration", "isolation-gate", "commit"] {
        atrium.set_default("saga.fail_step", json!(format!("organization.create/{step}"))).await;
        // The setting that makes a step fail reaches the workers with a delay.
        let failed = loop {
            let accepted = import_request(&owner, body.clone()).answers(202).await;
            let status = import_status(&owner, &accepted).await;
            let operation = owner.client.get(format!("/v1/operations/{}", accepted.at("/operation_id")));
            let operation = operation.answers(200).await.json();
            let steps = operation["steps"].as_array().unwrap();
            if status == "FAILED" && steps.iter().any(|row| row["name"] == step && row["status"] == "FAILED")
            {
                break accepted.at("/id");
            }
        };
        for table in [
            "projects",
            "config_heads",
            "config_values",
            "config_history",
            "chat_counters",
            "members",
            "org_slugs",
        ] {
            let count = format!("SELECT count(*) FROM {table} WHERE org_id = $1::uuid");
            let remaining: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count))
                .bind(&failed)
                .fetch_one(&mut superuser)
                .await
                .unwrap();
            assert_eq!(remaining, 0, "{table} after {step}");
        }
        owner.client.get(format!("/v1/orgs/{failed}")).refused(404, "not_found").await;
    }
}
