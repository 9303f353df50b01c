//! Refresh tokens: the ids of the user and of the sign-in session, and a secret of 256 random bits.
//!
//! The ids only say where to look the token up; the secret authenticates. The database stores a hash of the whole
//! token. A successor's secret is derived from its predecessor's secret and a random salt, which the database keeps for
//! the grace period. From both, the successor is computed again for a client that lost the response. A predecessor
//! alone, from an old log or a stolen backup of a browser, is not enough, and neither is a copy of the database.

use atrium_shared::ids::{AuthSessionId, UserId};
use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A hash, or a salt.
pub(super) type Bytes32 = [u8; 32];

/// Domain separation: nothing else derived from a secret can equal a successor.
const SUCCESSOR: &[u8] = b"atrium refresh token successor";

/// A refresh token. It has no `Debug`, so that it cannot be logged.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct RefreshToken {
    pub(super) user: UserId,
    pub(super) auth_session: AuthSessionId,
    secret: Bytes32,
}

impl RefreshToken {
    /// The first token of a sign-in session.
    pub(super) fn first(user: UserId, auth_session: AuthSessionId) -> Self {
        Self { user, auth_session, secret: rand::random() }
    }

    /// The token's successor. The same salt yields the same successor.
    pub(super) fn successor(&self, salt: &Bytes32) -> Self {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.secret));
        context.update(SUCCESSOR);
        context.update(salt);
        let mut secret = Bytes32::default();
        secret.copy_from_slice(context.sign().as_ref());
        Self { user: self.user, auth_session: self.auth_session, secret }
    }

    /// The hash that the database stores. A lookup by hash compares no secret, so its timing reveals nothing.
    pub(super) fn hash(&self) -> Bytes32 {
        Sha256::digest(self.bytes()).into()
    }

    pub(super) fn to_text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.bytes())
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (user, rest) = bytes.split_at_checked(16)?;
        let (auth_session, secret) = rest.split_at_checked(16)?;
        Some(Self {
            user: Uuid::from_slice(user).ok()?.into(),
            auth_session: Uuid::from_slice(auth_session).ok()?.into(),
            secret: secret.try_into().ok()?,
        })
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.user.uuid().as_bytes()[..], &self.auth_session.uuid().as_bytes()[..], &self.secret].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_text_round_trips_and_invalid_texts_are_rejected() {
        let token = RefreshToken::first(UserId::new(), AuthSessionId::new());
        let text = token.to_text();
        assert!(RefreshToken::parse(&text) == Some(token));
        for invalid in
            ["", "x", &text[1..], &format!("{text}A"), &format!("{text}="), &format!("{text}\0"), "🙂"]
        {
            assert!(RefreshToken::parse(invalid).is_none(), "{invalid:?}");
        }
    }

    #[test]
    fn successor_depends_on_the_token_and_the_salt() {
        let token = RefreshToken::first(UserId::new(), AuthSessionId::new());
        let (salt, other_salt): (Bytes32, Bytes32) = (rand::random(), rand::random());
        let successor = token.successor(&salt);
        assert!(successor == token.successor(&salt), "the same token and salt yield the same successor");
        let other = RefreshToken { secret: rand::random(), ..token.clone() };
        let hashes = [
            token.hash(),
            successor.hash(),
            token.successor(&other_salt).hash(),
            other.successor(&salt).hash(),
            successor.successor(&salt).hash(),
        ];
        assert_eq!(std::collections::HashSet::from(hashes).len(), hashes.len());
    }

    #[test]
    fn hash_covers_the_ids() {
        let token = RefreshToken::first(UserId::new(), AuthSessionId::new());
        let other = RefreshToken { auth_session: AuthSessionId::new(), ..token.clone() };
        assert_ne!(token.hash(), other.hash());
    }
}
