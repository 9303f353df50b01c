//! Rotation of signing keys while the processes run, without failed requests.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use atrium_harness::{Atrium, client::Client};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use tokio::{sync::RwLock, task::JoinSet};

use crate::{CheckedSend as _, metric, until, until_token_rejected};

/// The age of a key's file at which the key begins to sign.
const ACTIVATION: Duration = Duration::from_secs(5 * 60);
/// The delay until the keys of these tests begin to sign. Every process has read them by then.
const ACTIVATION_DELAY: Duration = Duration::from_secs(4);

/// Adds a complete new key to the folder, which will sign after [`ACTIVATION_DELAY`].
fn add_key(atrium: &Atrium, kid: &str) {
    write_key(atrium, kid);
    install_key(atrium, kid);
}

/// Generates a key outside of the folder.
fn write_key(atrium: &Atrium, kid: &str) -> PathBuf {
    let folder = atrium.wiring().logs.join("new-keys");
    std::fs::create_dir_all(&folder).unwrap();
    let written = atrium_harness::keys::generate(&folder, kid).unwrap();
    let file = std::fs::File::options().append(true).open(&written).unwrap();
    file.set_modified(SystemTime::from(atrium_shared::clock::now()) - ACTIVATION + ACTIVATION_DELAY).unwrap();
    written
}

/// Moves a generated key into the folder.
fn install_key(atrium: &Atrium, kid: &str) {
    let written = atrium.wiring().logs.join("new-keys").join(format!("{kid}.pem"));
    std::fs::rename(written, file_of(atrium, kid)).unwrap();
}

fn file_of(atrium: &Atrium, kid: &str) -> PathBuf {
    atrium.wiring().keys.join(format!("{kid}.pem"))
}

