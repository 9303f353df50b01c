//! The checks that every request passes before its handler: routes, headers, bodies, and limits of a connection.

use std::time::Duration;

use atrium_harness::Atrium;
use http::Method;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::{
    CheckedSend as _, metric, until,
    wire::{connect, connect_from, exchange, is_problem, read_all},
};

#[tokio::test]
async fn only_paths_and_methods_of_the_route_table_are_served() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let client = &guest.client;
    for path in ["/nothing", "/v1/orgs/", "//v1/orgs", "/V1/orgs", "/v1", "/../etc/passwd", "/admin"] {
        client.get(path).refused(404, "route_not_found").await;
    }
    client.get("/v1/orgs/%ff").refused(404, "not_found").await;
    let refused = client.delete("/v1/orgs").refused(405, "method_not_allowed").await;
    assert_eq!(refused.header("allow"), Some("GET, HEAD, OPTIONS, POST"));
    for method in ["TRACE", "BREW"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        client.request(method, "/v1/orgs").refused(405, "method_not_allowed").await;
    }
    let options = client.request(Method::OPTIONS, "/v1/auth/me").unchecked().answers(204).await;
    assert_eq!(options.header("allow"), Some("GET, HEAD, OPTIONS"));

    let get = client.get("/v1/auth/me").answers(200).await;
    // A response to HEAD has the headers of a response with a body, which the contract cannot describe.
    let head = client.request(Method::HEAD, "/v1/auth/me").unchecked().answers(200).await;
    assert!(head.body.is_empty());
    assert_eq!(head.header("content-length"), Some(get.body.len().to_string().as_str()));
}

#[tokio::test]
async fn every_response_has_a_request_id_and_security_headers() {
    let atrium = Atrium::start().await;
    let client = atrium.client();
    for path in ["/", "/v1/auth/me", "/nothing", "/docs", "/v1/openapi.json"] {
        let reply = client.get(path).header("x-request-id", "my-id_1").send().await.unwrap();
        let id = reply.header("x-request-id").unwrap_or_default();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{path}: {id}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{path}");
        let policy = reply.header("content-security-policy").unwrap_or_default();
        assert!(
            policy.contains("frame-ancestors 'none'") && policy.contains("script-src 'self';"),
            "{path}: {policy}"
        );
        // This server does not use TLS.
        assert_eq!(reply.header("strict-transport-security"), None, "{path}");
    }
    let reply = client.get("/v1/auth/me").header("x-request-id", "a b\u{e9}").send().await.unwrap();
    assert_eq!(reply.header("x-request-id").map(str::len), Some(32));
    assert_eq!(reply.at("/request_id"), reply.header("x-request-id").unwrap());
}

#[tokio::test]
async fn invalid_bodies_get_a_problem() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let orgs = || guest.client.post("/v1/orgs");
    let deep = format!("{{\"name\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for wrong in [
        "",
        " ",
        "{",
        "nul",
        "{\"name\":\"a\"}}",
        "{\"name\":\"\\ud800\"}",
        "{\"name\":\"a\",\"name\":\"b\"}",
        "\u{feff}{}",
        "{\"name\":1e999}",
        "{'name':'a'}",
        "{\"name\":\"a\u{0}\"}",
        deep.as_str(),
    ] {
        let reply = orgs().body("application/json", wrong.to_owned()).send().await.unwrap();
        let reply = reply.must_be(400, "malformed_json");
        assert!(reply.at("/detail").len() < 300, "{}", reply.describe());
    }
    orgs().body("application/json", &b"{\"name\":\"\xff\"}"[..]).refused(400, "malformed_json").await;
    for (wrong, pointer) in [
        (json!([]), ""),
        (json!({}), "/name"),
        (json!({ "name": 7 }), "/name"),
        (json!({ "name": null }), "/name"),
        (json!({ "name": "" }), "/name"),
        (json!({ "name": "  \t" }), "/name"),
        (json!({ "name": "a\u{0}b" }), "/name"),
        (json!({ "name": "x".repeat(81) }), "/name"),
        (json!({ "name": "a", "status": "COMMITTED" }), "/status"),
        (json!({ "name": "a", "id": "x" }), "/id"),
    ] {
        let reply = orgs().json(wrong.clone()).refused(422, "validation_failed").await;
        assert_eq!(reply.json()["errors"][0]["pointer"], pointer, "{wrong}");
    }
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "multipart/form-data",
    ] {
        orgs().body(kind, "{\"name\":\"a\"}").refused(415, "unsupported_media_type").await;
    }
    let huge = json!({ "name": "x".repeat(64 * 1024) });
    orgs().json(huge).refused(413, "body_too_large").await;
    // An operation without a body accepts an empty object only.
    let client = atrium.client();
    client.post("/v1/auth/guest").json(json!({})).answers(201).await;
    client.post("/v1/auth/guest").json(json!({ "admin": true })).refused(422, "validation_failed").await;
    client.post("/v1/auth/guest").body("text/plain", "{}").refused(415, "unsupported_media_type").await;
    // The process still works.
    guest.client.get("/v1/auth/me").answers(200).await;
}

