//! Scripts of other origins: which of them may read responses, and what they may send
//! ([Fetch](https://fetch.spec.whatwg.org/)).

use atrium_shared::settings::ApiSettings;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{
    auth::origin::is_trusted,
    http::response::{Response, empty},
};

/// What a script may send beyond what browsers always allow.
const ALLOWED_HEADERS: &str =
    "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, x-request-id";
/// What a script may read beyond what browsers always allow.
const EXPOSED_HEADERS: &str = "etag, location, operation-location, ratelimit, ratelimit-policy, retry-after, x-request-id, idempotent-replayed";
/// How long a browser may remember the answer to a preflight, seconds.
const MAX_AGE: &str = "600";

/// Answers `OPTIONS` on a path that takes `allow`.
#[must_use]
pub fn options(api: &ApiSettings, request: &HeaderMap, allow: HeaderValue) -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    let is_preflight = request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if is_preflight && request.get(header::ORIGIN).is_some_and(|origin| is_trusted(api, origin)) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, allow.clone());
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    }
    headers.insert(header::ALLOW, allow);
    response
}

/// Lets a trusted origin's scripts read an answer, cookies included. Others get no header, and so no answer.
pub fn apply(api: &ApiSettings, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    if api.allowed_origins.is_empty() {
        return;
    }
    // The response depends on the origin, which caches have to know.
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin.filter(|origin| is_trusted(api, origin)) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_origins_are_accepted() {
        let api = crate::auth::tests::api_settings();
        let answer = |origin| {
            let origin = HeaderValue::from_static(origin);
            let mut headers = HeaderMap::new();
            apply(&api, Some(&origin), &mut headers);
            headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
        };
        assert_eq!(
            answer("https://friend.example"),
            Some(HeaderValue::from_static("https://friend.example"))
        );
        assert_eq!(answer("https://evil.example"), None);
    }

    #[test]
    fn a_preflight_names_methods_and_headers() {
        let api = crate::auth::tests::api_settings();
        let ask = |origin| {
            let request = HeaderMap::from_iter([
                (header::ORIGIN, HeaderValue::from_static(origin)),
                (header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT")),
            ]);
            options(&api, &request, HeaderValue::from_static("GET, PUT"))
        };
        let allowed = ask("https://friend.example");
        assert_eq!(allowed.headers()[header::ACCESS_CONTROL_ALLOW_METHODS], "GET, PUT");
        let refused = ask("https://evil.example");
        assert!(!refused.headers().contains_key(header::ACCESS_CONTROL_ALLOW_METHODS));
        assert_eq!(refused.headers()[header::ALLOW], "GET, PUT");
    }
}
