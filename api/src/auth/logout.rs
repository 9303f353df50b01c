//! Signing out: the sign-in is over. Its refresh token holds no more, and its access tokens are refused from now on,
//! everywhere, although they have not expired.

use std::sync::Arc;

use http::{StatusCode, header};

use super::{cookie::Cookie, families};
use crate::{
    edge::{
        problem::Problem,
        request::Request,
        respond::{Response, empty},
    },
    state::App,
};

/// `POST /v1/auth/logout`
///
/// # Errors
/// When the database is away: the token then still holds.
pub async fn logout(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let identity = request.identity()?;
    let mut tx = app.database.user_tx(identity.user).await?;
    let until = families::end(&mut tx, identity.family, identity.token).await?;
    tx.commit().await?;
    // Other processes find the rows within their poll; this one knows already.
    app.revocations.insert(identity.token, until);
    app.revocations.insert(identity.family.uuid(), until);

    let mut response = empty(StatusCode::NO_CONTENT);
    for cookie in [Cookie::Session, Cookie::Refresh] {
        let cleared = cookie.clear(&app.api.public_url).map_err(Problem::internal)?;
        response.headers_mut().append(header::SET_COOKIE, cleared);
    }
    Ok(response)
}
