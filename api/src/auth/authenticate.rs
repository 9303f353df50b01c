//! Who asks: the access token or the service's key in `Authorization`, or else the access token in the session cookie.

use std::sync::Arc;

use atrium_shared::{
    api_key::{self, ApiKeyText},
    db::ApiKey,
    telemetry::metrics::REVOKED_TOKENS_REFUSED,
};
use http::{HeaderMap, header};
use metrics::counter;

use super::{Caller, Identity, cookie::Cookie};
use crate::{
    edge::{
        problem::{Code, Problem},
        request::Request,
    },
    routes::Route,
    state::App,
};

/// How a token came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// In `Authorization`: whoever wrote the request holds the token.
    Bearer,
    /// In the cookie: a browser added it, whoever wrote the request.
    Cookie,
}

/// Who asks, and how they say so. A token that does not hold counts against the address that it comes from.
///
/// # Errors
/// `unauthenticated`, always in the same words: why a token does not hold is for the log; `rate_limited` when too
/// many did not. What `route` does not take from a service.
pub async fn authenticate(
    app: &Arc<App>,
    route: &Route,
    request: &Request,
) -> Result<(Caller, Carrier), Problem> {
    let headers = &request.headers;
    let (token, carrier) = if headers.contains_key(header::AUTHORIZATION) {
        (bearer(headers), Carrier::Bearer)
    } else {
        (Cookie::Session.read(&app.api.public_url, headers), Carrier::Cookie)
    };
    let token = token.ok_or_else(|| refused("no token"))?;
    app.rate_limits.may_try(request.client, token)?;
    let holder = match holder(app, token, carrier).await {
        // Nobody knows yet whether it holds.
        Err(problem) if problem.code() != Code::Unauthenticated => return Err(problem),
        Err(problem) => {
            app.rate_limits.bad_token(request.client).await?;
            return Err(problem);
        }
        Ok(holder) => holder,
    };
    app.rate_limits.held(token);
    let caller = match holder {
        Holder::User(identity) => Caller::User(identity),
        Holder::Service(presented, key) => {
            Caller::Service(super::api_key::service(app, route, request, &presented, key)?)
        }
    };
    Ok((caller, carrier))
}

/// Who holds a token, whatever they may do with it.
enum Holder {
    /// Of an access token.
    User(Identity),
    /// Of a service's key.
    Service(ApiKeyText, ApiKey),
}

/// Who holds this token, if it holds.
async fn holder(app: &App, token: &str, carrier: Carrier) -> Result<Holder, Problem> {
    // Only where whoever wrote the request put it: a browser's cookie holds no key.
    if carrier == Carrier::Bearer && token.starts_with(api_key::PREFIX) {
        let presented = ApiKeyText::parse(token).ok_or_else(|| refused("not an API key"))?;
        let key = app.database.api_key(&presented).await?;
        return Ok(Holder::Service(presented, key.ok_or_else(|| refused("no such API key, or no longer"))?));
    }
    let claims = app.keyring.verify(token).await.map_err(|error| refused(&error.to_string()))?;
    if app.revocations.is_revoked(claims.sid) {
        counter!(REVOKED_TOKENS_REFUSED).increment(1);
        return Err(refused("the token was signed out"));
    }
    Ok(Holder::User(Identity {
        user: claims.sub,
        auth_session: claims.sid,
        expires_at: claims.expires_at(),
        name: claims.name,
    }))
}

fn refused(cause: &str) -> Problem {
    Problem::unauthenticated("A valid access token is needed.").cause(cause)
}

/// The token of the one `Authorization: Bearer` there is.
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
    fn one_bearer_token_counts() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read(&["Bearer a.b.c"]).as_deref(), Some("a.b.c"));
        assert_eq!(read(&["bearer  a.b.c"]).as_deref(), Some("a.b.c"));
        for none in [&["Basic a"][..], &["Bearer"], &["a.b.c"], &["Bearer a", "Bearer b"]] {
            assert_eq!(read(none), None, "{none:?}");
        }
    }
}
