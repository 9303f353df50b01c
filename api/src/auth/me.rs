//! Returns the signed-in user, and when the access token expires.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    http::{
        caller::User,
        problem::Problem,
        request::Request,
        response::{Response, json},
    },
    state::App,
};

#[derive(Serialize, JsonSchema)]
pub(super) struct Me {
    user: User,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    expires_at: OffsetDateTime,
}

/// `GET /v1/auth/me`
///
/// # Errors
/// Never, once authenticated.
pub async fn me(_: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let user = request.signed_in_user()?;
    json(StatusCode::OK, &Me { user: user.into(), expires_at: user.expires_at })
}
