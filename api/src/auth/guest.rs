//! Signing in: one request makes a guest with a number. Nothing is asked, nothing personal is stored.

use std::sync::Arc;

use atrium_shared::{identity::TOKEN_LIFETIME, ids::UserId};
use http::{StatusCode, header};
use serde::Serialize;

use super::{User, cookie};
use crate::{
    edge::{
        problem::Problem,
        request::Request,
        respond::{Response, json},
    },
    state::App,
};

#[derive(Serialize)]
struct SignedIn {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    user: User,
}

/// `POST /v1/auth/guest`
///
/// # Errors
/// When a body with fields was sent, or the database is away.
pub async fn sign_in(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    request.no_fields().await?;
    let id = UserId::new();
    let mut tx = app.database.user_tx(id).await?;
    let key: String = sqlx::query_scalar("INSERT INTO users (id) VALUES ($1) RETURNING key")
        .bind(id)
        .fetch_one(tx.conn())
        .await?;
    // Signed before the commit: a guest without a token would be nobody's.
    let (access_token, _) = app.keyring.issue(id, &key).map_err(Problem::internal)?;
    let set_cookie = cookie::set(&app.api.public_url, &access_token).map_err(Problem::internal)?;
    tx.commit().await?;

    let mut response = json(
        StatusCode::CREATED,
        &SignedIn {
            access_token,
            token_type: "Bearer",
            expires_in: TOKEN_LIFETIME.as_secs(),
            user: User { id, key },
        },
    )?;
    response.headers_mut().insert(header::SET_COOKIE, set_cookie);
    Ok(response)
}
