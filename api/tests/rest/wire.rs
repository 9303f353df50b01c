//! Raw sockets, for requests that an HTTP client cannot send.

use std::{net::Ipv4Addr, time::Duration};

use atrium_harness::Atrium;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

/// A connection to the first API process.
pub(crate) async fn connect(atrium: &Atrium) -> TcpStream {
    connect_from(atrium, 1).await
}

/// A connection from the address 127.0.0.`last`.
pub(crate) async fn connect_from(atrium: &Atrium, last: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
    let address = atrium.url().trim_start_matches("http://").parse().unwrap();
    socket.connect(address).await.unwrap()
}

/// Reads until the server closes the connection, for at most `patience`. A connection error counts as closed.
pub(crate) async fn read_all(stream: &mut TcpStream, patience: Duration) -> String {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    let read = async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            received.extend_from_slice(&buffer[..count]);
        }
    };
    assert!(
        tokio::time::timeout(patience, read).await.is_ok(),
        "the server did not close within {patience:?}"
    );
    String::from_utf8_lossy(&received).into_owned()
}

/// Sends bytes and reads until the server closes the connection. Failing to send all of them is not an error, because
/// the server may close during an invalid request.
pub(crate) async fn exchange(atrium: &Atrium, bytes: &[u8]) -> String {
    let mut stream = connect(atrium).await;
    let (mut reader, mut writer) = stream.split();
    let mut received = Vec::new();
    let conversation = async {
        let write = async {
            let _ = writer.write_all(bytes).await;
        };
        let read = async {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                received.extend_from_slice(&buffer[..count]);
            }
        };
        tokio::join!(write, read);
    };
    let ended = tokio::time::timeout(Duration::from_secs(30), conversation).await;
    assert!(ended.is_ok(), "the server did not close the connection");
    String::from_utf8_lossy(&received).into_owned()
}

/// Asserts that the response is a client error with this problem document.
#[track_caller]
pub(crate) fn is_problem(response: &str, code: &str, about: &str) {
    let head = response.lines().next().unwrap_or_default();
    assert!(head.starts_with("HTTP/1.1 4"), "{about}: {response}");
    let document = response.split("\r\n\r\n").nth(1).unwrap_or_default();
    let document: serde_json::Value =
        serde_json::from_str(document).unwrap_or_else(|error| panic!("{about}: {error}: {response}"));
    assert_eq!(document["code"], code, "{about}: {response}");
    assert!(response.contains("x-request-id: "), "{about}: {response}");
}
