//! Authenticates requests: with the access token or API key in `Authorization`, or else with the access token in the
//! session cookie.

use std::sync::Arc;

use atrium_shared::{
    api_key::{self, ApiKeyText, ApiScope},
    db::ApiKey,
    telemetry::metrics::REVOKED_TOKENS_REFUSED,
};
use http::{HeaderMap, header};
use metrics::counter;

use super::cookie::Cookie;
use crate::{
    http::{
        caller::{Caller, SignedInUser},
        problem::{Code, Problem},
        request::Request,
    },
    state::App,
};

/// Where a request carries its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// In `Authorization`: the author of the request has the token.
    Bearer,
    /// In the cookie: a browser added it, and the request may come from any site.
    Cookie,
}

/// Returns the caller of a request, and where the token was found. An invalid token counts against the client's
/// address.
///
/// # Errors
/// `unauthenticated` with one text for all causes, since the cause is only logged; `rate_limited` after too many
/// invalid tokens; `api_key_not_accepted`, `not_found` or `api_key_scope_missing` when the API key may not use a route
/// that requires `scope`.
pub async fn authenticate(
    app: &Arc<App>,
    scope: Option<ApiScope>,
    request: &Request,
) -> Result<(Caller, Carrier), Problem> {
    let headers = &request.headers;
    let (token, carrier) = if headers.contains_key(header::AUTHORIZATION) {
        (bearer(headers), Carrier::Bearer)
    } else {
        (Cookie::Session.read(&app.api.public_url, headers), Carrier::Cookie)
    };
    let token = token.ok_or_else(|| rejected("no token"))?;
    app.rate_limits.check_bad_tokens(request.client, token)?;
    let verified = match verify(app, token, carrier).await {
        // The token could not be verified, so it does not count as invalid.
        Err(problem) if problem.code() != Code::Unauthenticated => return Err(problem),
        Err(problem) => {
            app.rate_limits.count_bad_token(request.client).await?;
            return Err(problem);
        }
        Ok(verified) => verified,
    };
    app.rate_limits.record_valid_token(token);
    let caller = match verified {
        Verified::User(user) => Caller::User(user),
        Verified::ApiKey(presented, key) => {
            Caller::ApiKey(super::api_key::caller(app, scope, request, &presented, key)?)
        }
    };
    Ok((caller, carrier))
}

/// A valid token, before its rights on the route are checked.
enum Verified {
    /// An access token.
    User(SignedInUser),
    /// An API key: the text from the request, and the record from the database.
    ApiKey(ApiKeyText, ApiKey),
}

/// Verifies a token.
async fn verify(app: &App, token: &str, carrier: Carrier) -> Result<Verified, Problem> {
    // API keys are accepted in `Authorization` only: a browser's cookie never carries one.
    if carrier == Carrier::Bearer && token.starts_with(api_key::PREFIX) {
        let presented = ApiKeyText::parse(token).ok_or_else(|| rejected("not an API key"))?;
        let key = app.database.api_key(&presented).await?;
        return Ok(Verified::ApiKey(
            presented,
            key.ok_or_else(|| rejected("the API key does not exist or was revoked"))?,
        ));
    }
    let claims = app.keyring.verify(token).await.map_err(|error| rejected(&error.to_string()))?;
    if app.revocations.is_revoked(claims.sid) {
        counter!(REVOKED_TOKENS_REFUSED).increment(1);
        return Err(rejected("the token was signed out"));
    }
    Ok(Verified::User(SignedInUser {
        id: claims.sub,
        auth_session: claims.sid,
        expires_at: claims.expires_at(),
        name: claims.name,
    }))
}

fn rejected(cause: &str) -> Problem {
    Problem::unauthenticated("The access token is missing, expired or revoked; refresh it or sign in.")
        .cause(cause)
}

/// The token of the `Authorization: Bearer` header, if there is exactly one `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (scheme, token) = values.next()?.to_str().ok()?.split_once(' ')?;
    (values.next().is_none() && scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn bearer_requires_exactly_one_well_formed_header() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read(&["Bearer a.b.c"]).as_deref(), Some("a.b.c"));
        assert_eq!(read(&["bearer  a.b.c"]).as_deref(), Some("a.b.c"));
        for invalid in [&["Basic a"][..], &["Bearer"], &["a.b.c"], &["Bearer a", "Bearer b"]] {
            assert_eq!(read(invalid), None, "{invalid:?}");
        }
    }
}
