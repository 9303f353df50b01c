//! Bytes on a socket: what no well-behaved client sends.

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

/// Everything that comes until the server closes, at most for `patience`. An error of the connection is an end too.
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

/// Sends bytes and reads the response until the server closes. A partial send is no failure: a server may stop reading
/// malformed input.
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
    assert!(ended.is_ok(), "the server neither answers nor closes");
    String::from_utf8_lossy(&received).into_owned()
}

/// Makes sure that this is a client error with a problem document.
#[track_caller]
pub(crate) fn is_problem(answer: &str, code: &str, about: &str) {
    let head = answer.lines().next().unwrap_or_default();
    assert!(head.starts_with("HTTP/1.1 4"), "{about}: {answer}");
    let document = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    let document: serde_json::Value =
        serde_json::from_str(document).unwrap_or_else(|error| panic!("{about}: {error}: {answer}"));
    assert_eq!(document["code"], code, "{about}: {answer}");
    assert!(answer.contains("x-request-id: "), "{about}: {answer}");
}
