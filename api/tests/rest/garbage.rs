//! Invalid requests generated from the contract, each with one error: in the body, a field, a header or the query.
//! Every response must be a client error, and the process must keep working.

use atrium_harness::Atrium;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::{CheckedSend as _, operations::Operation, world::World};

/// Texts that are not valid JSON.
fn invalid_json(valid: &str) -> Vec<Vec<u8>> {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let half = &valid[..valid.len() - 1];
    let twice = format!("{half},{}", &valid[1..]);
    let mut texts: Vec<Vec<u8>> = [
        deep.as_str(),
        &"[".repeat(10_000),
        &"{\"a\":".repeat(10_000),
        half,
        &twice,
        &format!("{valid}{valid}"),
        &format!("\u{feff}{valid}"),
        &format!("{half},\"a\":\"\\ud800\"}}"),
        &format!("{half},\"a\":\"\\udc00\\ud800\"}}"),
        &format!("{half},\"\\ud800\":1}}"),
        &format!("{half},\"a\":\"\u{0}\"}}"),
        &format!("{half},\"a\":1e999}}"),
        &format!("{half},\"a\":01}}"),
        &format!("{half},\"a\":NaN}}"),
        &format!("{half},}}"),
        &format!("/**/{valid}"),
        " ",
        "\0",
    ]
    .into_iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    texts.push([half.as_bytes(), b",\"a\":\"\xff\"}"].concat());
    texts.push(valid.encode_utf16().flat_map(u16::to_le_bytes).collect());
    texts
}

/// Values of every kind. None is valid for a field with a specific format.
fn values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(0.5),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!(" \t "),
        json!("a\u{0}b"),
        json!("\u{7f}\u{85}\u{2028}"),
        json!("x".repeat(10_000)),
        json!([]),
        json!(["a"]),
        json!({}),
        json!({ "a": { "a": [{}] } }),
    ]
}

/// Fields that only the server sets.
const READ_ONLY: [&str; 8] =
    ["id", "org_id", "user_id", "status", "slug", "created_at", "revision", "__proto__"];

#[tokio::test]
async fn every_invalid_body_gets_a_client_error() {
    let atrium = Atrium::start().await;
    let mut requests = 0;
    // Operations that take a refresh token only are excluded, because they check the token before the body.
    for operation in Operation::all().into_iter().filter(|operation| operation.public || operation.by_token) {
        let Some(valid) = &operation.body else { continue };
        let world = World::create(&atrium, &[]).await;
        let client = world.people["owner"].client.clone();
        let request = || operation.without_body(&client, |name| world.own(&operation, "owner", name));
        let fields = valid.as_object().expect("bodies are objects");

        for text in invalid_json(&valid.to_string()) {
            requests += 1;
            let shown = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
            let reply = request().body("application/json", text).send().await.unwrap();
            // For an object without fields, some of the texts are valid JSON with an unknown field.
            let expected = [(400, "malformed_json"), (422, "validation_failed")];
            let actual = (reply.code(), reply.problem());
            assert!(expected.contains(&(actual.0, actual.1.as_str())), "{shown}: {}", reply.describe());
        }
        let non_objects =
            [json!(null), json!([]), json!([valid]), json!(1), json!("a"), json!(valid.to_string())];
        for value in non_objects {
            requests += 1;
            request().json(value).refused(422, "validation_failed").await;
        }
        let unknown = READ_ONLY.iter().chain(&["", "a/b~c", "NAME", "\u{0}", "🙂"]);
        for name in unknown.filter(|name| !fields.contains_key(**name)) {
            requests += 1;
            let mut body = fields.clone();
            body.insert((*name).to_owned(), json!("a"));
            let reply = request().json(Value::Object(body)).refused(422, "validation_failed").await;
            assert_eq!(reply.at("/errors/0/code"), "unknown", "{}", reply.describe());
        }
        for (name, valid_value) in fields {
            for wrong in values().into_iter().filter(|value| value != valid_value) {
                requests += 1;
                let mut body = fields.clone();
                body.insert(name.clone(), wrong.clone());
                let reply = request().json(Value::Object(body)).send().await.unwrap();
                assert!((400..500).contains(&reply.code()), "{name}: {wrong:.60}: {}", reply.describe());
                assert!(reply.problem().len() > 1, "{}", reply.describe());
            }
        }
        for kind in
            ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", ""]
        {
            requests += 1;
            request().body(kind, valid.to_string()).refused(415, "unsupported_media_type").await;
        }
        // Each field is either optional or reported as missing, and the contract's example body is accepted.
        let without_one_field = fields.keys().map(|name| {
            let mut fields = fields.clone();
            fields.remove(name);
            Value::Object(fields)
        });
        for body in without_one_field {
            let world = World::create(&atrium, &[]).await;
            let request = operation
                .without_body(&world.people["owner"].client, |name| world.own(&operation, "owner", name));
            let reply = request.json(body).send().await.unwrap();
            assert!(reply.code() < 300 || reply.problem() == "validation_failed", "{}", reply.describe());
        }
        let reply =
            operation.request(&client, |name| world.own(&operation, "owner", name)).send().await.unwrap();
        assert!(reply.code() < 300 || reply.problem() == "invitation_not_found", "{}", reply.describe());
    }
    assert!(requests > 400, "{requests}");
}

