//! Signing in as a guest, staying signed in, signing out, and knowing who asks.

mod api_key;
mod auth_sessions;
pub mod authenticate;
pub mod cookie;
pub mod guest;
pub mod jwks;
pub mod logout;
pub mod me;
pub mod refresh;
mod refresh_token;
mod signed_in;

use atrium_shared::{
    api_key::ApiKeyUse,
    ids::{AuthSessionId, OrgId, UserId},
};
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

/// Who asks, as their access token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The user's public name, guest-NNNN.
    pub name: String,
    /// The sign-in session that the token comes from, with which it is revoked.
    pub auth_session: AuthSessionId,
    /// When the token ends, and with it every stream it opened.
    pub expires_at: OffsetDateTime,
}

/// Whoever asks.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Somebody who is signed in.
    User(Identity),
    /// A service with a key.
    Service(Service),
}

/// A service that asks with a key of an organization, for what the route's scope covers.
#[derive(Clone, Debug)]
pub struct Service {
    /// The organization.
    pub org: OrgId,
    /// The key, and what it is used for.
    pub key: ApiKeyUse,
    /// What the organization calls the key.
    pub name: String,
    /// When the key ends, if it ends by itself.
    pub expires_at: Option<OffsetDateTime>,
}

impl Caller {
    /// Their id: a user's or a key's.
    #[must_use]
    pub fn id(&self) -> Uuid {
        match self {
            Self::User(identity) => identity.user.uuid(),
            Self::Service(service) => service.key.id.uuid(),
        }
    }

    /// What their open streams depend on.
    #[must_use]
    pub fn credential(&self) -> Credential {
        match self {
            Self::User(identity) => identity.into(),
            Self::Service(service) => Credential {
                principal: service.key.id.uuid(),
                // A service signs in to nothing: its streams end with the key, which is the principal.
                auth_session: None,
                expires_at: service.expires_at.unwrap_or_else(|| OffsetDateTime::now_utc() + FOREVER),
            },
        }
    }
}

/// Longer than any connection lives.
const FOREVER: time::Duration = time::Duration::days(10 * 365);

/// What keeps a stream open, and ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Whose stream it is: a user's id, or a key's.
    pub principal: Uuid,
    /// The sign-in session that the token comes from; none for a key.
    pub auth_session: Option<AuthSessionId>,
    /// When it ends by itself.
    pub expires_at: OffsetDateTime,
}

impl From<&Identity> for Credential {
    fn from(identity: &Identity) -> Self {
        Self {
            principal: identity.user.uuid(),
            auth_session: Some(identity.auth_session),
            expires_at: identity.expires_at,
        }
    }
}

/// A person, as others see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Their public name.
    pub name: String,
}

impl From<&Identity> for User {
    fn from(identity: &Identity) -> Self {
        Self { id: identity.user, name: identity.name.clone() }
    }
}
