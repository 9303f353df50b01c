//! Signing keys: exchanged while the processes run, without a request that fails.

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

use crate::{Ask as _, metric, until, until_refused};

/// How old a key's file is when it begins to sign.
const ACTIVATION: Duration = Duration::from_secs(5 * 60);
/// How soon the keys of these tests sign: later than every process has read them.
const SOON: Duration = Duration::from_secs(4);

/// Puts a new key into the folder, whole, that will sign soon.
fn add_key(atrium: &Atrium, kid: &str) {
    write_key(atrium, kid);
    put_in_place(atrium, kid);
}

/// Creates a key next to the folder.
fn write_key(atrium: &Atrium, kid: &str) -> PathBuf {
    let folder = atrium.wiring().logs.join("new-keys");
    std::fs::create_dir_all(&folder).unwrap();
    let written = atrium_harness::keys::generate(&folder, kid).unwrap();
    let file = std::fs::File::options().append(true).open(&written).unwrap();
    file.set_modified(SystemTime::from(atrium_shared::clock::now()) - ACTIVATION + SOON).unwrap();
    written
}

/// Moves it into the folder.
fn put_in_place(atrium: &Atrium, kid: &str) {
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

/// Users who sign in at every process and use their tokens at every process.
struct Traffic {
    /// Tokens in use, newest last.
    tokens: RwLock<Vec<String>>,
    /// For the key that is being removed: no user has a valid token of it.
    retired: RwLock<Option<String>>,
    failures: RwLock<Vec<String>>,
    requests: AtomicU32,
    over: AtomicBool,
}

impl Traffic {
    async fn sign_in(self: Arc<Self>, client: Client) {
        while !self.over.load(Ordering::Relaxed) {
            let reply = client.post("/v1/auth/guest").send().await;
            match reply {
                Ok(reply) if reply.code() == 201 => {
                    let mut tokens = self.tokens.write().await;
                    tokens.push(reply.at("/access_token"));
                    let more = tokens.len().saturating_sub(12);
                    tokens.drain(..more);
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
        while !self.over.load(Ordering::Relaxed) {
            // Held until the answer is there: a key is removed when no token of it is on its way.
            let retired = self.retired.read().await;
            let tokens = self.tokens.read().await.clone();
            let good: Vec<_> = tokens.iter().filter(|token| Some(kid_of(token)) != *retired).collect();
            turn += 1;
            if let Some(token) = good.get(turn % good.len().max(1)) {
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
async fn signing_keys_rotate_under_traffic_without_a_failed_request() {
    let atrium =
        Atrium::builder().apis(3).default_value("limits.sign_ins_per_minute", json!(1_000_000)).start().await;
    let traffic = Arc::new(Traffic {
        tokens: RwLock::default(),
        retired: RwLock::default(),
        failures: RwLock::default(),
        requests: AtomicU32::new(0),
        over: AtomicBool::new(false),
    });
    let mut people = JoinSet::new();
    for api in 0..3 {
        people.spawn(Arc::clone(&traffic).sign_in(atrium.client_of(api)));
        people.spawn(Arc::clone(&traffic).read(atrium.client_of(api)));
    }

    for (old, new) in [("test-1", "test-2"), ("test-2", "test-3"), ("test-3", "test-4")] {
        let of_the_old = sign_in(&atrium.client()).await;
        assert_eq!(kid_of(&of_the_old), old);
        // First half of it, as a copy over a slow line begins.
        let whole = std::fs::read(write_key(&atrium, new)).unwrap();
        let failures_before = metric(&atrium, 0, "atrium_signing_key_failures_total").await;
        std::fs::write(file_of(&atrium, new), &whole[..whole.len() / 2]).unwrap();
        until("the half key is noticed", async || {
            metric(&atrium, 0, "atrium_signing_key_failures_total").await > failures_before
        })
        .await;
        add_key(&atrium, new);
        for api in 0..3 {
            until("the new key signs", async || kid_of(&sign_in(&atrium.client_of(api)).await) == new).await;
        }

        // The old key signs no more, and no token of it is valid any longer.
        *traffic.retired.write().await = Some(old.to_owned());
        std::fs::remove_file(file_of(&atrium, old)).unwrap();
        for api in 0..3 {
            until_refused(&atrium.client_of(api).bearer(&of_the_old)).await;
            assert_eq!(metric(&atrium, api, "atrium_signing_keys").await, 1.0);
        }
    }
    traffic.over.store(true, Ordering::Relaxed);
    people.join_all().await;
    let failures = traffic.failures.read().await;
    assert!(failures.is_empty(), "{} failed, first: {}", failures.len(), failures[0]);
    assert!(traffic.requests.load(Ordering::Relaxed) > 100, "there was traffic");
}

#[tokio::test]
async fn a_token_of_a_new_signing_key_is_accepted_immediately() {
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
        put_in_place(&atrium, kid);
        // Not at the next read of the folder but immediately, even right after the last read.
        client.get("/v1/auth/me").answers(200).await;
    }
}

#[tokio::test]
async fn published_keys_are_cached_for_a_minute_and_revalidated_by_etag() {
    let atrium = Atrium::start().await;
    let ask = || atrium.client().get("/.well-known/jwks.json");
    let first = ask().answers(200).await;
    let tag = first.etag().unwrap().to_owned();
    assert_eq!(first.header("cache-control"), Some("public, max-age=60"));
    let held = ask().header("if-none-match", &tag).answers(304).await;
    assert!(held.body.is_empty() && held.etag() == Some(tag.as_str()));
    add_key(&atrium, "test-2");
    until("the new key is published", async || {
        ask().header("if-none-match", &tag).send().await.unwrap().code() == 200
    })
    .await;
    let keys = ask().answers(200).await.json();
    let kids: Vec<_> = keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect();
    assert_eq!(kids, ["test-1", "test-2"]);
    assert!(!keys.to_string().contains("\"d\""), "public halves only");
}
