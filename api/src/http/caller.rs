//! The caller of a request: a signed-in user, or a service with an API key.
//!
//! `auth` authenticates the access token or the API key once for each request; handlers read the caller from the
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

/// A signed-in user, with the claims of their access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedInUser {
    /// The user's id.
    pub id: UserId,
    /// The user's public name, guest-NNNN.
    pub name: String,
    /// The token's sign-in session. Revoking the session revokes the token.
    pub auth_session: AuthSessionId,
    /// When the token expires, which also ends every stream opened with it.
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

/// A service that uses an organization's API key, which has the scope of the route.
#[derive(Clone, Debug)]
pub struct ApiKeyCaller {
    /// The key, and the scope that it is used for.
    pub key: ApiKeyUse,
    /// The key's name in the organization.
    pub name: String,
    /// When the key expires, if it does.
    pub expires_at: Option<OffsetDateTime>,
}

impl Caller {
    /// The id of the user or of the key.
    #[must_use]
    pub fn id(&self) -> Uuid {
        match self {
            Self::User(user) => user.id.uuid(),
            Self::ApiKey(caller) => caller.key.id.uuid(),
        }
    }

    /// The credential that the caller's open streams depend on.
    #[must_use]
    pub fn credential(&self) -> Credential {
        match self {
            Self::User(user) => user.into(),
            Self::ApiKey(caller) => Credential {
                principal: caller.key.id.uuid(),
                // A service has no sign-in session: its streams end when the key, the principal, is revoked.
                auth_session: None,
                expires_at: caller.expires_at.unwrap_or_else(|| clock::now() + NO_EXPIRY),
            },
        }
    }
}

/// Stands for "never expires": longer than any connection stays open.
const NO_EXPIRY: time::Duration = time::Duration::days(10 * 365);

/// The credential that a stream was opened with. The stream ends when the credential expires or is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The id of the user or of the key.
    pub principal: Uuid,
    /// The token's sign-in session; `None` for a key.
    pub auth_session: Option<AuthSessionId>,
    /// When the credential expires.
    pub expires_at: OffsetDateTime,
}

impl From<&SignedInUser> for Credential {
    fn from(user: &SignedInUser) -> Self {
        Self { principal: user.id.uuid(), auth_session: Some(user.auth_session), expires_at: user.expires_at }
    }
}

/// The public data of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct User {
    /// The user's id.
    pub id: UserId,
    /// The user's public name.
    pub name: String,
}

impl From<&SignedInUser> for User {
    fn from(user: &SignedInUser) -> Self {
        Self { id: user.id, name: user.name.clone() }
    }
}
