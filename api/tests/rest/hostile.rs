//! Attacks with many connections: memory stays bounded, the attackers are rejected, and other clients are still served.

#![expect(clippy::print_stdout, reason = "how much memory there was, with --nocapture")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use atrium_harness::Atrium;
use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    CheckedSend as _, PATIENCE,
    wire::{connect_from, exchange, is_problem, read_all},
};

const MIB: usize = 1 << 20;

/// Runs an attack while a client at another address keeps sending requests, all of which must be served. Asserts that
/// the process grows by less than `bound` bytes, and returns the output of the attack.
async fn under_attack<T>(atrium: &Atrium, name: &str, bound: usize, attack: impl Future<Output = T>) -> T {
    let (api, client) = (atrium.api(0), atrium.client());
    let (before, peak) = (api.resident(), AtomicUsize::new(0));
    let (ended, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let others = async {
        // One more request is sent after the attack, however short it was.
        let mut last = false;
        while !last {
            last = ended.load(Ordering::Relaxed);
            client.get("/v1/auth/me").refused(401, "unauthenticated").await;
            served.fetch_add(1, Ordering::Relaxed);
            peak.fetch_max(api.resident(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let attack = async {
        let output = attack.await;
        ended.store(true, Ordering::Relaxed);
        output
    };
    let (output, ()) = tokio::join!(attack, others);
    let (peak, served) = (peak.into_inner(), served.into_inner());
    let grown = peak.saturating_sub(before);
    println!(
        "{name}: {} MiB before, at most {} KiB more; {served} answers meanwhile",
        before / MIB,
        grown / 1024
    );
    assert!(grown < bound, "{name}: {grown} bytes more");
    assert!(served > 1, "{name}: the others were not served");
    output
}

/// Sends one byte a second until the server closes the connection, and returns what it received.
async fn drip(stream: TcpStream, bytes: &'static [u8]) -> String {
    let (mut reader, mut writer) = stream.into_split();
    let dripping = tokio::spawn(async move {
        for byte in bytes.iter().cycle() {
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let mut received = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut received)).await.expect("it is let go");
    dripping.abort();
    String::from_utf8_lossy(&received).into_owned()
}

/// Sends a beginning, then the same text again and again until the server accepts no more. Returns the number of bytes
/// sent.
async fn flood(mut stream: TcpStream, beginning: String, again: Arc<str>) -> usize {
    let mut sent = 0;
    let flooding = async {
        stream.write_all(beginning.as_bytes()).await?;
        loop {
            stream.write_all(again.as_bytes()).await?;
            sent += again.len();
        }
    };
    let ended: Result<std::io::Result<()>, _> = tokio::time::timeout(PATIENCE, flooding).await;
    assert!(ended.is_ok(), "the server still accepts more after {sent} bytes");
    sent
}

#[tokio::test]
async fn ten_thousand_idle_connections_from_one_address_are_limited() {
    let atrium = Atrium::start().await;
    under_attack(&atrium, "10,000 idle connections", 48 * MIB, async {
        let mut connections = Vec::new();
        while connections.len() < 10_000 {
            connections.extend(join_all((0..100).map(|_| connect_from(&atrium, 9))).await);
        }
        // During a rush, rejected connections are closed without a response. Afterwards they get one.
        let rejected = async {
            loop {
                let response = read_all(&mut connect_from(&atrium, 9).await, PATIENCE).await;
                if !response.is_empty() {
                    break response;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let response = tokio::time::timeout(PATIENCE, rejected).await.expect("a refusal with a reason");
        is_problem(&response, "rate_limited", "one connection above the limit");
        assert!(response.contains("retry-after: "), "{response}");
        // The process keeps a thousand connections open and has closed the others.
        let mut closed = 0;
        for stream in &mut connections {
            let mut buffer = [0; 1024];
            let read = tokio::time::timeout(Duration::ZERO, async {
                while let Ok(1..) = stream.read(&mut buffer).await {}
            });
            closed += usize::from(read.await.is_ok());
        }
        assert!(closed >= 9_000, "{closed} of 10,000 were closed");
    })
    .await;
    // After the connections have ended, the address is admitted again.
    let mut admitted = connect_from(&atrium, 9).await;
    let until_admitted = async {
        loop {
            let get = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            let sent = admitted.write_all(get).await;
            if sent.is_ok() && read_all(&mut admitted, PATIENCE).await.starts_with("HTTP/1.1 200") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            admitted = connect_from(&atrium, 9).await;
        }
    };
    tokio::time::timeout(PATIENCE, until_admitted).await.expect("a place is free again");
}

#[tokio::test]
async fn clients_that_send_a_byte_a_second_time_out() {
    let atrium = Atrium::start().await;
    let body = "POST /v1/auth/guest HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{";
    under_attack(&atrium, "400 clients that drip", 24 * MIB, async {
        let heads = join_all((0..200).map(|_| async {
            let mut stream = connect_from(&atrium, 9).await;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").await.unwrap();
            drip(stream, b"x: y\r\n").await
        }));
        let bodies = join_all((0..200).map(|_| async {
            let mut stream = connect_from(&atrium, 10).await;
            stream.write_all(body.as_bytes()).await.unwrap();
            drip(stream, b" ").await
        }));
        let (heads, bodies) = tokio::join!(heads, bodies);
        // An incomplete head gets no response; an incomplete body does.
        assert!(heads.iter().all(String::is_empty), "{heads:?}");
        bodies.iter().for_each(|response| is_problem(response, "malformed_request", "a body that drips"));
    })
    .await;
}

#[tokio::test]
async fn endless_heads_and_bodies_are_cut_off() {
    let atrium = Atrium::start().await;
    let header: Arc<str> = format!("x: {}\r\n", "y".repeat(1000)).into();
    let chunk: Arc<str> = format!("1000\r\n{}\r\n", "x".repeat(0x1000)).into();
    let get = "GET / HTTP/1.1\r\nhost: a\r\n";
    let post = "POST /v1/auth/guest HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    // Upper bound for what the kernel buffers, which counts as sent.
    const MAX_SENT: usize = 32 * MIB;
    for (name, beginning, again) in
        [("200 heads without an end", get, &header), ("200 bodies without an end", post, &chunk)]
    {
        under_attack(&atrium, name, 48 * MIB, async {
            let floods = (0..200).map(|_| async {
                flood(connect_from(&atrium, 9).await, beginning.to_owned(), Arc::clone(again)).await
            });
            let sent = join_all(floods).await;
            assert!(sent.iter().all(|sent| *sent < MAX_SENT), "{sent:?}");
        })
        .await;
    }
    let megabyte = format!("{get}x: {}\r\n\r\n", "y".repeat(MIB));
    under_attack(&atrium, "100 heads of a megabyte", 24 * MIB, async {
        for response in join_all((0..100).map(|_| exchange(&atrium, megabyte.as_bytes()))).await {
            is_problem(&response, "malformed_request", "a megabyte of headers");
        }
    })
    .await;
    let bomb = format!("{post}{}", chunk.repeat(256));
    under_attack(&atrium, "100 bodies of a megabyte", 24 * MIB, async {
        for response in join_all((0..100).map(|_| exchange(&atrium, bomb.as_bytes()))).await {
            is_problem(&response, "body_too_large", "a body bomb");
        }
    })
    .await;
}
