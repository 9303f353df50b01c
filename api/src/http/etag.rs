//! Entity tags, and the conditional requests that use them.
//!
//! The tag of a resource is its version: an update names in `If-Match` the version that its author read. The tag of a
//! file is a hash of its content: a client names in `If-None-Match` the content that it has cached, and gets a 304 if
//! that is still current.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::{
    problem::{Code, FieldError, Problem},
    response::{Response, empty},
};

/// The condition in `If-Match`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: any version.
    Any,
    /// `"7"`: this version only.
    Version(i64),
    /// A tag that this API never issues: it matches no version.
    Foreign,
}

impl IfMatch {
    pub(super) fn parse(header: Option<&str>) -> Result<Self, Problem> {
        let Some(text) = header.map(str::trim) else {
            return Err(Problem::new(
                Code::PreconditionRequired,
                "The `If-Match` header is missing; send the `ETag` of the version that you read.",
            ));
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        // `If-Match` uses the strong comparison, in which a weak tag never matches.
        let weak = text.strip_prefix("W/");
        let tag = weak.unwrap_or(text).strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match tag {
            Some(tag) if !tag.contains('"') => Ok(match tag.parse() {
                Ok(version) if weak.is_none() => Self::Version(version),
                _ => Self::Foreign,
            }),
            _ => {
                Err(Problem::new(Code::MalformedRequest, "A header is malformed; `errors` names it.").errors(
                    vec![FieldError::header("if-match", "must be one entity tag in double quotes, or *")],
                ))
            }
        }
    }

    /// Checks that `version`, the current one, fulfills the condition.
    ///
    /// # Errors
    /// [`Code::PreconditionFailed`].
    pub fn check(self, version: i64) -> Result<(), Problem> {
        match self {
            Self::Any => Ok(()),
            Self::Version(expected) if expected == version => Ok(()),
            _ => Err(failed()),
        }
    }
}

/// The problem for a resource that has changed since the caller read it.
#[must_use]
pub fn failed() -> Problem {
    Problem::new(Code::PreconditionFailed, "The resource has changed since you read it.")
}

/// The entity tag of a version.
///
/// # Panics
/// Never: digits in quotes are a header value.
#[must_use]
pub fn etag(version: i64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).expect("digits in quotes are a header value")
}

/// The entity tag of a file's content.
#[must_use]
pub fn content_etag(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(&digest[..12]))
}

/// `complete` with its entity tag, or 304 if `If-None-Match` names that tag.
///
/// # Errors
/// When the tag is not a valid header value, which is a bug.
pub fn not_modified_or(request: &HeaderMap, etag: &str, complete: Response) -> Result<Response, Problem> {
    let cached = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut cached = cached.flat_map(|tags| tags.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    let is_cached = cached.any(|tag| tag == etag || tag == "*");
    let mut response = if is_cached { empty(StatusCode::NOT_MODIFIED) } else { complete };
    response.headers_mut().insert(header::ETAG, HeaderValue::try_from(etag).map_err(Problem::internal)?);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_is_a_version_or_a_star() {
        let parse = |text| IfMatch::parse(Some(text)).map_err(|problem| problem.code());
        assert_eq!(parse("\"7\""), Ok(IfMatch::Version(7)));
        assert_eq!(parse("*"), Ok(IfMatch::Any));
        assert_eq!(parse("W/\"7\""), Ok(IfMatch::Foreign));
        assert_eq!(parse("\"abc\""), Ok(IfMatch::Foreign));
        for wrong in ["7", "\"7", "", "\"1\", \"2\"", "'7'"] {
            assert_eq!(parse(wrong), Err(Code::MalformedRequest), "{wrong}");
        }
        assert_eq!(IfMatch::parse(None).map_err(|problem| problem.code()), Err(Code::PreconditionRequired));
    }

    #[test]
    fn if_match_fails_for_another_version() {
        assert!(IfMatch::Version(7).check(7).is_ok() && IfMatch::Any.check(7).is_ok());
        assert!(IfMatch::Version(6).check(7).is_err() && IfMatch::Foreign.check(7).is_err());
    }
}
