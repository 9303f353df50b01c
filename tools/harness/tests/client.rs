//! The client against a minimal server: what it sends, what it reads, how it follows a stream.

use std::sync::Arc;
use std::time::Duration;

use atrium_contract::Contract;
use atrium_harness::client::Client;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(5);

/// A server that answers one connection after the other with these texts, and returns the requests.
async fn server(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = format!("http://{}", listener.local_addr().expect("has an address"));
    let serving = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut socket, _) = listener.accept().await.expect("accepts");
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                let read = socket.read(&mut buffer).await.expect("reads");
                request.extend_from_slice(&buffer[..read]);
                let text = String::from_utf8_lossy(&request);
                let length = text
                    .to_ascii_lowercase()
                    .split_once("content-length: ")
                    .and_then(|(_, rest)| rest.split("\r\n").next()?.parse().ok())
                    .unwrap_or(0);
                if read == 0 || text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() >= length) {
                    break;
                }
            }
            requests.push(String::from_utf8_lossy(&request).into_owned());
            socket.write_all(answer.as_bytes()).await.expect("writes");
        }
        requests
    });
    (address, serving)
}

fn json_answer(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn stream(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{text}")
}

#[tokio::test]
async fn a_request_has_identity_and_body_and_the_answer_is_read() {
    let (address, serving) =
        server(vec![json_answer("201 Created", "etag: \"3\"\r\n", r#"{"a":{"b":"c"}}"#)]).await;
    let client = Client::new(&address).bearer("t0ken");
    let reply =
        client.post("/x?y=z").json(json!({"n": 1})).idempotency_key("k").send().await.expect("answers");
    assert_eq!((reply.code(), reply.etag(), reply.at("/a/b").as_str()), (201, Some("\"3\""), "c"));
    let request = serving.await.expect("served").remove(0);
    assert!(request.starts_with("POST /x?y=z HTTP/1.1\r\n"), "{request}");
    for part in
        ["authorization: Bearer t0ken", "idempotency-key: k", "content-type: application/json", "{\"n\":1}"]
    {
        assert!(request.contains(part), "{part} is missing in {request}");
    }
}

#[tokio::test]
async fn cookies_come_back() {
    let answers = vec![
        json_answer("200 OK", "set-cookie: session=abc; HttpOnly\r\n", "{}"),
        json_answer("200 OK", "", "{}"),
    ];
    let (address, serving) = server(answers).await;
    let browser = Client::new(&address).with_cookies();
    for _ in 0..2 {
        browser.get("/").send().await.expect("answers");
    }
    let requests = serving.await.expect("served");
    assert!(!requests[0].contains("cookie:"));
    assert!(requests[1].contains("cookie: session=abc"), "{}", requests[1]);
}

#[tokio::test]
async fn a_follower_continues_after_the_last_event() {
    let answers = vec![
        stream("retry: 10\n: hello\nid: 1\ndata: {\"n\":1}\n\nid: 2\ndata: {\"n\":2}\n\ndata: cut"),
        stream("id: 3\nevent: last\ndata: {\"n\":3}\n\n"),
        "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".to_owned(),
    ];
    let (address, serving) = server(answers).await;
    let mut follower = Client::new(&address).follow("/events");
    let mut seen = Vec::new();
    while let Some(event) = follower.next(SOON).await.expect("an event or the end") {
        seen.push((event.id.clone(), event.event.clone(), event.json()["n"].as_u64()));
    }
    let expected = [("1", "message", 1), ("2", "message", 2), ("3", "last", 3)];
    assert_eq!(seen, expected.map(|(id, name, n)| (id.to_owned(), name.to_owned(), Some(n))));
    let requests = serving.await.expect("served");
    assert!(!requests[0].contains("last-event-id"));
    assert!(requests[1].contains("last-event-id: 2"), "{}", requests[1]);
    assert!(requests[2].contains("last-event-id: 3"), "{}", requests[2]);
}

#[tokio::test]
async fn a_refused_stream_reports_the_answer() {
    let (address, _serving) = server(vec![json_answer("404 Not Found", "", "{}")]).await;
    let refused = Client::new(&address).events("/events", None).await.expect_err("no stream");
    assert_eq!(refused.reply().map(atrium_contract::Reply::code), Some(404));
    assert!(refused.to_string().contains("expected a stream of events, got 404"), "{refused}");
}

#[tokio::test]
#[should_panic(expected = "no problem code of the operation has the status")]
async fn an_answer_that_violates_the_contract_panics() {
    let (address, _serving) = server(vec![json_answer("418 I'm a teapot", "", "{}")]).await;
    let contract = Arc::new(Contract::load().expect("the repository has a contract"));
    let _ = Client::new(&address).with_contract(contract).get("/v1/orgs").send().await;
}

#[tokio::test]
async fn an_unchecked_request_is_not_checked_against_the_contract() {
    let (address, _serving) = server(vec![json_answer("418 I'm a teapot", "", "{}")]).await;
    let contract = Arc::new(Contract::load().expect("the repository has a contract"));
    let reply = Client::new(&address).with_contract(contract).get("/v1/orgs").unchecked().send().await;
    assert_eq!(reply.expect("answers").code(), 418);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_an_error() {
    let error =
        Client::new("http://127.0.0.1:1").get("/").send().await.expect_err("nobody listens on port 1");
    assert!(error.to_string().contains("GET /"), "{error}");
}
