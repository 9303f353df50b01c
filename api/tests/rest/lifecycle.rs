//! The life of an organization: suspend and resume, delete and restore, and the purge without traces.

use std::time::Duration;

use atrium_contract::Reply;
use atrium_harness::{
    Atrium,
    guest::{Guest, Window},
    operator,
};
use atrium_shared::streams::{Inbound, chat_shard};
use redis::AsyncCommands as _;
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::{CheckedSend as _, PATIENCE, until};

/// An organization in use: a project, a member, a chat window, configuration, an invitation.
struct Used {
    owner: Guest,
    member: Guest,
    org: String,
    project: String,
    window: Window,
    code: String,
}

impl Used {
    async fn create(atrium: &Atrium) -> Self {
        let owner = atrium.guest().await;
        let org = owner.organization("Northwind").await.unwrap();
        let project = owner.project(&org, "Harbor").await.unwrap();
        let member = owner.invite_guest(&org, "member").await.unwrap();
        owner.configure(&org, "chat.max_active_sessions", json!(2), "a small team").await.unwrap();
        let window = member.open_chat(&org, &project).await.unwrap();
        let code = owner.invite(&org, "viewer").await.unwrap();
        Self { owner, member, org, project, window, code }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/orgs/{}{rest}", self.org)
    }

    async fn act(&self, action: &str) -> Reply {
        self.owner.client.post(self.path(action)).answers(200).await
    }

    /// Asserts that every changing request is rejected with this code, although its caller has the role for it.
    async fn assert_changes_rejected(&self, code: &str) {
        let (owner, member) = (&self.owner.client, &self.member.client);
        let project = self.path(&format!("/projects/{}", self.project));
        let config = self.path("/configs/chat.max_active_sessions");
        let member_path = self.path(&format!("/members/{}", self.member.id));
        let name = json!({ "name": "changed" });
        for request in [
            owner.patch(self.path("")).if_match("*").json(name.clone()),
            owner.post(self.path("/projects")).json(name.clone()),
            owner.patch(&project).if_match("*").json(name),
            owner.delete(&project),
            owner.put(&config).if_match("*").json(json!({ "value": 1, "reason": "x" })),
            owner.delete(format!("{config}?reason=x")).if_match("*"),
            owner.post(self.path("/invitations")).json(json!({ "role": "viewer" })),
            owner.patch(&member_path).json(json!({ "role": "viewer" })),
            owner.delete(&member_path),
            owner.post(self.path("/transfer")).json(json!({ "user_id": self.member.id })),
            member.post(format!("{project}/chat/sessions")),
            member.delete(format!("{project}/chat/sessions/{}", self.window.session)),
            member.get(self.path("/configs/events")),
        ] {
            request.refused(403, code).await;
        }
        // A recent check of the chat session is cached briefly, so a new stream may still open. It ends like all
        // others.
        while let Ok(mut stream) = member.events(&self.window.events(), None).await {
            stream.must_end(PATIENCE).await;
        }
        member.get(self.window.events()).refused(403, code).await;
    }

    async fn assert_readable(&self) {
        for path in ["", "/members", "/projects", "/configs", "/configs/status"] {
            self.member.client.get(self.path(path)).answers(200).await;
        }
        let counters = format!("/projects/{}/chat/counters", self.project);
        self.member.client.get(self.path(&counters)).answers(200).await;
    }
}

#[tokio::test]
async fn a_suspended_organization_is_readable_and_has_no_streams() {
    let atrium = Atrium::builder().apis(2).start().await;
    let used = Used::create(&atrium).await;
    let late = atrium.guest().await;
    let elsewhere = used.member.client.at(atrium.api(1).url());
    let mut chat = elsewhere.events(&used.window.events(), None).await.unwrap();
    let mut configs = used.member.client.events(&used.path("/configs/events"), None).await.unwrap();
    used.member.press(&used.window, "ready").await.unwrap();
    chat.must_see("chat.action", PATIENCE).await;

    used.member.client.post(used.path("/suspend")).refused(403, "forbidden").await;
    for _ in 0..2 {
        let suspended = used.act("/suspend").await;
        assert_eq!(
            (suspended.at("/status"), suspended.at("/suspended_by")),
            ("SUSPENDED".into(), "owner".into())
        );
    }
    chat.must_end(PATIENCE).await;
    configs.must_end(PATIENCE).await;
    used.assert_changes_rejected("organization_suspended").await;
    used.assert_readable().await;
    let accept = || late.client.post("/v1/invitations/accept").json(json!({ "code": used.code }));
    accept().refused(403, "organization_suspended").await;
    // The streams have ended, so every process has observed the suspension.
    for client in [&used.member.client, &elsewhere] {
        let press = client.post(used.window.actions()).json(json!({ "action": "ready" }));
        press.refused(403, "organization_suspended").await;
    }
    used.owner.client.post(used.path("/restore")).refused(409, "organization_not_deleting").await;

    for _ in 0..2 {
        assert_eq!(used.act("/resume").await.at("/status"), "COMMITTED");
    }
    used.member.press(&used.window, "ready").await.unwrap();
    accept().answers(200).await;
}

