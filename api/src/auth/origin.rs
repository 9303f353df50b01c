//! Where a browser's request comes from: a cookie goes along with requests that any site makes.
//!
//! A script that holds a token put it into `Authorization`. A cookie proves nothing about the author of the request, so
//! it counts only if the browser reports that our own page, or one that the operator allows, sent it.

use atrium_shared::settings::ApiSettings;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::http::problem::{Code, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether an origin is ours or one the operator allows.
#[must_use]
pub fn is_trusted(api: &ApiSettings, origin: &HeaderValue) -> bool {
    origin == api.public_url.origin() || api.allowed_origins.iter().any(|allowed| origin == allowed.as_str())
}

/// Rejects requests that another site made a browser send. For requests authenticated by the cookie, and for the
/// sign-in, which sets it. `proof`: whether a missing origin is rejected too, as for all requests that change
/// something.
///
/// # Errors
/// [`Code::CrossSiteRequest`].
pub fn check(api: &ApiSettings, headers: &HeaderMap, proof: bool) -> Result<(), Problem> {
    let trusted = match (headers.get(header::ORIGIN), headers.get(SEC_FETCH_SITE)) {
        (Some(origin), _) => is_trusted(api, origin),
        (None, Some(site)) => site == "same-origin" || site == "none",
        (None, None) => !proof,
    };
    if trusted {
        Ok(())
    } else {
        Err(Problem::new(
            Code::CrossSiteRequest,
            "The session cookie is accepted from the platform's own pages only; send `Authorization: Bearer` instead.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(headers: &[(HeaderName, &'static str)], proof: bool) -> bool {
        let api = crate::auth::tests::api_settings();
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        check(&api, &headers, proof).is_ok()
    }

    #[test]
    fn our_own_pages_are_accepted() {
        assert!(passes(&[(header::ORIGIN, "https://atrium.example")], true));
        assert!(passes(&[(header::ORIGIN, "https://friend.example")], true));
        assert!(passes(&[(SEC_FETCH_SITE, "same-origin")], true));
        assert!(passes(&[(SEC_FETCH_SITE, "none")], true));
    }

    #[test]
    fn other_sites_are_rejected() {
        for origin in ["https://evil.example", "null", "http://atrium.example", "https://atrium.example.evil"]
        {
            assert!(!passes(&[(header::ORIGIN, origin)], false), "{origin}");
        }
        assert!(!passes(&[(SEC_FETCH_SITE, "cross-site")], false));
        assert!(!passes(&[(SEC_FETCH_SITE, "same-site")], false));
        assert!(!passes(&[(header::ORIGIN, "https://evil.example"), (SEC_FETCH_SITE, "same-origin")], false));
    }

    #[test]
    fn a_missing_origin_is_accepted_for_reads_only() {
        assert!(passes(&[], false));
        assert!(!passes(&[], true));
    }
}
