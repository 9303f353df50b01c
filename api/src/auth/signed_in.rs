//! The response to a sign-in and to every refresh: an access token for programs, and both tokens in cookies for
//! browsers. The refresh token is sent only in its cookie, which no script of the page can read.

use atrium_shared::timings::TOKEN_LIFETIME;
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use super::{auth_sessions::Issued, cookie::Cookie};
use crate::{
    http::{
        caller::User,
        problem::Problem,
        response::{Response, json},
    },
    state::App,
};

#[derive(Serialize, JsonSchema)]
pub(super) struct SignedIn {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    user: User,
}

/// Builds the response that carries the new tokens. It must be built before the commit, so that nothing is stored if
/// the access token cannot be signed.
pub(super) fn signed_in(
    app: &App,
    status: StatusCode,
    name: String,
    refresh: &Issued,
) -> Result<Response, Problem> {
    let user = User { id: refresh.token.user, name };
    let (access_token, _) =
        app.keyring.issue(user.id, &user.name, refresh.token.auth_session).map_err(Problem::internal)?;
    let expires_in = TOKEN_LIFETIME.as_secs();
    let url = &app.api.public_url;
    let session = Cookie::Session.set(url, &access_token, expires_in).map_err(Problem::internal)?;
    let mut renewal: HeaderValue =
        Cookie::Refresh.set(url, &refresh.token.to_text(), refresh.seconds).map_err(Problem::internal)?;
    renewal.set_sensitive(true);

    let mut response = json(status, &SignedIn { access_token, token_type: "Bearer", expires_in, user })?;
    response.headers_mut().append(header::SET_COOKIE, session);
    response.headers_mut().append(header::SET_COOKIE, renewal);
    Ok(response)
}