fn kid_of(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

async fn sign_in(client: &Client) -> String {
    client.post("/v1/auth/guest").answers(201).await.at("/access_token")
}

/// Clients that sign in through every process and read through every process with tokens of any process.
struct Traffic {
    /// Tokens in use, newest last.
    tokens: RwLock<Vec<String>>,
    /// The id of the key that is being removed. Its tokens are no longer used.
    retired: RwLock<Option<String>>,
    failures: RwLock<Vec<String>>,
    requests: AtomicU32,
    stopped: AtomicBool,
}

impl Traffic {
    async fn sign_in(self: Arc<Self>, client: Client) {
        while !self.stopped.load(Ordering::Relaxed) {
            let reply = client.post("/v1/auth/guest").send().await;
            match reply {
                Ok(reply) if reply.code() == 201 => {
                    let mut tokens = self.tokens.write().await;
                    tokens.push(reply.at("/access_token"));
                    let excess = tokens.len().saturating_sub(12);
                    tokens.drain(..excess);
                }
                Ok(reply) => self.failures.write().await.push(reply.describe()),
                Err(error) => self.failures.write().await.push(error.to_string()),
            }
            self.requests.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn read(self: Arc<Self>, client: Client) {
        let mut turn = 0_usize;
        while !self.stopped.load(Ordering::Relaxed) {
            // Locked until the response arrives, so that a key is removed only when no request uses a token of it.
            let retired = self.retired.read().await;
            let tokens = self.tokens.read().await.clone();
            let usable: Vec<_> = tokens.iter().filter(|token| Some(kid_of(token)) != *retired).collect();
            turn += 1;
            if let Some(token) = usable.get(turn % usable.len().max(1)) {
                match client.bearer(token.as_str()).get("/v1/auth/me").send().await {
                    Ok(reply) if reply.code() == 200 => {}
                    Ok(reply) => {
                        self.failures.write().await.push(format!("{}: {}", kid_of(token), reply.describe()));
                    }
                    Err(error) => self.failures.write().await.push(error.to_string()),
                }
                self.requests.fetch_add(1, Ordering::Relaxed);
            }
            drop(retired);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn signing_keys_are_rotated_under_traffic_without_failed_requests() {
    let atrium =
        Atrium::builder().apis(3).default_value("limits.sign_ins_per_minute", json!(1_000_000)).start().await;
    let traffic = Arc::new(Traffic {
        tokens: RwLock::default(),
        retired: RwLock::default(),
        failures: RwLock::default(),
        requests: AtomicU32::new(0),
        stopped: AtomicBool::new(false),
    });
    let mut clients = JoinSet::new();
    for api in 0..3 {
        clients.spawn(Arc::clone(&traffic).sign_in(atrium.client_of(api)));
        clients.spawn(Arc::clone(&traffic).read(atrium.client_of(api)));
    }

    for (old, new) in [("test-1", "test-2"), ("test-2", "test-3"), ("test-3", "test-4")] {
        let old_token = sign_in(&atrium.client()).await;
        assert_eq!(kid_of(&old_token), old);
        // First a half-written file, as during a slow copy.
        let key_bytes = std::fs::read(write_key(&atrium, new)).unwrap();
        let failures_before = metric(&atrium, 0, "atrium_signing_key_failures_total").await;
        std::fs::write(file_of(&atrium, new), &key_bytes[..key_bytes.len() / 2]).unwrap();
        until("the incomplete key is reported", async || {
            metric(&atrium, 0, "atrium_signing_key_failures_total").await > failures_before
        })
        .await;
        add_key(&atrium, new);
        for api in 0..3 {
            until("the new key signs", async || kid_of(&sign_in(&atrium.client_of(api)).await) == new).await;
        }

        // The old key no longer signs, and its tokens are no longer used.
        *traffic.retired.write().await = Some(old.to_owned());
        std::fs::remove_file(file_of(&atrium, old)).unwrap();
        for api in 0..3 {
            until_token_rejected(&atrium.client_of(api).bearer(&old_token)).await;
            assert_eq!(metric(&atrium, api, "atrium_signing_keys").await, 1.0);
        }
    }
    traffic.stopped.store(true, Ordering::Relaxed);
    clients.join_all().await;
    let failures = traffic.failures.read().await;
    assert!(failures.is_empty(), "{} failed, first: {}", failures.len(), failures[0]);
    assert!(traffic.requests.load(Ordering::Relaxed) > 100, "the traffic was too low");
}

#[tokio::test]
async fn a_token_of_a_new_key_is_accepted_immediately() {
    let atrium = Atrium::start().await;
    let guest = atrium.guest().await;
    let claims = {
        use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
        let payload = guest.client.token().unwrap().split('.').nth(1).unwrap().to_owned();
        serde_json::from_slice::<serde_json::Value>(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    };
    for kid in ["test-2", "test-3", "test-4"] {
        let key = EncodingKey::from_ed_pem(&std::fs::read(write_key(&atrium, kid)).unwrap()).unwrap();
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
        let client = atrium.client().bearer(jsonwebtoken::encode(&header, &claims, &key).unwrap());
        client.get("/v1/auth/me").refused(401, "unauthenticated").await;
        install_key(&atrium, kid);
        // It is accepted immediately, without waiting for the next scan of the folder.
        client.get("/v1/auth/me").answers(200).await;
    }
}

#[tokio::test]
async fn published_keys_are_cached_for_a_minute_and_revalidated() {
    let atrium = Atrium::start().await;
    let get_keys = || atrium.client().get("/.well-known/jwks.json");
    let first = get_keys().answers(200).await;
    let tag = first.etag().unwrap().to_owned();
    assert_eq!(first.header("cache-control"), Some("public, max-age=60"));
    let not_modified = get_keys().header("if-none-match", &tag).answers(304).await;
    assert!(not_modified.body.is_empty() && not_modified.etag() == Some(tag.as_str()));
    add_key(&atrium, "test-2");
    until("the new key is published", async || {
        get_keys().header("if-none-match", &tag).send().await.unwrap().code() == 200
    })
    .await;
    let keys = get_keys().answers(200).await.json();
    let kids: Vec<_> = keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect();
    assert_eq!(kids, ["test-1", "test-2"]);
    assert!(!keys.to_string().contains("\"d\""), "a private key is published");
}
