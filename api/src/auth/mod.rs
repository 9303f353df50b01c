//! Signing in as a guest, signing out, and knowing who asks.

pub mod authenticate;
pub mod cookie;
pub mod guest;
pub mod jwks;
pub mod logout;
pub mod me;

use atrium_shared::ids::UserId;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

/// Who asks, as their access token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The user's public name, guest-NNNN.
    pub key: String,
    /// The token's id, by which it is revoked.
    pub token: Uuid,
    /// When the token ends, and with it every stream it opened.
    pub expires_at: OffsetDateTime,
}

/// A person, as others see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Their public name.
    pub key: String,
}

impl From<&Identity> for User {
    fn from(identity: &Identity) -> Self {
        Self { id: identity.user, key: identity.key.clone() }
    }
}
