//! Access tokens: JWTs ([RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)) signed with Ed25519, valid for 15 minutes.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    clock,
    ids::{AuthSessionId, UserId},
    timings::TOKEN_LIFETIME,
};

/// How far the clocks of two pods may differ, in seconds. The library's default, 60, would accept an expired token for
/// another minute.
const LEEWAY_SECONDS: u64 = 5;

const AUDIENCE: &str = "atrium";

/// Longer than any token that Atrium issues. Longer texts are not parsed.
const MAX_TOKEN_LENGTH: usize = 2048;

/// The claims of an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer: the API's public URL.
    pub iss: String,
    /// The audience.
    pub aud: String,
    /// The user.
    pub sub: UserId,
    /// The token's own id.
    pub jti: Uuid,
    /// The sign-in session that it belongs to. A revocation revokes all tokens of a session.
    pub sid: AuthSessionId,
    /// When it was issued, in seconds since 1970.
    pub iat: i64,
    /// When it expires, in seconds since 1970.
    pub exp: i64,
    /// The user's public name, guest-NNNN.
    pub name: String,
}

/// Why a token was not issued or not accepted. The text is for the log; a client receives no reason.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Longer than any token that Atrium issues.
    #[error("the token is longer than {MAX_TOKEN_LENGTH} bytes")]
    TooLong,
    /// There is no key with the token's `kid`.
    #[error("the token names no key that we know")]
    UnknownKey,
    /// The header contains a field that is not supported.
    #[error("the token's header carries {0}")]
    Header(&'static str),
    /// The signature, a time or another claim is invalid.
    #[error("{0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
}

impl Claims {
    pub(super) fn new(issuer: &str, user: UserId, user_name: &str, auth_session: AuthSessionId) -> Self {
        let now = clock::now();
        Self {
            iss: issuer.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user,
            jti: Uuid::now_v7(),
            sid: auth_session,
            iat: now.unix_timestamp(),
            exp: (now + TOKEN_LIFETIME).unix_timestamp(),
            name: user_name.to_owned(),
        }
    }

    /// When the token expires.
    #[must_use]
    pub fn expires_at(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.exp).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

pub(super) fn sign(kid: &str, key: &EncodingKey, claims: &Claims) -> Result<String, TokenError> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(kid.to_owned());
    Ok(jsonwebtoken::encode(&header, claims, key)?)
}

pub(super) fn verify<'k>(
    token: &str,
    issuer: &str,
    key: impl FnOnce(&str) -> Option<&'k DecodingKey>,
) -> Result<Claims, TokenError> {
    if token.len() > MAX_TOKEN_LENGTH {
        return Err(TokenError::TooLong);
    }
    let header = jsonwebtoken::decode_header(token)?;
    // Atrium's tokens contain no key and no address of a key. A token with either comes from an attacker.
    if header.jku.is_some() || header.jwk.is_some() || header.x5u.is_some() || header.x5c.is_some() {
        return Err(TokenError::Header("a key or a key's address"));
    }
    // RFC 7515 requires to reject a token with an unknown critical extension. None is supported.
    if header.crit.is_some() {
        return Err(TokenError::Header("a critical extension"));
    }
    let key = header.kid.as_deref().and_then(key).ok_or(TokenError::UnknownKey)?;

    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.leeway = LEEWAY_SECONDS;
    // Atrium's tokens have no `nbf`. A token that has one is not valid before that time, whichever service signed it.
    validation.validate_nbf = true;
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[AUDIENCE]);
    // The library does not check absent claims, so they must be required. `Claims` requires `jti` and `sid`, which the
    // library cannot require.
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
    Ok(jsonwebtoken::decode::<Claims>(token, key, &validation)?.claims)
}
