//! Entity tags, and the conditions that requests make with them.
//!
//! The entity tag of a resource is its version: `If-Match` of an update contains the version that its author saw. The
//! tag of a file is a hash of its content: `If-None-Match` contains the client's version, and an unchanged file is not
//! sent again.

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
    /// A tag that this API never sends: it matches nothing.
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
        // A weak tag never matches in a strong comparison, which If-Match requires.
        let strong = text.strip_prefix("W/");
        let tag = strong.unwrap_or(text).strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match tag {
            Some(tag) if !tag.contains('"') => Ok(match tag.parse() {
                Ok(version) if strong.is_none() => Self::Version(version),
                _ => Self::Foreign,
            }),
            _ => {
                Err(Problem::new(Code::MalformedRequest, "A header is malformed; `errors` names it.").errors(
                    vec![FieldError::header("if-match", "must be one entity tag in double quotes, or *")],
                ))
            }
        }
    }

    /// Checks that `version` is the requested one.
    ///
    /// # Errors
    /// [`Code::PreconditionFailed`].
    pub fn check(self, version: i64) -> Result<(), Problem> {
        match self {
            Self::Any => Ok(()),
            Self::Version(seen) if seen == version => Ok(()),
            _ => Err(failed()),
        }
    }
}

/// The resource has changed since the caller read it.
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

/// The entity tag of these bytes.
#[must_use]
pub fn content_etag(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(&digest[..12]))
}

/// The response with its entity tag; or 304 if the client already has this version.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_versions() {
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
    fn another_version_does_not_match() {
        assert!(IfMatch::Version(7).check(7).is_ok() && IfMatch::Any.check(7).is_ok());
        assert!(IfMatch::Version(6).check(7).is_err() && IfMatch::Foreign.check(7).is_err());
    }
}