#[tokio::test]
async fn a_response_lists_at_most_fifty_validation_errors() {
    let atrium = Atrium::start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Mistakes").await.unwrap();
    let fields: serde_json::Map<_, _> = (0..5_000).map(|number| (number.to_string(), json!(0))).collect();
    let actions = format!("/v1/orgs/{org}/configs/chat.actions");
    for wrong in [
        owner.client.post("/v1/orgs").json(json!(fields)),
        owner.client.get(format!("/v1/orgs?{}", "a&".repeat(5_000))),
        owner.client.put(actions).if_match("*").json(json!({ "value": vec![0; 30_000], "reason": "x" })),
    ] {
        let reply = wrong.answers(422).await;
        assert_eq!(reply.json()["errors"].as_array().unwrap().len(), 50);
        assert!(reply.body.len() < 64 * 1024, "{} bytes", reply.body.len());
    }
}

#[tokio::test]
async fn invalid_headers_and_queries_get_a_problem() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let client = &guest.client;
    for query in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=1e1",
        "limit=",
        "limit=1&limit=2",
        "cursor=%00",
        "cursor=x",
        "offset=1",
        "cursor=AAAA",
    ] {
        client.get(format!("/v1/orgs?{query}")).refused(422, "validation_failed").await;
    }
    client.get("/v1/orgs?limit=%ff").refused(400, "malformed_request").await;
    client.get("/v1/orgs?limit=%").refused(400, "malformed_request").await;
    let org = guest.organization("Edge").await.unwrap();
    let rename = || client.patch(format!("/v1/orgs/{org}")).json(json!({ "name": "b" }));
    for wrong in ["1", "\"1", "'1'", "\"1\", \"2\"", ""] {
        rename().if_match(wrong).refused(400, "malformed_request").await;
    }
    rename().if_match("\"1\"").if_match("\"2\"").refused(400, "malformed_request").await;
    rename().if_match([b'"', 0xff, b'"']).refused(400, "malformed_request").await;
    rename().if_match("\"99999999999999999999\"").refused(412, "precondition_failed").await;
    rename().if_match("\"-1\"").refused(412, "precondition_failed").await;
    rename().if_match("W/\"1\"").refused(412, "precondition_failed").await;
    for wrong in [&b""[..], b"a b", b"\xff", &[b'k'; 256]] {
        let create = client.post("/v1/orgs").json(json!({ "name": "a" })).idempotency_key(wrong);
        create.refused(400, "malformed_request").await;
    }
}

#[tokio::test]
async fn malformed_http_gets_a_problem() {
    let atrium = Atrium::start().await;
    let megabyte = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n");
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(70_000));
    for (about, bytes) in [
        ("nonsense", "\u{1}\u{2}\u{3}\r\n\r\n"),
        ("another version", "GET / HTTP/9.9\r\nhost: a\r\n\r\n"),
        ("a header without a name", "GET / HTTP/1.1\r\n: x\r\n\r\n"),
        ("NUL in a header", "GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n"),
        ("a folded header", "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n"),
        (
            "two lengths",
            "POST /v1/auth/guest HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        ),
        ("an invalid length", "POST /v1/auth/guest HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n"),
        ("a megabyte of headers", &megabyte),
        ("too many headers", &many),
        ("a long address", &long),
    ] {
        is_problem(&exchange(&atrium, bytes.as_bytes()).await, "malformed_request", about);
    }
    for (about, head) in [
        ("no host", "GET / HTTP/1.1\r\nconnection: close\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n"),
    ] {
        is_problem(&exchange(&atrium, head.as_bytes()).await, "malformed_request", about);
    }
    let chunked = "POST /v1/auth/guest HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    is_problem(&exchange(&atrium, chunked.as_bytes()).await, "malformed_request", "a chunk without a length");
    let bomb = format!(
        "POST /v1/auth/guest HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{}",
        format!("1000\r\n{}\r\n", "x".repeat(0x1000)).repeat(1000)
    );
    is_problem(&exchange(&atrium, bomb.as_bytes()).await, "body_too_large", "a body without an end");
    let declared = "POST /v1/auth/guest HTTP/1.1\r\nhost: a\r\ncontent-length: 1099511627776\r\n\r\n";
    is_problem(&exchange(&atrium, declared.as_bytes()).await, "body_too_large", "a terabyte, declared");
    atrium.client().get("/").answers(200).await;
}

