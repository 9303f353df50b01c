//! Checks the origin of a browser's request, because browsers attach cookies to requests from any site.
//!
//! A token in `Authorization` was put there by a script that has it. A cookie proves nothing about the author of the
//! request, so it is accepted only if the browser states that the request comes from our own page, or from an origin
//! that the operator allows.

use atrium_shared::settings::ApiSettings;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::http::problem::{Code, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether an origin is our own or one that the operator allows.
#[must_use]
pub fn is_trusted(api: &ApiSettings, origin: &HeaderValue) -> bool {
    origin == api.public_url.origin() || api.allowed_origins.iter().any(|allowed| origin == allowed.as_str())
}

/// Rejects requests that another site made a browser send. Applied to requests authenticated by the cookie, and to the
/// sign-in, which sets it. With `origin_required`, a request that states no origin is rejected too; set for requests
/// that change something.
///
/// # Errors
/// [`Code::CrossSiteRequest`].
pub fn check(api: &ApiSettings, headers: &HeaderMap, origin_required: bool) -> Result<(), Problem> {
    let trusted = match (headers.get(header::ORIGIN), headers.get(SEC_FETCH_SITE)) {
        (Some(origin), _) => is_trusted(api, origin),
        (None, Some(site)) => site == "same-origin" || site == "none",
        (None, None) => !origin_required,
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

    fn passes(headers: &[(HeaderName, &'static str)], origin_required: bool) -> bool {
        let api = crate::auth::tests::api_settings();
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        check(&api, &headers, origin_required).is_ok()
    }

    #[test]
    fn our_own_pages_and_allowed_origins_pass() {
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
    fn missing_origin_passes_only_if_not_required() {
        assert!(passes(&[], false));
        assert!(!passes(&[], true));
    }
}
