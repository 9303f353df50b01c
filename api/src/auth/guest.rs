//! Signing in as a guest: one request creates a numbered user. No input is required, and no personal data is stored.

use std::sync::Arc;

use atrium_shared::ids::UserId;
use http::StatusCode;

use super::{auth_sessions, signed_in::signed_in};
use crate::{
    http::{problem::Problem, request::Request, response::Response},
    state::App,
};

/// `POST /v1/auth/guest`
///
/// # Errors
/// When a body with fields was sent, or the database is unavailable.
pub async fn sign_in(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    request.no_fields().await?;
    let id = UserId::new();
    let mut tx = app.database.user_tx(id).await?;
    let name = sqlx::query_scalar!("INSERT INTO users (id) VALUES ($1) RETURNING name", id as UserId)
        .fetch_one(tx.conn())
        .await?;
    let refresh = auth_sessions::begin(&mut tx).await?;
    let response = signed_in(app, StatusCode::CREATED, name, &refresh)?;
    tx.commit().await?;
    Ok(response)
}
