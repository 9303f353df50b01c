//! The public halves of the signing keys, for services that verify access tokens themselves.

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};

use crate::{
    http::{
        etag::{content_etag, not_modified_or},
        problem::Problem,
        request::Request,
        response::{Response, json},
    },
    state::App,
};

/// `GET /.well-known/jwks.json`
///
/// # Errors
/// Never.
pub async fn jwks(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let keys = json(StatusCode::OK, &app.keyring.jwks())?;
    let etag = content_etag(keys.body().whole().unwrap_or_default());
    let mut response = not_modified_or(&request.headers, &etag, keys)?;
    // Shorter than the time between the publication of a new key and its first use for signing.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
    Ok(response)
}
