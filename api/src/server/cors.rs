//! CORS: which scripts of other origins may send requests and read responses ([Fetch](https://fetch.spec.whatwg.org/)).

use atrium_shared::settings::ApiSettings;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{
    auth::origin::is_trusted,
    http::response::{Response, empty},
};

/// The headers that a script may send, in addition to those that browsers always allow.
const ALLOWED_HEADERS: &str =
    "authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, x-request-id";
/// The headers that a script may read, in addition to those that browsers always allow.
const EXPOSED_HEADERS: &str = "etag, location, operation-location, ratelimit, ratelimit-policy, retry-after, x-request-id, idempotent-replayed";
/// How long a browser may cache the response to a preflight, in seconds.
const MAX_AGE: &str = "600";

/// Responds to `OPTIONS` on a path with the methods in `allow`.
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

/// Lets scripts of a trusted origin read the response to a request with cookies. Other origins get no header, so
/// browsers keep the response from their scripts.
pub fn apply(api: &ApiSettings, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    if api.allowed_origins.is_empty() {
        return;
    }
    // The response differs by origin, so caches must not share it between origins.
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
    fn only_trusted_origins_are_allowed() {
        let api = crate::auth::tests::api_settings();
        let allowed_origin = |origin| {
            let origin = HeaderValue::from_static(origin);
            let mut headers = HeaderMap::new();
            apply(&api, Some(&origin), &mut headers);
            headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
        };
        assert_eq!(
            allowed_origin("https://friend.example"),
            Some(HeaderValue::from_static("https://friend.example"))
        );
        assert_eq!(allowed_origin("https://evil.example"), None);
    }

    #[test]
    fn preflights_from_trusted_origins_return_the_allowed_methods() {
        let api = crate::auth::tests::api_settings();
        let preflight = |origin| {
            let request = HeaderMap::from_iter([
                (header::ORIGIN, HeaderValue::from_static(origin)),
                (header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT")),
            ]);
            options(&api, &request, HeaderValue::from_static("GET, PUT"))
        };
        let allowed = preflight("https://friend.example");
        assert_eq!(allowed.headers()[header::ACCESS_CONTROL_ALLOW_METHODS], "GET, PUT");
        let rejected = preflight("https://evil.example");
        assert!(!rejected.headers().contains_key(header::ACCESS_CONTROL_ALLOW_METHODS));
        assert_eq!(rejected.headers()[header::ALLOW], "GET, PUT");
    }
}
