//! What a client holds already is not sent again: entity tags of content, and `If-None-Match`.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::{
    problem::Problem,
    respond::{Response, empty},
};

/// The entity tag of these bytes.
#[must_use]
pub fn content_etag(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(&digest[..12]))
}

/// The answer with its entity tag; or 304, when the request says that this is what it holds.
///
/// # Errors
/// When the tag is no header value, which is a defect.
pub fn unless_held(request: &HeaderMap, etag: &str, whole: Response) -> Result<Response, Problem> {
    let held = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut held = held.flat_map(|tags| tags.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    let is_held = held.any(|tag| tag == etag || tag == "*");
    let mut response = if is_held { empty(StatusCode::NOT_MODIFIED) } else { whole };
    response.headers_mut().insert(header::ETAG, HeaderValue::try_from(etag).map_err(Problem::internal)?);
    Ok(response)
}