/// Headers that Atrium or hyper reads, and one unknown header.
const HEADERS: [&str; 14] = [
    "authorization",
    "cookie",
    "content-type",
    "if-match",
    "if-none-match",
    "idempotency-key",
    "last-event-id",
    "origin",
    "sec-fetch-site",
    "accept",
    "x-request-id",
    "x-forwarded-for",
    "expect",
    "x-nobody-knows-this",
];

#[tokio::test]
async fn no_invalid_header_or_query_causes_a_server_error() {
    let atrium = Atrium::start().await;
    let (nines, long) = ("9".repeat(300), "x".repeat(8_000));
    let values: [&[&[u8]]; 8] = [
        &[b""],
        &[b"\xff\xfe"],
        &[b"a\tb"],
        &[b"\"\\,;=\""],
        &[b"-1"],
        &[nines.as_bytes()],
        &[long.as_bytes()],
        &[b"a", b"b"],
    ];
    let queries =
        ["a", "=", "&&", "%", "%ff", "%00=%00", "limit=1&limit=1", "last_event_id=%ff", "a[]=1", "?"];
    let mut requests = 0;
    // One page represents all pages, because they share a handler.
    let is_tested =
        |operation: &Operation| operation.template.starts_with("/v1/") || operation.template == "/";
    for operation in Operation::all().into_iter().filter(is_tested) {
        let world = World::create(&atrium, &[]).await;
        let client = &world.people["owner"].client;
        let mut garbage = Vec::new();
        for header in HEADERS {
            for values in values {
                let request = operation.request(client, |name| world.own(&operation, "owner", name));
                garbage.push(values.iter().fold(request, |request, value| request.header(header, value)));
            }
        }
        for query in queries {
            let path = operation.template.split('/').map(|part| {
                let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
                name.map_or(part, |name| world.own(&operation, "owner", name))
            });
            let path = path.collect::<Vec<_>>().join("/");
            garbage.push(client.request(operation.method.clone(), format!("{path}?{query}")));
        }
        requests += garbage.len();
        // For a stream the beginning is enough. The client checks every response against the contract.
        let replies = garbage.into_iter().map(|request| operation.send(request));
        // Concurrent exports and imports are limited, and that rejection would hide the result for the request.
        let concurrency = if operation.is_export_or_import() { 1 } else { 8 };
        let replies =
            futures_util::stream::iter(replies).buffer_unordered(concurrency).collect::<Vec<_>>().await;
        for reply in replies.iter().flatten() {
            assert!(reply.code() < 500, "{}", reply.describe());
        }
    }
    assert!(requests > 4_000, "{requests}");
}
