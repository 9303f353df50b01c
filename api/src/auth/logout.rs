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
        response::{Response, empty},
    },
    state::App,
};

/// `POST /v1/auth/logout`, with `{"everywhere": true}` for all sign-ins of the user.
///
/// # Errors
/// When the database is away: the token then still holds.
pub async fn logout(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let everywhere = everywhere(request).await?;
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

async fn everywhere(request: &mut Request) -> Result<bool, Problem> {
    if request.bytes().await?.is_empty() {
        return Ok(false);
    }
    let mut body = request.object().await?;
    let everywhere = body.optional("everywhere", one_of::<bool>("true or false"));
    Ok(body.finish(everywhere)?.unwrap_or(false))
}
