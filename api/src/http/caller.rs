//! The caller: a signed-in user, or a service with an API key.
//!
//! `auth` determines the caller once for each request, from the access token or the API key; handlers read it from the
//! request.

use atrium_shared::{
    api_key::ApiKeyUse,
    clock,
    ids::{AuthSessionId, UserId},
};
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

/// A signed-in user, from the claims of the access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedInUser {
    /// The user's id.
    pub id: UserId,
    /// The user's public name, guest-NNNN.
    pub name: String,
    /// The sign-in session that the token comes from, with which it is revoked.
    pub auth_session: AuthSessionId,
    /// When the token ends, and with it every stream it opened.
    pub expires_at: OffsetDateTime,
}

/// The caller of a request.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A signed-in user.
    User(SignedInUser),
    /// A service with an API key.
    ApiKey(ApiKeyCaller),
}

/// A service with an API key of an organization, for the operations within the route's scope.
#[derive(Clone, Debug)]
pub struct ApiKeyCaller {
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
            Self::User(user) => user.id.uuid(),
            Self::ApiKey(caller) => caller.key.id.uuid(),
        }
    }

    /// What their open streams depend on.
    #[must_use]
    pub fn credential(&self) -> Credential {
        match self {
            Self::User(user) => user.into(),
            Self::ApiKey(caller) => Credential {
                principal: caller.key.id.uuid(),
                // A service does not sign in: its streams end with the key, which is the principal.
                auth_session: None,
                expires_at: caller.expires_at.unwrap_or_else(|| clock::now() + FOREVER),
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

impl From<&SignedInUser> for Credential {
    fn from(user: &SignedInUser) -> Self {
        Self { principal: user.id.uuid(), auth_session: Some(user.auth_session), expires_at: user.expires_at }
    }
}

/// A person, as others see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Their public name.
    pub name: String,
}

impl From<&SignedInUser> for User {
    fn from(user: &SignedInUser) -> Self {
        Self { id: user.id, name: user.name.clone() }
    }
}
