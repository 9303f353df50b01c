//! Exports: an export is complete or visibly cut off, shows one point in time, and needs little memory at any size.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use atrium_contract::Reply;
use atrium_harness::{Atrium, guest::Guest};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{CheckedSend as _, PATIENCE, until, wire::connect};

/// The lines of an export, after checking that its last line confirms that it is complete.
pub(crate) fn lines(body: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(body).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let before_last = text.trim_end_matches('\n').rfind('\n').unwrap() + 1;
    let hash: String =
        Sha256::digest(&body[..before_last]).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(lines.last().unwrap(), &json!({ "type": "end", "lines": lines.len() - 1, "sha256": hash }));
    lines
}

/// The lines of this type, without their type.
pub(crate) fn of_type(lines: &[Value], kind: &str) -> Vec<Value> {
    let of_type = lines.iter().filter(|line| line["type"] == kind).cloned();
    of_type
        .map(|mut line| {
            line.as_object_mut().unwrap().remove("type");
            line
        })
        .collect()
}

pub(crate) async fn export(owner: &Guest, org: &str) -> Reply {
    owner.client.get(format!("/v1/orgs/{org}/export")).answers(200).await
}

/// Sets the organization's state directly, as a saga would.
async fn set_state(superuser: &mut PgConnection, org: &str, state: &'static str) {
    sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE orgs SET {state} WHERE id = $1::uuid")))
        .bind(org)
        .execute(superuser)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_export_contains_everything_once_without_secrets() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Ärzte \u{1f489} \"Nord\"\\wind").await.unwrap();
    let member = owner.invite_guest(&org, "member").await.unwrap();
    let project = owner.project(&org, "Harbor").await.unwrap();
    let code = owner.invite(&org, "viewer").await.unwrap();
    let key = owner.client.post(format!("/v1/orgs/{org}/api-keys"));
    let key = key.json(json!({ "name": "Builder", "scopes": ["config:read"] })).answers(201).await;
    owner.configure(&org, "chat.max_active_sessions", json!(4), "more").await.unwrap();
    let window = member.open_chat(&org, &project).await.unwrap();
    member.press(&window, "ready").await.unwrap();
    let counted = async || {
        let path = format!("/v1/orgs/{org}/projects/{project}/chat/counters");
        owner.client.get(path).answers(200).await.json()["total"] == 1
    };
    until("the action is counted", counted).await;

    let reply = export(&owner, &org).await;
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    let lines = lines(&reply.body);
    let first = &lines[0];
    assert_eq!(
        (&first["type"], &first["version"], &first["config_revision"]),
        (&json!("export"), &json!(1), &json!(2))
    );
    assert_eq!(
        (&first["org_id"], &first["name"], &first["status"]),
        (&json!(org), &json!("Ärzte \u{1f489} \"Nord\"\\wind"), &json!("COMMITTED"))
    );
    let kinds: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    let mut expected = vec!["export", "project", "member", "member", "invitation", "invitation", "api_key"];
    expected.extend(["config_value", "config_change", "chat_counter"]);
    // Created, invited, joined, a project created, invited, a key created, configured, exported.
    expected.extend(["audit_entry"; 8]);
    expected.push("end");
    assert_eq!(kinds, expected);
    assert_eq!(of_type(&lines, "project")[0]["id"], json!(project));
    assert_eq!(
        of_type(&lines, "chat_counter"),
        [json!({ "project_id": project, "action": "ready", "count": 1 })]
    );
    let value = json!({ "project_id": null, "key": "chat.max_active_sessions", "value": 4, "revision": 2 });
    assert_eq!(of_type(&lines, "config_value"), [value]);
    let change = &of_type(&lines, "config_change")[0];
    assert_eq!((&change["author_name"], &change["reason"]), (&json!(owner.name), &json!("more")));
    // The exported log equals the log in the API, oldest first, and includes the entry of the export itself.
    let mut log =
        owner.client.get(format!("/v1/orgs/{org}/audit")).answers(200).await.json()["items"].clone();
    let log = log.as_array_mut().unwrap();
    log.reverse();
    assert_eq!(log.last().unwrap()["action"], "organization.exported");
    let hashes = |entries: &[Value]| entries.iter().map(|entry| entry["hash"].clone()).collect::<Vec<_>>();
    assert_eq!(hashes(&of_type(&lines, "audit_entry")), hashes(log));
    let text = reply.text();
    let key = key.at("/key");
    let [code_end, key_end] = [&code, &key].map(|text| &text[text.len() - 16..]);
    for secret in [code_end, key_end, "code_hash", owner.client.token().unwrap()] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn only_owners_export_in_every_state_except_pending() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Northwind").await.unwrap();
    let admin = owner.invite_guest(&org, "admin").await.unwrap();
    let path = format!("/v1/orgs/{org}/export");
    admin.client.get(&path).refused(403, "forbidden").await;
    atrium.guest().await.client.get(&path).refused(404, "not_found").await;
    atrium.client().get(&path).refused(401, "unauthenticated").await;

    // A HEAD request exports nothing and writes no audit entry.
    let head = owner.client.request(http::Method::HEAD, &path).answers(200).await;
    let file = head.header("content-disposition").unwrap().to_owned();
    assert!(file.starts_with("attachment; filename=\"northwind-") && file.ends_with(".ndjson\""), "{file}");
    let log = format!("/v1/orgs/{org}/audit?action=organization.exported");
    assert_eq!(owner.client.get(&log).answers(200).await.json()["items"], json!([]));

    let mut superuser = atrium.superuser().await;
    for (state, status) in [
        ("status = 'SUSPENDED', suspended_by = 'operator'", "SUSPENDED"),
        (
            "status = 'DELETING', deletion_id = gen_random_uuid(), delete_at = now() + interval '1 day'",
            "DELETING",
        ),
    ] {
        set_state(&mut superuser, &org, state).await;
        let lines = lines(&export(&owner, &org).await.body);
        assert_eq!(lines[0]["status"], status);
    }
    set_state(&mut superuser, &org, "status = 'PENDING', deletion_id = NULL, delete_at = NULL").await;
    owner.client.get(&path).refused(409, "organization_not_ready").await;
}