#[tokio::test]
async fn actions_queued_before_a_suspension_are_dropped() {
    let mut atrium = Atrium::builder().workers(["relay,saga,config"]).start().await;
    let used = Used::create(&atrium).await;
    used.member.press(&used.window, "ready").await.unwrap();
    used.act("/suspend").await;
    let inbound = Inbound::Chat(chat_shard(used.project.parse().unwrap())).to_string();
    let mut redis = atrium.redis_connection().await;
    assert_eq!(redis.xlen::<_, u64>(&inbound).await.unwrap(), 1, "the action is queued");
    atrium.add_worker(Some("chat")).await;
    // The worker is ready before it has handled the queued action.
    until("the queue is empty", async || redis.xlen::<_, u64>(&inbound).await.unwrap() == 0).await;
    used.act("/resume").await;
    // Both actions use one shard, in order: when the second is counted, the first was handled.
    used.member.press(&used.window, "blocked").await.unwrap();
    let counters = format!("{}/counters", used.window.chat);
    loop {
        let reply = used.member.client.get(&counters).answers(200).await;
        if reply.json()["total"] == 1 {
            assert_eq!(reply.at("/items/0/action"), "blocked");
            break;
        }
        assert_eq!(reply.json()["total"], 0, "{}", reply.describe());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_deletion_can_be_canceled_during_its_grace_period() {
    let atrium = Atrium::start().await;
    let used = Used::create(&atrium).await;
    let delete = || used.owner.client.delete(used.path(""));
    used.member.client.delete(used.path("")).refused(403, "forbidden").await;
    for suspended in [false, true] {
        if suspended {
            used.act("/suspend").await;
        }
        let accepted = delete().answers(202).await;
        assert_eq!(accepted.at("/status"), "DELETING");
        assert!(!accepted.at("/delete_at").is_empty());
        let operation = format!("/v1/operations/{}", accepted.at("/operation_id"));
        assert_eq!(accepted.header("operation-location"), Some(operation.as_str()));
        delete().refused(403, "organization_deleting").await;
        used.owner.client.post(used.path("/suspend")).refused(403, "organization_deleting").await;
        used.assert_changes_rejected("organization_deleting").await;
        used.assert_readable().await;

        let mut progress = used.owner.client.events(&format!("{operation}/events"), None).await.unwrap();
        let restored = used.act("/restore").await;
        assert_eq!(restored.at("/status"), if suspended { "SUSPENDED" } else { "COMMITTED" });
        let finished = progress.must_see("operation.finished", PATIENCE).await;
        assert_eq!(finished.json()["failure"]["code"], "canceled");
        assert_eq!(used.owner.client.get(&operation).answers(200).await.at("/status"), "FAILED");
        used.owner.client.post(used.path("/restore")).refused(409, "organization_not_deleting").await;
    }
    used.act("/resume").await;
    used.member.press(&used.window, "ready").await.unwrap();
}

/// All rows and Redis keys that contain one of these names.
async fn traces(atrium: &Atrium, names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut connection = atrium.superuser().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(tables.len() > 20, "{tables:?}");
    for table in tables.iter().filter(|table| *table != "deletion_certificates") {
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(format!("SELECT row_to_json(one)::text FROM {table} one")))
                .fetch_all(&mut connection)
                .await
                .unwrap();
        let matching = rows.iter().filter(|row| names.iter().any(|name| row.contains(name)));
        found.extend(matching.map(|row| format!("{table}: {row}")));
    }
    let mut redis = atrium.redis_connection().await;
    let keys: Vec<String> = redis.keys("*").await.unwrap();
    assert!(keys.len() > 3, "{keys:?}");
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut redis).await.unwrap();
        let content: redis::Value = match kind.as_str() {
            "string" => redis.get(&key).await.unwrap(),
            "hash" => redis.hgetall(&key).await.unwrap(),
            "stream" => redis.xrange_all(&key).await.unwrap(),
            "set" => redis.smembers(&key).await.unwrap(),
            "zset" => redis.zrange_withscores(&key, 0, -1).await.unwrap(),
            "none" => continue,
            other => panic!("{key} is a {other}"),
        };
        let content = format!("{content:?}");
        if names.iter().any(|name| key.contains(name) || content.contains(name)) {
            found.push(format!("{key}: {content}"));
        }
    }
    found
}

