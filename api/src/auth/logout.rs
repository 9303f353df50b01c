//! Signing out: the sign-in is over. Its refresh token holds no more, and its access tokens are refused from now on,
//! everywhere, although they have not expired. On demand the user's other sign-ins end as well.

use std::sync::Arc;

use http::{StatusCode, header};

use super::{auth_sessions, cookie::Cookie};
use crate::{
    http::{
        body::one_of,
        problem::Problem,
        request::Request,
        request_body::request_body,
        response::{Response, empty},
    },
    state::App,
};

request_body! {
    /// How far a sign-out goes.
    pub(super) struct SignOut {
        /// Whether it ends all sign-ins of the user.
        everywhere: Option<bool> = optional(one_of("true or false")),
    }
}

/// `POST /v1/auth/logout`, with `{"everywhere": true}` for all sign-ins of the user.
///
/// # Errors
/// When the database is unavailable: the token then still holds.
pub async fn logout(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let body: Option<SignOut> = request.optional_body().await?;
    let everywhere = body.and_then(|body| body.everywhere).unwrap_or(false);
    let user = request.signed_in_user()?;
    let mut tx = app.database.user_tx(user.id).await?;
    let revoked = auth_sessions::end(&mut tx, user.auth_session, everywhere).await?;
    tx.commit().await?;
    // Other processes find the rows within their poll; this one knows already.
    for auth_session in revoked {
        app.revocations.insert(auth_session);
    }

    let mut response = empty(StatusCode::NO_CONTENT);
    for cookie in [Cookie::Session, Cookie::Refresh] {
        let cleared = cookie.clear(&app.api.public_url).map_err(Problem::internal)?;
        response.headers_mut().append(header::SET_COOKIE, cleared);
    }
    Ok(response)
}
