//! Staying signed in: a refresh token is exchanged for a new access token and its own successor.

use std::sync::Arc;

use atrium_shared::{ids::UserId, telemetry::metrics::REFRESHES};
use http::StatusCode;
use metrics::counter;

use super::{
    auth_sessions::{self, Presented},
    cookie::Cookie,
    origin,
    refresh_token::RefreshToken,
    signed_in::signed_in,
};
use crate::{
    http::{problem::Problem, request::Request, response::Response},
    state::App,
};

/// `POST /v1/auth/refresh`
///
/// # Errors
/// `unauthenticated`, with one text for every invalid token; `refresh_token_reused` when the token was used before,
/// which ends the sign-in session for every holder of one of its tokens.
pub async fn refresh(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let token = Cookie::Refresh.read(&app.api.public_url, &request.headers).ok_or_else(unauthenticated)?;
    // A cookie proves nothing about the author of the request.
    origin::check(&app.api, &request.headers, true)?;
    let token = RefreshToken::parse(token).ok_or_else(unauthenticated)?;
    request.no_fields().await?;

    let (user, auth_session) = (token.user, token.auth_session);
    let mut tx = app.database.user_tx(user).await?;
    let (outcome, refresh) = match auth_sessions::rotate(&mut tx, token).await? {
        Presented::Rotated(refresh) => ("rotated", refresh),
        Presented::Repeated(refresh) => ("repeated", refresh),
        Presented::Unknown => return Err(unauthenticated()),
        Presented::Reused => {
            if auth_sessions::end_reused(&mut tx, auth_session).await? {
                tx.commit().await?;
                // Other processes read the row at their next poll; this one applies it immediately.
                app.revocations.insert(auth_session);
                tracing::warn!(%user, %auth_session, "a used refresh token was sent again; its sign-in session has ended");
            }
            counter!(REFRESHES, "outcome" => "reused").increment(1);
            return Err(Problem::refresh_token_reused());
        }
    };
    let name = sqlx::query_scalar!("SELECT name FROM users WHERE id = $1", user as UserId)
        .fetch_one(tx.conn())
        .await?;
    let response = signed_in(app, StatusCode::OK, name, &refresh)?;
    tx.commit().await?;
    counter!(REFRESHES, "outcome" => outcome).increment(1);
    Ok(response)
}

fn unauthenticated() -> Problem {
    counter!(REFRESHES, "outcome" => "refused").increment(1);
    Problem::unauthenticated("The refresh token is missing, expired or revoked; sign in again.")
}