#[tokio::test]
async fn a_deleted_organization_leaves_only_its_certificate() {
    let atrium = Atrium::builder()
        .apis(2)
        .full_workers(2)
        .default_value("organization.deletion_grace_seconds", json!(1))
        .start()
        .await;
    let (used, other) = (Used::create(&atrium).await, Used::create(&atrium).await);
    used.member.press(&used.window, "ready").await.unwrap();
    other.member.press(&other.window, "ready").await.unwrap();
    // Both processes cache the configuration, and responses to creates are stored.
    for api in 0..2 {
        let client = used.owner.client.at(atrium.api(api).url());
        client.get(used.path("/configs")).answers(200).await;
        let create = client.post(used.path("/projects")).json(json!({ "name": "Attic" }));
        create.idempotency_key(format!("attic-{api}")).answers(201).await;
    }
    let names = [used.org.as_str(), used.project.as_str(), used.window.session.as_str()];
    let before = traces(&atrium, &names).await;
    for source in
        ["audit_log", "chat_sessions", "config_history", "idempotency_keys", "sagas", "}:live", "applied"]
    {
        assert!(
            before.iter().any(|trace| trace.contains(source)),
            "nothing to remove in {source}: {before:#?}"
        );
    }

    let accepted = used.owner.client.delete(used.path("")).answers(202).await;
    let operation = format!("/v1/operations/{}", accepted.at("/operation_id"));
    let mut progress = used.owner.client.events(&format!("{operation}/events"), None).await.unwrap();
    // The workers are restarted during the deletion.
    for worker in 0..2 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        atrium.worker(worker).restart().await.unwrap();
    }
    let finished = progress.must_see("operation.finished", PATIENCE * 2).await;
    assert_eq!(finished.json()["status"], "COMMITTED");

    let done = used.owner.client.get(&operation).answers(200).await;
    assert_eq!((done.at("/status"), done.at("/org_id")), ("COMMITTED".into(), used.org.clone()));
    let certificate = done.json()["certificate"].clone();
    for (table, rows) in [("orgs", 1), ("projects", 3), ("members", 2), ("org_slugs", 1)] {
        assert_eq!(certificate["rows_removed"][table], rows, "{table}: {certificate:#}");
    }
    assert!(certificate["search"]["tables"].as_i64().unwrap() > 10, "{certificate:#}");
    used.member.client.get(&operation).refused(404, "not_found").await;
    let cancel = used.owner.client.post(format!("{operation}/cancel"));
    cancel.refused(409, "operation_not_cancelable").await;
    for guest in [&used.owner, &used.member] {
        guest.client.get(used.path("")).refused(404, "not_found").await;
        assert_eq!(guest.client.get("/v1/orgs").answers(200).await.at("/items/0/id"), "");
    }

    // The last message is acknowledged shortly after the commit.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let remaining = traces(&atrium, &names).await;
        if remaining.is_empty() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{remaining:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Other organizations still have all their data.
    other.assert_readable().await;
    other.member.press(&other.window, "ready").await.unwrap();
    assert!(!traces(&atrium, &[&other.org]).await.is_empty());
}

#[tokio::test]
async fn the_database_prevents_deletion_before_the_grace_period_ends() {
    let atrium = Atrium::start().await;
    let used = Used::create(&atrium).await;
    for _ in 0..2 {
        let refused = sqlx::query("DELETE FROM orgs WHERE id = $1::uuid")
            .bind(&used.org)
            .execute(&mut atrium.superuser().await)
            .await
            .unwrap_err();
        let constraint = refused.as_database_error().and_then(|error| error.constraint());
        assert_eq!(constraint, Some("orgs_deleted_after_grace"), "{refused}");
        // The second attempt runs during the grace period of a week.
        let _ = used.owner.client.delete(used.path("")).send().await.unwrap();
    }
}

#[tokio::test]
async fn an_owner_cannot_resume_or_delete_after_an_operators_suspension() {
    let atrium = Atrium::start().await;
    let used = Used::create(&atrium).await;
    used.act("/suspend").await;
    let operator = async |command: &str| {
        operator::run(atrium.wiring(), &["org", command, &used.org, "--reason", "spam"]).await
    };
    operator("suspend").await.unwrap();
    let organization = used.owner.client.get(used.path("")).answers(200).await;
    assert_eq!(
        (organization.at("/status"), organization.at("/suspended_by")),
        ("SUSPENDED".into(), "operator".into())
    );
    for request in [used.owner.client.post(used.path("/resume")), used.owner.client.delete(used.path(""))] {
        request.refused(403, "organization_suspended").await;
    }
    operator("resume").await.unwrap();
    used.member.press(&used.window, "ready").await.unwrap();
    used.owner.client.delete(used.path("")).answers(202).await;
    assert!(operator("suspend").await.unwrap_err().to_string().contains("being deleted"));
}
