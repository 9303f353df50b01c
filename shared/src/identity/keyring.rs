//! The signing keys of this process: read at start, and again every few seconds while it runs.
//!
//! The algorithm belongs to the key and is never read from a token, which rules out attacks through a token's own
//! `alg`. A token's `kid` is only compared with the names of loaded keys and never used as a path. If a `kid` is
//! unknown, the folder is read again before the token is rejected, because another process may have read a new key
//! earlier.

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
const READ_INTERVAL: Duration = Duration::from_secs(2);
/// The least time between two reads. Limits the reads that unknown names cause, because any client can invent names.
const MIN_READ_INTERVAL: Duration = Duration::from_millis(500);

/// Keys that sign and verify access tokens. Cheap to clone.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    issuer: String,
    folder: PathBuf,
    ring: ArcSwap<Ring>,
    last_read: Mutex<LastRead>,
}

/// The last read of the folder.
struct LastRead {
    started_at: Instant,
    /// The errors of the read, kept so that each is logged once and not at every read.
    errors: Vec<String>,
}

impl Keyring {
    /// Loads every key of `folder`.
    ///
    /// # Errors
    /// When there is no usable key, or a file is not a valid key.
    pub fn load(folder: PathBuf, issuer: &str) -> Result<Self, KeyringError> {
        let started_at = Instant::now();
        let (ring, mut unusable) = Ring::read(&folder, None)?;
        if let Some(error) = unusable.pop() {
            return Err(error);
        }
        gauge!(SIGNING_KEYS).set(ring.kids().count() as f64);
        Ok(Self(Arc::new(Inner {
            issuer: issuer.to_owned(),
            folder,
            ring: ArcSwap::from_pointee(ring),
            last_read: Mutex::new(LastRead { started_at, errors: Vec::new() }),
        })))
    }

    /// Signs a new access token of a sign-in session. Returns the token and its claims.
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

    /// Returns the claims of a valid token. Does not check revocations.
    ///
    /// # Errors
    /// When the token is malformed or expired, is signed with another key or algorithm, or lacks a claim.
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

    /// The public keys, in the form that `/.well-known/jwks.json` serves
    /// ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)).
    #[must_use]
    pub fn jwks(&self) -> JwkSet {
        self.0.ring.load().public()
    }

    /// Reads the folder periodically until the process stops.
    ///
    /// # Errors
    /// Never; the signature is that of a critical task.
    pub async fn follow(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(READ_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.read(&mut *self.0.last_read.lock().await).await;
        }
        Ok(())
    }

    /// Ensures that the folder was read after `moment`. Concurrent callers share one read.
    async fn read_since(&self, moment: Instant) {
        let mut last_read = self.0.last_read.lock().await;
        if last_read.started_at < moment {
            tokio::time::sleep_until(last_read.started_at + MIN_READ_INTERVAL).await;
            self.read(&mut last_read).await;
        }
    }

    /// Reads the folder again. A key whose file cannot be read stays as it was.
    async fn read(&self, last_read: &mut LastRead) {
        let started_at = Instant::now();
        let last = self.0.ring.load_full();
        let folder = self.0.folder.clone();
        let previous = Arc::clone(&last);
        // Blocking, because the folder may be on a network file system.
        let read = tokio::task::spawn_blocking(move || Ring::read(&folder, Some(&previous))).await;
        let errors: Vec<String> = match read {
            Ok(Ok((ring, unusable))) => {
                self.swap(&last, ring);
                unusable.iter().map(ToString::to_string).collect()
            }
            Ok(Err(error)) => vec![error.to_string()],
            Err(error) => vec![error.to_string()],
        };
        counter!(SIGNING_KEY_FAILURES).increment(errors.len() as u64);
        for error in errors.iter().filter(|error| !last_read.errors.contains(error)) {
            tracing::error!(%error, "a signing key cannot be read; what was read before stays");
        }
        *last_read = LastRead { started_at, errors };
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
