//! The public halves of the signing keys, for services that verify access tokens themselves.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};

use crate::{
    edge::{
        problem::Problem,
        request::Request,
        respond::{Response, json},
    },
    state::App,
};

/// `GET /.well-known/jwks.json`
///
/// # Errors
/// Never.
pub async fn jwks(app: &Arc<App>, _: &mut Request) -> Result<Response, Problem> {
    let mut response = json(StatusCode::OK, app.keyring.jwks())?;
    // Short enough that a new key is known before it signs.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
    Ok(response)
}
