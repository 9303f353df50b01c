//! The signing keys of this process: read at start, and again every few seconds while it runs.
//!
//! The algorithm belongs to the key and is never read from a token, which rules out all attacks through a token's own
//! `alg`. A token's `kid` is only compared with the names of loaded keys; it never becomes a path. An unknown `kid`
//! triggers a read of the folder before the token is rejected: another process may have read the key sooner.

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::JwkSet;
use metrics::{counter, gauge};
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Claims, TokenError,
    ring::{KeyringError, Ring},
    token,
};
use crate::{
    clock,
    ids::{AuthSessionId, UserId},
    telemetry::metrics::{SIGNING_KEY_FAILURES, SIGNING_KEYS},
};

/// How often the folder is read.
const POLL: Duration = Duration::from_secs(2);
/// How long after a reading an unknown name may lead to the next: anybody can invent names.
const PAUSE: Duration = Duration::from_millis(500);

/// Keys that sign and verify access tokens. Cheap to clone.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    issuer: String,
    folder: PathBuf,
    ring: ArcSwap<Ring>,
    reading: Mutex<Reading>,
}

/// The last reading of the folder.
struct Reading {
    began_at: Instant,
    /// The last error, so that it is logged once and not at every read.
    wrong: Vec<String>,
}

impl Keyring {
    /// Loads every key of `folder`.
    ///
    /// # Errors
    /// When there is no usable key, or one of the files is not a key.
    pub fn load(folder: PathBuf, issuer: &str) -> Result<Self, KeyringError> {
        let began_at = Instant::now();
        let (ring, mut unusable) = Ring::read(&folder, None)?;
        if let Some(error) = unusable.pop() {
            return Err(error);
        }
        gauge!(SIGNING_KEYS).set(ring.kids().count() as f64);
        Ok(Self(Arc::new(Inner {
            issuer: issuer.to_owned(),
            folder,
            ring: ArcSwap::from_pointee(ring),
            reading: Mutex::new(Reading { began_at, wrong: Vec::new() }),
        })))
    }

    /// Signs a new access token for a user's sign-in session; returns it with its claims.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn issue(
        &self,
        user: UserId,
        user_name: &str,
        auth_session: AuthSessionId,
    ) -> Result<(String, Claims), TokenError> {
        let ring = self.0.ring.load();
        let (kid, key) = ring.signing(clock::now()).ok_or(TokenError::UnknownKey)?;
        let claims = Claims::new(&self.0.issuer, user, user_name, auth_session);
        let token = token::sign(kid, key, &claims)?;
        Ok((token, claims))
    }

    /// The claims of a token, if it is ours and valid. Does not check revocations.
    ///
    /// # Errors
    /// When the token is malformed, of another key or algorithm, expired, or lacks a claim.
    pub async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        match self.verify_now(token) {
            Err(TokenError::UnknownKey) => {
                self.read_since(Instant::now()).await;
                self.verify_now(token)
            }
            result => result,
        }
    }

    fn verify_now(&self, token: &str) -> Result<Claims, TokenError> {
        let ring = self.0.ring.load();
        token::verify(token, &self.0.issuer, |kid| ring.verifying(kid))
    }

    /// The public halves, as `/.well-known/jwks.json` serves them ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)).
    #[must_use]
    pub fn jwks(&self) -> JwkSet {
        self.0.ring.load().public()
    }

    /// Follows the folder until the process stops.
    ///
    /// # Errors
    /// Never; the signature is that of a critical task.
    pub async fn follow(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(POLL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.read(&mut *self.0.reading.lock().await).await;
        }
        Ok(())
    }

    /// Makes sure that the folder was read after that time. Concurrent callers share one read.
    async fn read_since(&self, moment: Instant) {
        let mut reading = self.0.reading.lock().await;
        if reading.began_at < moment {
            tokio::time::sleep_until(reading.began_at + PAUSE).await;
            self.read(&mut reading).await;
        }
    }

    /// Reads the folder again. What cannot be read stays as it was.
    async fn read(&self, reading: &mut Reading) {
        let began_at = Instant::now();
        let last = self.0.ring.load_full();
        let folder = self.0.folder.clone();
        let previous = Arc::clone(&last);
        // A folder may lie on a network.
        let read = tokio::task::spawn_blocking(move || Ring::read(&folder, Some(&previous))).await;
        let wrong: Vec<String> = match read {
            Ok(Ok((ring, unusable))) => {
                self.swap(&last, ring);
                unusable.iter().map(ToString::to_string).collect()
            }
            Ok(Err(error)) => vec![error.to_string()],
            Err(error) => vec![error.to_string()],
        };
        counter!(SIGNING_KEY_FAILURES).increment(wrong.len() as u64);
        for error in wrong.iter().filter(|error| !reading.wrong.contains(error)) {
            tracing::error!(%error, "a signing key cannot be read; what was read before stays");
        }
        *reading = Reading { began_at, wrong };
    }

    fn swap(&self, last: &Ring, ring: Ring) {
        let (before, after): (Vec<_>, Vec<_>) = (last.kids().collect(), ring.kids().collect());
        if before != after {
            tracing::info!(?before, ?after, "the signing keys have changed");
            gauge!(SIGNING_KEYS).set(after.len() as f64);
        }
        self.0.ring.store(Arc::new(ring));
    }
}