#[tokio::test]
async fn slow_requests_time_out() {
    let atrium = Atrium::start().await;
    let half_a_head = async {
        let mut stream = connect(&atrium).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").await.unwrap();
        read_all(&mut stream, Duration::from_secs(25)).await
    };
    let half_a_body = async {
        let mut stream = connect(&atrium).await;
        let head = b"POST /v1/auth/guest HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
        stream.write_all(head).await.unwrap();
        read_all(&mut stream, Duration::from_secs(25)).await
    };
    let nothing = async { read_all(&mut connect(&atrium).await, Duration::from_secs(25)).await };
    let (head, body, nothing) = tokio::join!(half_a_head, half_a_body, nothing);
    assert_eq!((head.as_str(), nothing.as_str()), ("", ""));
    is_problem(&body, "malformed_request", "half a body");
}

#[tokio::test]
async fn connections_are_limited_by_address() {
    let atrium = Atrium::start().await;
    let mut connections = Vec::new();
    for _ in 0..1000 {
        connections.push(connect_from(&atrium, 9).await);
    }
    // The process may not have accepted the last connections yet.
    let open = async || metric(&atrium, 0, "atrium_http_connections").await;
    until("all connections are counted", async || open().await >= 1000.0).await;
    let mut refused = connect_from(&atrium, 9).await;
    let response = read_all(&mut refused, Duration::from_secs(5)).await;
    is_problem(&response, "rate_limited", "one connection above the limit");
    assert!(response.contains("retry-after: 5\r\n"), "{response}");
    atrium.client().get("/").answers(200).await;
    drop(connections);
    until("closed connections are no longer counted", async || open().await < 100.0).await;
    let mut admitted = connect_from(&atrium, 9).await;
    admitted.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(read_all(&mut admitted, Duration::from_secs(5)).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn clients_that_do_not_read_use_little_memory() {
    let atrium = Atrium::start().await;
    let before = atrium.api(0).resident();
    let mut stalled = Vec::new();
    for _ in 0..300 {
        let mut stream = connect(&atrium).await;
        let requests = "GET /v1/openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".repeat(50);
        stream.write_all(requests.as_bytes()).await.unwrap();
        stalled.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Other clients still get their responses.
    atrium.client().get("/v1/auth/me").refused(401, "unauthenticated").await;
    let grown = atrium.api(0).resident().saturating_sub(before);
    assert!(grown < 300 * 100 * 1024, "{grown} bytes for 300 clients that do not read");
}

#[tokio::test]
async fn pages_are_served_and_revalidated_with_etags() {
    let atrium = Atrium::start().await;
    let client = atrium.client();
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/errors", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/v1/openapi.json", "application/json"),
    ] {
        let page = client.get(path).answers(200).await;
        assert_eq!(page.header("content-type"), Some(kind), "{path}");
        assert!(!page.body.is_empty(), "{path}");
        let etag = page.etag().unwrap().to_owned();
        let again = client.get(path).header("if-none-match", etag).answers(304).await;
        assert!(again.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn cors_allows_only_the_origins_in_the_settings() {
    let builder = Atrium::builder().setting("ATRIUM_ALLOWED_ORIGINS", "https://friend.example");
    let atrium = builder.start().await;
    let guest = atrium.guest().await;
    let preflight_from = |origin: &'static str| {
        let preflight = atrium.client().request(Method::OPTIONS, "/v1/orgs").unchecked();
        preflight.header("origin", origin).header("access-control-request-method", "POST").send()
    };
    let allowed = preflight_from("https://friend.example").await.unwrap().must(204);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://friend.example"));
    assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
    assert!(allowed.header("access-control-allow-methods").unwrap().contains("POST"));
    let refused = preflight_from("https://evil.example").await.unwrap().must(204);
    assert_eq!(refused.header("access-control-allow-origin"), None);
    assert_eq!(refused.header("access-control-allow-methods"), None);

    let get = |origin: &'static str| guest.client.get("/v1/orgs").header("origin", origin).send();
    let allowed = get("https://friend.example").await.unwrap().must(200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://friend.example"));
    let refused = get("https://evil.example").await.unwrap().must(200);
    assert_eq!(refused.header("access-control-allow-origin"), None);
    assert_eq!(refused.header("vary"), Some("origin"));
}