/// An organization with `rows` configuration changes and `rows` audit entries, inserted directly.
async fn large_organization(atrium: &Atrium, rows: i32) -> (Guest, String) {
    let owner = atrium.guest().await;
    let org = owner.organization("Large").await.unwrap();
    let mut superuser = atrium.superuser().await;
    for statement in [
        "SET session_replication_role = replica",
        "INSERT INTO config_history (org_id, revision, key, action, new_value, reason)
         SELECT $1::uuid, 1 + n, 'chat.max_active_sessions', 'set', '3', repeat('because ', 25)
           FROM generate_series(1, $2) n",
        "INSERT INTO audit_log (org_id, seq, at, actor_kind, actor_name, action, target_kind, target_id, after, hash)
         SELECT $1::uuid, 1 + n, now(), 'system', 'test', 'organization.renamed', 'organization', $1,
                jsonb_build_object('name', repeat('name ', 15)), sha256('')
           FROM generate_series(1, $2) n",
    ] {
        let query = sqlx::query(statement);
        let query = if statement.contains("$1") { query.bind(&org).bind(rows) } else { query };
        query.execute(&mut superuser).await.unwrap();
    }
    (owner, org)
}

/// An export over a raw socket, read at the pace of the test.
struct Download {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Download {
    /// Sends the request and reads the head of the response.
    async fn start(atrium: &Atrium, owner: &Guest, org: &str) -> Self {
        let mut stream = connect(atrium).await;
        let token = owner.client.token().unwrap();
        let request =
            format!("GET /v1/orgs/{org}/export HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut download = Self { stream, received: Vec::new() };
        download.read_at_least(200).await;
        assert!(download.text().starts_with("HTTP/1.1 200"), "{}", download.text());
        download
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    async fn read_at_least(&mut self, bytes: usize) {
        let goal = self.received.len() + bytes;
        while self.received.len() < goal {
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
            assert!(read.unwrap().unwrap() > 0, "the response ended early");
        }
    }

    /// Reads up to the last chunk and returns the body, or `None` if the connection ends before.
    async fn read_to_end(mut self) -> Option<Vec<u8>> {
        while !self.received.ends_with(b"\r\n0\r\n\r\n") {
            self.received.reserve(1 << 20);
            let read =
                tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await.unwrap();
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
        let head = self.received.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let (mut body, mut rest) = (Vec::new(), &self.received[head..]);
        loop {
            let line = rest.windows(2).position(|two| two == b"\r\n").unwrap();
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
            if size == 0 {
                return Some(body);
            }
            body.extend_from_slice(&rest[line + 2..line + 2 + size]);
            rest = &rest[line + 2 + size + 2..];
        }
    }
}

/// The resident memory of a process, in bytes.
fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// The number of the application's transactions that have an export's snapshot open.
async fn snapshots(superuser: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'atrium_app'
            AND state <> 'idle' AND query LIKE ANY (ARRAY['FETCH %', 'DECLARE %', 'CLOSE %'])",
    )
    .fetch_one(superuser)
    .await
    .unwrap()
}

async fn until_snapshots(superuser: &mut PgConnection, count: i64, patience: Duration) {
    let started_at = Instant::now();
    while snapshots(superuser).await != count {
        assert!(started_at.elapsed() < patience, "there are not {count} snapshots");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "figures")]
async fn a_large_export_is_a_snapshot_in_little_memory_next_to_a_slow_reader() {
    const ROWS: usize = 100_000;
    let atrium = Atrium::start().await;
    let (owner, org) = large_organization(&atrium, ROWS as i32).await;
    let pid = atrium.api(0).pid();
    let before = resident(pid);
    let mut slow = Download::start(&atrium, &owner, &org).await;
    let speed_up = Arc::new(AtomicBool::new(false));
    let slow = tokio::spawn({
        let speed_up = Arc::clone(&speed_up);
        async move {
            let mut buffer = [0; 1 << 14];
            while !speed_up.load(Ordering::Relaxed) {
                let count = slow.stream.read(&mut buffer).await.unwrap();
                slow.received.extend_from_slice(&buffer[..count]);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            slow.read_to_end().await
        }
    });

    // Changes from now on are not in the slow export.
    owner.project(&org, "Newcomer").await.unwrap();

    let started_at = Instant::now();
    let fast = Download::start(&atrium, &owner, &org).await;
    // A third concurrent export is rejected.
    let refused = owner.client.get(format!("/v1/orgs/{org}/export")).refused(503, "unavailable").await;
    assert_eq!(refused.header("retry-after"), Some("10"));
    let peak = Arc::new(AtomicUsize::new(0));
    let sampler = tokio::spawn({
        let peak = Arc::clone(&peak);
        async move {
            loop {
                peak.fetch_max(resident(pid), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    let fast = fast.read_to_end().await.expect("a whole export");
    let elapsed = started_at.elapsed();
    sampler.abort();
    let grown = peak.load(Ordering::Relaxed).saturating_sub(before);
    let rows = lines(&fast).len();
    eprintln!(
        "{rows} lines, {} MiB in {elapsed:.1?}: {:.0} lines/s; memory grew by {} KiB",
        fast.len() >> 20,
        rows as f64 / elapsed.as_secs_f64(),
        grown >> 10
    );
    assert!(grown < 24 << 20, "memory grew by {grown} bytes, for an export of {}", fast.len());
    assert!(String::from_utf8_lossy(&fast).contains("Newcomer"));

    assert!(!slow.is_finished());
    speed_up.store(true, Ordering::Relaxed);
    let slow = lines(&slow.await.unwrap().expect("a slow reader gets all of it, too"));
    assert_eq!(of_type(&slow, "config_change").len(), ROWS);
    // The creation, the inserted entries and the export itself, but nothing that was added while it was read.
    assert_eq!(of_type(&slow, "audit_entry").len(), ROWS + 2);
    assert!(!slow.iter().any(|line| line.to_string().contains("Newcomer")));
}

#[tokio::test]
async fn disconnected_and_stalled_exports_release_their_snapshots() {
    let atrium = Atrium::builder().setting("ATRIUM_DRAIN_SECONDS", "20").start().await;
    // More than the socket buffers can take.
    let (owner, org) = large_organization(&atrium, 30_000).await;
    let mut superuser = atrium.superuser().await;

    let disconnected = Download::start(&atrium, &owner, &org).await;
    until_snapshots(&mut superuser, 1, PATIENCE).await;
    drop(disconnected);
    until_snapshots(&mut superuser, 0, PATIENCE).await;

    let stalled = Download::start(&atrium, &owner, &org).await;
    until_snapshots(&mut superuser, 1, PATIENCE).await;
    until_snapshots(&mut superuser, 0, Duration::from_secs(60) + PATIENCE).await;
    assert!(stalled.read_to_end().await.is_none(), "the connection is cut, without a last chunk");

    // Both export slots are free again. A stop waits for the client that reads, and cuts off the one that does not.
    let stalled = Download::start(&atrium, &owner, &org).await;
    let reading = Download::start(&atrium, &owner, &org).await;
    let ended = atrium.api(0).end();
    atrium.api(0).sigterm();
    let reading = reading.read_to_end().await.expect("what was begun is finished");
    assert!(lines(&reading).len() > 60_000);
    assert!(tokio::time::timeout(PATIENCE, ended).await.unwrap().success());
    assert!(stalled.read_to_end().await.is_none(), "the connection is cut, without a last chunk");
    until_snapshots(&mut superuser, 0, PATIENCE).await;
}
