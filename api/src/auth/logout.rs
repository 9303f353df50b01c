//! Signing out: ends the sign-in session. Its refresh token becomes invalid, and all processes reject its access tokens
//! from now on, although they have not expired. On request, the user's other sign-in sessions end as well.

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
    /// Which sign-in sessions a sign-out ends.
    pub(super) struct SignOut {
        /// Whether it ends all sign-in sessions of the user.
        everywhere: Option<bool> = optional(one_of("true or false")),
    }
}

/// `POST /v1/auth/logout`, with `{"everywhere": true}` for all sign-in sessions of the user.
///
/// # Errors
/// When the database is unavailable; the tokens then stay valid.
pub async fn logout(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let body: Option<SignOut> = request.optional_body().await?;
    let everywhere = body.and_then(|body| body.everywhere).unwrap_or(false);
    let user = request.signed_in_user()?;
    let mut tx = app.database.user_tx(user.id).await?;
    let revoked = auth_sessions::end(&mut tx, user.auth_session, everywhere).await?;
    tx.commit().await?;
    // Other processes read the rows at their next poll; this one applies them immediately.
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
