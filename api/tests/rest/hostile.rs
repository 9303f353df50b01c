//! Mass attacks: the process's memory stays bounded, it rejects requests, and serves other clients meanwhile.

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
    Ask as _, PATIENCE,
    wire::{connect_from, exchange, is_problem, read_all},
};

const MIB: usize = 1 << 20;

/// Runs an attack while another client, from another address, keeps sending requests that must succeed. Returns the
/// maximum growth of the process's memory.
async fn bearable<T>(atrium: &Atrium, name: &str, bound: usize, harm: impl Future<Output = T>) -> T {
    let (api, client) = (atrium.api(0), atrium.client());
    let (before, peak) = (api.resident(), AtomicUsize::new(0));
    let (over, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let others = async {
        // One more request is sent after the attack, however short it was.
        let mut last = false;
        while !last {
            last = over.load(Ordering::Relaxed);
            client.get("/v1/auth/me").refused(401, "unauthenticated").await;
            answers.fetch_add(1, Ordering::Relaxed);
            peak.fetch_max(api.resident(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let harm = async {
        let done = harm.await;
        over.store(true, Ordering::Relaxed);
        done
    };
    let (done, ()) = tokio::join!(harm, others);
    let (peak, answers) = (peak.into_inner(), answers.into_inner());
    let grown = peak.saturating_sub(before);
    println!(
        "{name}: {} MiB before, at most {} KiB more; {answers} answers meanwhile",
        before / MIB,
        grown / 1024
    );
    assert!(grown < bound, "{name}: {grown} bytes more");
    assert!(answers > 1, "{name}: the others were not served");
    done
}

/// Sends a byte now and then until the server closes the connection. Returns the response.
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

/// Sends a beginning, then the same part again and again until the server accepts nothing further. Returns the number
/// of accepted bytes.
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
    assert!(ended.is_ok(), "the server takes it all: {sent} bytes");
    sent
}

#[tokio::test]
async fn ten_thousand_idle_connections_from_one_address_are_mostly_rejected() {
    let atrium = Atrium::start().await;
    bearable(&atrium, "10,000 idle connections", 48 * MIB, async {
        let mut crowd = Vec::new();
        while crowd.len() < 10_000 {
            crowd.extend(join_all((0..100).map(|_| connect_from(&atrium, 9))).await);
        }
        // During a mass attack, connections are closed without a response; in calmer times, they get one.
        let told = async {
            loop {
                let answer = read_all(&mut connect_from(&atrium, 9).await, PATIENCE).await;
                if !answer.is_empty() {
                    break answer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let answer = tokio::time::timeout(PATIENCE, told).await.expect("a refusal with a reason");
        is_problem(&answer, "rate_limited", "one connection too many");
        assert!(answer.contains("retry-after: "), "{answer}");
        // The process has a thousand open connections, and has closed the others.
        let mut closed = 0;
        for stream in &mut crowd {
            let mut piece = [0; 1024];
            let read = tokio::time::timeout(Duration::ZERO, async {
                while let Ok(1..) = stream.read(&mut piece).await {}
            });
            closed += usize::from(read.await.is_ok());
        }
        assert!(closed >= 9_000, "{closed} of 10,000 were closed");
    })
    .await;
    // They have left, and are welcome again.
    let mut welcome = connect_from(&atrium, 9).await;
    let patience = async {
        loop {
            let ask = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            let sent = welcome.write_all(ask).await;
            if sent.is_ok() && read_all(&mut welcome, PATIENCE).await.starts_with("HTTP/1.1 200") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            welcome = connect_from(&atrium, 9).await;
        }
    };
    tokio::time::timeout(PATIENCE, patience).await.expect("a place is free again");
}

#[tokio::test]
async fn a_client_that_sends_one_byte_per_second_is_disconnected() {
    let atrium = Atrium::start().await;
    let body = "POST /v1/auth/guest HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{";
    bearable(&atrium, "400 clients that drip", 24 * MIB, async {
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
        // An incomplete head gets no response; an incomplete body gets one.
        assert!(heads.iter().all(String::is_empty), "{heads:?}");
        bodies.iter().for_each(|answer| is_problem(answer, "malformed_request", "a body that drips"));
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
    // Bytes in kernel buffers count as accepted; the process does not keep what it reads.
    const ON_THE_WAY: usize = 32 * MIB;
    for (name, beginning, again) in
        [("200 heads without an end", get, &header), ("200 bodies without an end", post, &chunk)]
    {
        bearable(&atrium, name, 48 * MIB, async {
            let floods = (0..200).map(|_| async {
                flood(connect_from(&atrium, 9).await, beginning.to_owned(), Arc::clone(again)).await
            });
            let taken = join_all(floods).await;
            assert!(taken.iter().all(|taken| *taken < ON_THE_WAY), "{taken:?}");
        })
        .await;
    }
    let megabyte = format!("{get}x: {}\r\n\r\n", "y".repeat(MIB));
    bearable(&atrium, "100 heads of a megabyte", 24 * MIB, async {
        for answer in join_all((0..100).map(|_| exchange(&atrium, megabyte.as_bytes()))).await {
            is_problem(&answer, "malformed_request", "a megabyte of headers");
        }
    })
    .await;
    let bomb = format!("{post}{}", chunk.repeat(256));
    bearable(&atrium, "100 bodies of a megabyte", 24 * MIB, async {
        for answer in join_all((0..100).map(|_| exchange(&atrium, bomb.as_bytes()))).await {
            is_problem(&answer, "body_too_large", "a body bomb");
        }
    })
    .await;
}
