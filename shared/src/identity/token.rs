//! Access tokens: JWTs ([RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)) signed with Ed25519, good for 15 minutes.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    clock,
    ids::{AuthSessionId, UserId},
    timings::TOKEN_LIFETIME,
};

/// How far the clocks of two pods may differ, seconds. The library's default, 60, is a minute in which an expired
/// token still opens doors.
const LEEWAY_SECONDS: u64 = 5;

const AUDIENCE: &str = "atrium";

/// Longer than any token of ours; what is longer is not looked at.
const MAX_TOKEN_LENGTH: usize = 2048;

/// The claims of an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer: the public address.
    pub iss: String,
    /// Whom it is for.
    pub aud: String,
    /// The user.
    pub sub: UserId,
    /// The token's own id.
    pub jti: Uuid,
    /// The sign-in session it comes from, by which all its tokens are revoked.
    pub sid: AuthSessionId,
    /// When it was issued, seconds since 1970.
    pub iat: i64,
    /// When it ends, seconds since 1970.
    pub exp: i64,
    /// The user's public name, guest-NNNN.
    pub name: String,
}

/// Why a token was not issued, or not accepted. The text is for the log; a client only learns that it failed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Too long to be ours.
    #[error("the token is longer than {MAX_TOKEN_LENGTH} bytes")]
    TooLong,
    /// No key of that name.
    #[error("the token names no key that we know")]
    UnknownKey,
    /// The header requires an unsupported feature.
    #[error("the token's header carries {0}")]
    Header(&'static str),
    /// Signature, time or claims are wrong.
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

    /// When the token ends.
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
    // Keys that a token brings along, or an address to fetch them from, are an attacker's.
    if header.jku.is_some() || header.jwk.is_some() || header.x5u.is_some() || header.x5c.is_some() {
        return Err(TokenError::Header("a key or a key's address"));
    }
    // A token with an unsupported critical extension must be rejected; none is supported.
    if header.crit.is_some() {
        return Err(TokenError::Header("a critical extension"));
    }
    let key = header.kid.as_deref().and_then(key).ok_or(TokenError::UnknownKey)?;

    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.leeway = LEEWAY_SECONDS;
    // Our tokens have no `nbf`. One with a later `nbf` is not valid yet, whoever signed it.
    validation.validate_nbf = true;
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[AUDIENCE]);
    // A claim that is absent is not compared: it must be required. `jti` and `sid`, which the library does not know,
    // are required by Claims.
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
    Ok(jsonwebtoken::decode::<Claims>(token, key, &validation)?.claims)
}
