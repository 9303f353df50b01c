//! Signing out: the token is refused from now on, everywhere, although it has not expired.

use std::sync::Arc;

use http::{StatusCode, header};

use super::cookie;
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
    sqlx::query(
        "INSERT INTO revoked_tokens (jti, user_id, expires_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(identity.token)
    .bind(identity.user)
    .bind(identity.expires_at)
    .execute(tx.conn())
    .await?;
    tx.commit().await?;
    // Other processes find the row within their poll; this one knows already.
    app.revocations.insert(identity.token, identity.expires_at);

    let mut response = empty(StatusCode::NO_CONTENT);
    response
        .headers_mut()
        .insert(header::SET_COOKIE, cookie::clear(&app.api.public_url).map_err(Problem::internal)?);
    Ok(response)
}
