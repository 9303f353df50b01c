//! Signing in as a guest, staying signed in, signing out, and knowing who asks.

pub mod authenticate;
pub mod cookie;
mod families;
pub mod guest;
pub mod jwks;
pub mod logout;
pub mod me;
pub mod refresh;
mod refresh_token;
mod signed_in;

use atrium_shared::ids::{FamilyId, UserId};
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
    /// The sign-in that the token comes from.
    pub family: FamilyId,
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
