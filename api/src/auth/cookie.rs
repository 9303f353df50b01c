//! The session cookie: the access token in a place that scripts cannot read.

use atrium_shared::{identity::TOKEN_LIFETIME, settings::PublicUrl};
use http::{HeaderMap, HeaderValue, header};

/// The cookie's name. Over TLS the prefix makes browsers refuse one that another host, or plain HTTP, has set.
fn name(public_url: &PublicUrl) -> &'static str {
    if public_url.is_https() { "__Host-atrium_session" } else { "atrium_session" }
}

/// The token in the request's cookies. Two of that name are none: one of them was planted.
#[must_use]
pub fn token<'a>(public_url: &PublicUrl, headers: &'a HeaderMap) -> Option<&'a str> {
    let name = name(public_url);
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = pairs
        .flat_map(|pairs| pairs.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter_map(|(key, value)| (key == name).then_some(value));
    let token = tokens.next().filter(|token| !token.is_empty());
    if tokens.next().is_some() { None } else { token }
}

/// The value of `Set-Cookie` that signs in.
///
/// # Errors
/// When the token is no header value, which is a defect.
pub fn set(public_url: &PublicUrl, token: &str) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    HeaderValue::try_from(cookie(public_url, token, TOKEN_LIFETIME.as_secs()))
}

/// The value of `Set-Cookie` that signs out.
///
/// # Errors
/// Never, in practice: it holds no foreign text.
pub fn clear(public_url: &PublicUrl) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    HeaderValue::try_from(cookie(public_url, "", 0))
}

fn cookie(public_url: &PublicUrl, value: &str, max_age: u64) -> String {
    let secure = if public_url.is_https() { "; Secure" } else { "" };
    format!("{}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={max_age}{secure}", name(public_url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_bound_to_the_host_over_tls() {
        let url = crate::edge::tests::api_settings().public_url;
        assert_eq!(
            set(&url, "a.b.c").expect("a header value"),
            "__Host-atrium_session=a.b.c; HttpOnly; SameSite=Strict; Path=/; Max-Age=900; Secure"
        );
    }

    #[test]
    fn one_cookie_of_the_name_counts() {
        let url = crate::edge::tests::api_settings().public_url;
        let read = |value| {
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(value))]);
            token(&url, &headers).map(str::to_owned)
        };
        assert_eq!(read("a=1; __Host-atrium_session=t; b=2").as_deref(), Some("t"));
        for none in [
            "",
            "atrium_session=t",
            "__Host-atrium_session=",
            "__Host-atrium_session=t; __Host-atrium_session=u",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
